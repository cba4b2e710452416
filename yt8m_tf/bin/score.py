"""Scores shards with a trained model, and writes score shards: the 100 highest classes of each video, in float16.

Given the runs of all folds of a model, each training shard is scored by the run that held it out, and every other shard
by the mean of all runs. Interrupted, the same command goes on; started several times at once, the processes share the
shards among themselves.

Example:

  yt8m-score --model='runs/moe/fold_*' --data_dir=~/data/yt8m/2/video --input='train*.tfrecord' \\
      --output=scores/moe/train
  yt8m-score --model=exported/student/1 --input='~/data/yt8m/2/video/test*.tfrecord' --output=scores/student/test
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin import fault_flags
from yt8m_tf.bin.launch import launch

_MODEL = flags.DEFINE_list(
    "model", None, "Run directories of yt8m-train (a pattern may name the folds), or one SavedModel.", required=True
)
_INPUT = flags.DEFINE_list("input", None, "Patterns of shards, relative to --data_dir.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "What --input is relative to.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the score shards.", required=True)
_TOP_K = flags.DEFINE_integer("top_k", 100, "Classes of each video.", lower_bound=1)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "By GAP on the validation data, or the newest.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Records scored together; the default is 1024 at video level, 128 at frame level.",
    lower_bound=1,
)
_XLA = flags.DEFINE_bool("xla", True, "Compile the forward pass with XLA.")
flags.adopt_module_key_flags(fault_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.scoring.predictors import find_predictor
    from yt8m_tf.scoring.score import score

    output = files.local_path(_OUTPUT.value, "--output")
    models = files.matching(_MODEL.value, "--model")
    predictors = [find_predictor(path, _CHECKPOINT.value, _XLA.value) for path in models]
    summary = score(
        predictors,
        list_shards(_INPUT.value, _DATA_DIR.value, "--input"),
        output,
        top_k=_TOP_K.value,
        batch_size=_BATCH_SIZE.value,
        faults=fault_flags.faults(),
        xla=_XLA.value,
    )
    counts, rate = summary.manifest.shards, summary.num_scored / max(summary.seconds, 1e-9)
    print(
        f"{_OUTPUT.value}: scores of {sum(counts.values()):,} videos of {len(counts):,} shards ({rate:,.0f} videos/s)"
    )
    for line in summary.faults.summary():
        print(line)


def run() -> None:
    """The console script."""
    launch(main)


if __name__ == "__main__":
    run()
