"""GAP@20 of a submission file against known labels.

The labels come from labelled shards, or from a CSV file with the columns id,labels, such as the test_labels.csv of the
sample data. Every video of the labels must be in the submission, and no other.

Example:

  yt8m-score-submission --submission=submission.csv --labels='~/data/yt8m/2/video/validate*.tfrecord'
  yt8m-score-submission --submission=submission.csv --labels=sample/test_labels.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin import label_flags
from yt8m_tf.bin.launch import launch

_SUBMISSION = flags.DEFINE_string("submission", None, "The submission file.", required=True)
_LABELS = flags.DEFINE_string(
    "labels", None, "Pattern of labelled shards, or a CSV file with the columns id,labels.", required=True
)
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", 4716, "Classes of the data; the 2018 version has 3862. An id that is not below it is an error.", 1
)
flags.adopt_module_key_flags(label_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf.evaluation import submissions

    if _LABELS.value.endswith(".csv"):
        labels = submissions.read_csv_labels(Path(_LABELS.value).expanduser(), _NUM_CLASSES.value)
    else:
        labels = submissions.read_shard_labels(_LABELS.value, _NUM_CLASSES.value)
    policy = label_flags.ON_UNLABELLED.value
    submission = Path(_SUBMISSION.value).expanduser()
    gap, num_unlabelled = submissions.submission_gap(submission, labels, _NUM_CLASSES.value, policy)
    num_videos = len(labels) - (num_unlabelled if policy == "skip" else 0)
    print(f"GAP@20 {gap:.6f} ({num_videos:,} videos, {sum(map(len, labels.values())):,} labels)")
    if num_unlabelled:
        print(f"{'left out' if policy == 'skip' else 'took for negative'} {num_unlabelled:,} videos without labels")


def run() -> None:
    """The console script."""
    launch(main)


if __name__ == "__main__":
    run()
