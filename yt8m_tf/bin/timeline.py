"""Writes an HTML page that shows when classes occur in a video: those with the highest scores, as bands over time.

Scores, ratings and labels are shown on hover, and in a table. With --video the page plays the file, synchronised with
the bands. The page is self-contained, and readable on a phone, in light or dark mode.

With --saved_model, --input is frame-level shards, whose windows are scored as by yt8m-infer --segments; labels and
ratings come from the same records. Otherwise it is the file of yt8m-infer --segments=5 --format=jsonl, and labels and
ratings come from the shards of --labels.

Example:

  yt8m-timeline --saved_model=exported/clips/1 --input='DATA/3/frame/validate*.tfrecord' --ids=6l0e,c001 \\
      --output=timeline.html
  yt8m-timeline --input=segments.jsonl --ids=c001 --labels='DATA/3/frame/validate*.tfrecord' \\
      --output=timeline.html
  yt8m-timeline --input=segments.jsonl --ids=clip --output=timeline.html --video=clip.mp4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from yt8m_tf.bin import model_flags
from yt8m_tf.bin.launch import launch

if TYPE_CHECKING:
    from yt8m_tf.report.clips import Annotations, WindowScores

_FIRST = 10  # videos, if none are named

_INPUT = flags.DEFINE_list(
    "input", None, "Patterns of frame-level shards; or, without a model, a file of JSON lines.", required=True
)
_OUTPUT = flags.DEFINE_string("output", "timeline.html", "The page.")
_IDS = flags.DEFINE_list("ids", None, f"The videos to show. The default is the first {_FIRST} of the input.")
_TOP_K = flags.DEFINE_integer(
    "top_k", 10, "Number of classes with the highest scores to show of each video, besides the rated ones.", 1
)
_VIDEO = flags.DEFINE_string("video", None, "Video file of a single id, embedded in the page for playing.")
_LABELS = flags.DEFINE_list(
    "labels", None, "Patterns of the shards with labels and ratings. The default is those of --input, if it is shards."
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary", None, "The dataset's vocabulary.csv; the default is the names that the model or the file has."
)
_SEGMENTS = flags.DEFINE_string(
    "segments", None, "Windows that a model scores: SIZE or SIZE:STRIDE, in frames. Default 5."
)
_SIGNATURE = flags.DEFINE_enum(
    "signature",
    "serving_default",
    ["serving_default", "frames"],
    "Signature of a model that scores windows; frames: a video-level model, exported with --frames.",
)
flags.adopt_module_key_flags(model_flags)
flags.mark_flags_as_mutual_exclusive(["saved_model", "bundle"])


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.errors import InputError
    from yt8m_tf.report.timeline import write_timelines

    output = files.local_path(_OUTPUT.value, "--output")
    if output.suffix != ".html":
        raise InputError(f"--output={output}: not the name of a page; give one that ends in .html")
    video = None if _VIDEO.value is None else files.local_path(_VIDEO.value, "--video")
    scores, annotations = _of_model() if model_flags.is_given() else _of_file()
    timelines = write_timelines(output, scores, annotations, top_k=_TOP_K.value, video=video)
    for own in timelines:
        print(f"{own.id}: {own.what}")
    print(f"written: {output} ({output.stat().st_size / 1e6:.1f} MB)")


def _of_model() -> tuple[Mapping[str, WindowScores], Mapping[str, Annotations]]:
    from yt8m_tf import schema
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.report.clip_records import find_records, read_annotations
    from yt8m_tf.report.clips import from_rows
    from yt8m_tf.serving.metadata import read_names
    from yt8m_tf.serving.segment_inference import score_clip
    from yt8m_tf.serving.segment_scorer import load_segment_scorer
    from yt8m_tf.serving.windows import Windows

    shards = list_shards(_INPUT.value, source="--input")
    windows = Windows.parse(_SEGMENTS.value or f"{Windows.size}")
    with model_flags.saved_model() as directory:
        score = load_segment_scorer(
            directory, shards, windows, top_k=None, source=model_flags.flag(), signature=_SIGNATURE.value
        )
        records = find_records(shards, _IDS.value, _FIRST, "--input", score.scorer.id_keys)
        data = score.scorer.data
        num_classes, key = (data.num_classes, data.labels_key) if data else (None, schema.LABELS_KEY)
        names = _vocabulary(num_classes) or read_names(directory, num_classes)
        scores = {video: from_rows(score_clip(score, *own), names) for video, own in records.items()}
    if _LABELS.value is None:
        return scores, {video: read_annotations(*own, num_classes, key) for video, own in records.items()}
    return scores, _labelled(list(scores), num_classes)


def _of_file() -> tuple[Mapping[str, WindowScores], Mapping[str, Annotations]]:
    from yt8m_tf import files
    from yt8m_tf.errors import InputError
    from yt8m_tf.report.clip_scores import read_scores

    for name, own in {"segments": _SEGMENTS, "signature": _SIGNATURE}.items():
        if flags.FLAGS[name].present:
            raise InputError(f"--{name}={own.value}: is for shards that a model scores; give --saved_model, too")
    if len(_INPUT.value) > 1:
        raise InputError(f"--input: {len(_INPUT.value)} files; give one of JSON lines, or --saved_model with shards")
    scores = read_scores(files.local_path(_INPUT.value[0], "--input"), _IDS.value, _FIRST, _vocabulary(None))
    return scores, {} if _LABELS.value is None else _labelled(list(scores), None)


def _labelled(ids: Sequence[str], num_classes: int | None) -> Mapping[str, Annotations]:
    """Returns the annotations of the videos that are in the shards of --labels."""
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.report.clip_records import find_records, read_annotations

    found = find_records(list_shards(_LABELS.value, source="--labels"), ids, len(ids), "--labels")
    return {video: read_annotations(*own, num_classes) for video, own in found.items()}


def _vocabulary(num_classes: int | None) -> list[str] | None:
    from yt8m_tf.vocabulary import load_vocabulary

    return None if _VOCABULARY.value is None else load_vocabulary(Path(_VOCABULARY.value).expanduser(), num_classes)


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
