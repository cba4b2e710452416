"""Scores records with a SavedModel, and writes what it finds in each video: a submission for Kaggle, or names.

Formats: csv, VideoId,LabelConfidencePairs; jsonl, an object with id, names, ids and scores on each line; parquet, the
same as columns; names, a line for people: "id: name score, name score". Names are those that the SavedModel carries,
or those of --vocabulary.

Needs no model code. Interrupted, the same command goes on behind the last finished shard.

Example:

  yt8m-infer --saved_model=exported/resnet_like/1 --input='~/data/yt8m/2/video/test*.tfrecord' --output=submission.csv
  yt8m-infer --bundle=resnet_like.tgz --input='~/data/yt8m/2/video/test*.tfrecord' --output=submission.csv
  yt8m-infer --saved_model=exported/resnet_like/1 --input='~/data/yt8m/2/video/test*.tfrecord' --output=labels.txt \\
      --format=names --threshold=thresholds.csv --vocabulary=vocabulary.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin import fault_flags, model_flags
from yt8m_tf.bin.launch import launch

_INPUT = flags.DEFINE_list("input", None, "Patterns of the shards to score, separated by commas.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The file to write.", required=True)
_FORMAT = flags.DEFINE_enum("format", "csv", ["csv", "jsonl", "parquet", "names"], "Of the file.")
_TOP_K = flags.DEFINE_integer("top_k", 20, "Classes of each video, at most.", lower_bound=1)
_THRESHOLD = flags.DEFINE_string(
    "threshold",
    None,
    "The score that a class must reach to be written: a number, or a file of yt8m-evaluate --thresholds. A video may"
    " have no class then.",
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary",
    None,
    "The dataset's vocabulary.csv, for names of classes; the default is what the SavedModel carries.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Records scored together; the default is 1024 at video level, 128 at frame level.",
    lower_bound=1,
)
flags.adopt_module_key_flags(fault_flags)
flags.adopt_module_key_flags(model_flags)
flags.mark_flags_as_mutual_exclusive(["saved_model", "bundle"], required=True)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.serving.inference import infer

    output = files.local_path(_OUTPUT.value, "--output")
    shards = list_shards(_INPUT.value, source="--input")
    with model_flags.saved_model() as directory:
        summary = infer(
            directory,
            shards,
            output,
            top_k=_TOP_K.value,
            layout=_FORMAT.value,
            threshold=_THRESHOLD.value,
            vocabulary=None if _VOCABULARY.value is None else Path(_VOCABULARY.value).expanduser(),
            batch_size=_BATCH_SIZE.value,
            faults=fault_flags.faults(),
            source=model_flags.flag(),
        )
    rate = summary.num_scored / max(summary.seconds, 1e-9)
    print(f"{_OUTPUT.value}: {summary.num_rows:,} videos of {len(shards):,} shards ({rate:,.0f} videos/s)")
    for line in summary.faults.summary():
        print(line)


def run() -> None:
    """The console script."""
    launch(main)


if __name__ == "__main__":
    run()
