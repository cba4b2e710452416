"""Scores records with a SavedModel and writes a submission file: VideoId,LabelConfidencePairs.

Needs no model code. Interrupted, the same command goes on behind the last finished shard.

Example:

  yt8m-infer --saved_model=exported/resnet_like/1 --input='~/data/yt8m/2/video/test*.tfrecord' --output=submission.csv
  yt8m-infer --bundle=resnet_like.tgz --input='~/data/yt8m/2/video/test*.tfrecord' --output=submission.csv
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin import fault_flags, model_flags
from yt8m_tf.bin.launch import launch

_INPUT = flags.DEFINE_list("input", None, "Patterns of the shards to score, separated by commas.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The CSV file to write.", required=True)
_TOP_K = flags.DEFINE_integer("top_k", 20, "Classes of each video.", lower_bound=1)
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
