"""Scores records with a SavedModel, and writes the classes of each video: a submission for Kaggle, or names.

Formats: csv, VideoId,LabelConfidencePairs; jsonl, an object with id, names, ids and scores on each line; parquet, the
same as columns; names, a readable line: "id: name score, name score". The names come from the SavedModel or from
--vocabulary.

With --extract the input is videos. Their features are extracted first, as by yt8m-extract: --extract=DIR uses the
recipe that yt8m-extract stored in DIR, --extract=NAME=BACKBONE,... gives a new one. No shards are left behind.

--segments=5 scores consecutive windows of five frames, --segments=5:1 a window for every frame. The output is then a
submission to the 2019 challenge, Class,Segments, with the 100,000 best segments of each class. With --format=jsonl it
has, for each video, an object with id and segments, each with start, end, names, ids and scores. With --video_model,
each score is multiplied by that of the whole video, from another SavedModel or the same one. A model that was trained
on segments with context frames gets the same context here. --mean_with averages the scores with those of other models.

--saved_model=pretrained is the model that comes with the package, --input=examples real records that it has not seen,
and --input=examples:frame, with --signature=frames, a real frame-level clip.

No model code is needed. After an interruption, the same command resumes after the last finished shard.

Example:

  yt8m-infer --saved_model=pretrained --input=examples --output=names.txt --format=names
  yt8m-infer --saved_model=exported/resnet_like/1 --input='DATA/2/video/test*.tfrecord' --output=submission.csv
  yt8m-infer --bundle=resnet_like.tgz --input='DATA/2/video/test*.tfrecord' --output=submission.csv
  yt8m-infer --saved_model=exported/resnet_like/1 --input='DATA/2/video/test*.tfrecord' --output=labels.txt \\
      --format=names --threshold=thresholds.csv --vocabulary=vocabulary.csv
  yt8m-infer --saved_model=exported/clips/1 --input='DATA/3/frame/test*.tfrecord' --output=segments.csv \\
      --segments=5 --classes=segment_label_ids.csv --video_model=same
  yt8m-infer --saved_model=exported/mine/1 --input=clip.mp4 --extract=mine --output=names.txt --format=names
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from yt8m_tf.bin import fault_flags, model_flags, recipe_flags
from yt8m_tf.bin.launch import launch

_INPUT = flags.DEFINE_list(
    "input",
    None,
    "Patterns of the shards, or of the videos, to score; examples, examples:frame: records that come with the package.",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "The file to write.", required=True)
_FORMAT = flags.DEFINE_enum("format", "csv", ["csv", "jsonl", "parquet", "names"], "Format of --output.")
_TOP_K = flags.DEFINE_integer("top_k", 20, "Classes of each video, or segment, at most.", lower_bound=1)
_SEGMENTS = flags.DEFINE_string(
    "segments", None, "Score windows over clips: SIZE, or SIZE:STRIDE, in frames; 5 for the challenge."
)
_CLASSES = flags.DEFINE_string(
    "classes", None, "The classes of segments to write: the dataset's segment_label_ids.csv. The default is all."
)
_VIDEO_MODEL = flags.DEFINE_string(
    "video_model",
    None,
    "Multiply segments' scores by those of whole videos: the directory of a SavedModel, or 'same' for the first one.",
)
_MEAN_WITH = flags.DEFINE_list(
    "mean_with", [], "SavedModels of yt8m-export whose scores of segments are averaged with those of the first."
)
_THRESHOLD = flags.DEFINE_string(
    "threshold",
    None,
    "The score that a class must reach to be written: a number, or a file of yt8m-evaluate --thresholds. A video may"
    " have no class then.",
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary",
    None,
    "The dataset's vocabulary.csv, for names of classes; the default is the names in the SavedModel.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Records scored together; the default is 1024 at video level, 128 at frame level, 512 windows with --segments.",
    lower_bound=1,
)
_SIGNATURE = flags.DEFINE_enum(
    "signature",
    "serving_default",
    ["serving_default", "frames"],
    "Signature that scores the records; frames: frame-level records by a video-level model, exported with --frames.",
)
_EXTRACT = flags.DEFINE_list(
    "extract", None, "The input is videos: the directory of yt8m-extract, or NAME=BACKBONE for each feature."
)
flags.adopt_module_key_flags(recipe_flags)
flags.adopt_module_key_flags(fault_flags)
flags.adopt_module_key_flags(model_flags)
flags.mark_flags_as_mutual_exclusive(["saved_model", "bundle"], required=True)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.serving.inference import infer

    output = files.local_path(_OUTPUT.value, "--output")
    others = (_VOCABULARY.value, _THRESHOLD.value, _CLASSES.value, _VIDEO_MODEL.value, *_MEAN_WITH.value)
    files.check_no_input([output], [model_flags.path(), *filter(None, others)], f"--output={output}")
    vocabulary = None if _VOCABULARY.value is None else Path(_VOCABULARY.value).expanduser()
    options: dict[str, Any] = {
        "top_k": _TOP_K.value,
        "layout": _FORMAT.value,
        "vocabulary": vocabulary,
        "batch_size": _BATCH_SIZE.value,
        "faults": fault_flags.faults(),
        "source": model_flags.flag(),
        "signature": _SIGNATURE.value,
    }
    with model_flags.saved_model() as directory, _shards(directory, output) as shards:
        if _SEGMENTS.value is None:
            _refuse(
                {"--classes": _CLASSES, "--video_model": _VIDEO_MODEL, "--mean_with": _MEAN_WITH},
                "is for segments; add --segments=5",
            )
            summary = infer(directory, shards, output, threshold=_THRESHOLD.value, **options)
            following = _after_videos(directory, shards)
        else:
            _refuse({"--threshold": _THRESHOLD}, "is not for --segments; leave it out")
            summary = _infer_segments(directory, shards, output, options)
            following = _after_segments()
    rate = summary.num_scored / max(summary.seconds, 1e-9)
    print(f"{_OUTPUT.value}: {summary.num_rows:,} videos of {len(shards):,} shards ({rate:,.0f} videos/s)")
    for line in summary.faults.summary():
        print(line)
    if following:
        print(following)


def _after_videos(directory: str, shards: Sequence[str]) -> str | None:
    """Returns the next command: GAP@20 of a submission if the records have labels, a timeline page, or none."""
    from yt8m_tf import schema
    from yt8m_tf.bin.usage import next_command
    from yt8m_tf.data import integrity
    from yt8m_tf.metrics.batch_statistics import TOP_K
    from yt8m_tf.serving.metadata import read_data

    record = integrity.first_record(shards)
    if _EXTRACT.value is not None or record is None:
        return None
    data = read_data(directory)
    keys = data.keys if data else {}
    whole = _FORMAT.value == "csv" and _THRESHOLD.value is None and _TOP_K.value >= TOP_K and len(_INPUT.value) == 1
    if whole and record.context.feature[schema.labels_key_of(keys)].int64_list.value:
        own = {f"{name}_key": keys[name] for name in ("id", "labels") if name in keys}
        return next_command("score-submission", submission=_OUTPUT.value, labels=_INPUT.value[0], **own)
    if integrity.first_level(shards) != "frame":
        return None
    model, value = model_flags.flag().removeprefix("--").split("=", 1)
    more = {} if _SIGNATURE.value == "serving_default" else {"signature": _SIGNATURE.value}
    return next_command("timeline", **{model: value}, input=_INPUT.value, **more, output="timeline.html")


def _after_segments() -> str | None:
    """Returns the next command after segments: MAP of a submission if shards may have ratings, or a timeline page."""
    from yt8m_tf.bin.usage import next_command

    of_videos, several = _EXTRACT.value is not None, len(_INPUT.value) > 1
    if _FORMAT.value == "jsonl":
        more = {} if of_videos else {"labels": _INPUT.value}
        if of_videos and Path(_INPUT.value[0]).is_file() and not several:
            more = {"video": _INPUT.value[0]}
        return next_command("timeline", input=[_OUTPUT.value], **more, output="timeline.html")
    if of_videos or several:
        return None
    classes = {} if _CLASSES.value is None else {"classes": _CLASSES.value}
    return next_command("score-submission", submission=_OUTPUT.value, labels=_INPUT.value[0], **classes)


@contextlib.contextmanager
def _shards(saved_model: str, output: Path) -> Iterator[list[str]]:
    """Yields the shards to score: those of the input, or those made of its videos, which exist only in the block."""
    from yt8m_tf.data.shards import list_shards

    if _EXTRACT.value is None:
        yield list_shards(_INPUT.value, source="--input")
        return
    from yt8m_tf.extraction.extract import check_suits, extracted
    from yt8m_tf.extraction.video_files import find_videos
    from yt8m_tf.serving.metadata import read_data

    data = read_data(saved_model)
    level = data.level if data else "video"
    recipe = recipe_flags.recipe_or_stored(_EXTRACT.value, "--extract")
    check_suits(recipe, data.sizes if data else {}, model_flags.flag(), "--extract")
    directory = output.with_name(output.name + ".videos")
    with extracted(find_videos(_INPUT.value, None, directory), recipe, directory, level) as found:
        for row in found.report:
            if said := "; ".join(filter(None, [row.outcome.problem, *row.outcome.notes])):
                print(f"{row.file}: {said}")
        yield [str(directory / shard) for shard in found.written.shards]


def _infer_segments(directory: str, shards: list[str], output: Path, options: dict[str, Any]) -> Any:
    from yt8m_tf import files
    from yt8m_tf.pretrained import packaged
    from yt8m_tf.serving.segment_inference import infer_segments
    from yt8m_tf.serving.windows import Windows

    def model(flag: str, value: str) -> str:
        return os.path.expanduser(packaged.saved_model(value, flag))

    others = [model("--mean_with", value) for value in _MEAN_WITH.value]
    files.check_listed(list(map(Path, others)), "--mean_with")
    options = {
        **options,
        "classes": None if _CLASSES.value is None else os.path.expanduser(_CLASSES.value),
        "video_model": None if _VIDEO_MODEL.value is None else model("--video_model", _VIDEO_MODEL.value),
        "mean_with": others,
    }
    return infer_segments(directory, shards, output, Windows.parse(_SEGMENTS.value), **options)


def _refuse(given: dict[str, Any], why: str) -> None:
    from yt8m_tf.errors import InputError

    for name, own in given.items():
        if own.value not in (None, []):
            shown = ",".join(own.value) if isinstance(own.value, list) else own.value
            raise InputError(f"{name}={shown}: {why}")


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
