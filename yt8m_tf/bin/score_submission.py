"""Computes GAP@20 of a submission file against known labels, or MAP@100,000 of a file of segments against ratings.

The labels come from labelled shards, or from a CSV file with the columns id,labels, such as the test_labels.csv of the
sample data. The submission must have exactly the videos of the labels. For records with ids and labels under other keys
(data.keys of a configuration), give --id_key and --labels_key.

A file with the header Class,Segments is a submission of segments. Its labels are the ratings in frame-level shards.
Unrated segments are unknown: they only take up places among the 100,000 of their class. Two means are printed: over all
classes with a positive rating, and over those of them that the file has.

Example:

  yt8m-score-submission --submission=submission.csv --labels='DATA/2/video/validate*.tfrecord'
  yt8m-score-submission --submission=submission.csv --labels=sample/test_labels.csv
  yt8m-score-submission --submission=segments.csv --labels='DATA/3/frame/validate*.tfrecord' \\
      --classes=segment_label_ids.csv --num_classes=3862
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
_CLASSES = flags.DEFINE_string(
    "classes",
    None,
    "The classes that a submission of segments may have: the dataset's segment_label_ids.csv. The default is all.",
)
_ID_KEY = flags.DEFINE_string("id_key", None, "Key of the ids in shards of --labels, if it is not YouTube-8M's.")
_LABELS_KEY = flags.DEFINE_string("labels_key", None, "Key of the labels, likewise.")
flags.adopt_module_key_flags(label_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf.errors import InputError
    from yt8m_tf.serving.segment_submission import is_segment_submission

    submission = Path(_SUBMISSION.value).expanduser()
    of_segments = is_segment_submission(submission)
    given = [flag for flag in (_ID_KEY, _LABELS_KEY) if flag.value is not None]
    if given and (of_segments or _LABELS.value.endswith(".csv")):
        raise InputError(f"--{given[0].name}={given[0].value}: is for labels of videos in shards; leave it out")
    print(_score_segments(submission) if of_segments else _score_videos(submission))


def _score_videos(submission: Path) -> str:
    from yt8m_tf.errors import InputError
    from yt8m_tf.evaluation import submissions

    if _CLASSES.value is not None:
        raise InputError(
            f"--classes={_CLASSES.value}: is for a submission with the header Class,Segments; leave it out"
        )
    if _LABELS.value.endswith(".csv"):
        labels = submissions.read_csv_labels(Path(_LABELS.value).expanduser(), _NUM_CLASSES.value)
    else:
        given = {"id": _ID_KEY.value, "labels": _LABELS_KEY.value}
        keys = {name: key for name, key in given.items() if key is not None}
        labels = submissions.read_shard_labels(_LABELS.value, _NUM_CLASSES.value, keys)
    policy = label_flags.ON_UNLABELLED.value
    gap, num_unlabelled = submissions.submission_gap(submission, labels, _NUM_CLASSES.value, policy)
    num_videos = len(labels) - (num_unlabelled if policy == "skip" else 0)
    text = f"GAP@20 {gap:.6f} ({num_videos:,} videos, {sum(map(len, labels.values())):,} labels)"
    if num_unlabelled:
        done = "left out" if policy == "skip" else "kept as negatives"
        text += f"\n{done} {num_unlabelled:,} videos without labels"
    return text


def _score_segments(submission: Path) -> str:
    from yt8m_tf.evaluation.segment_submissions import read_ratings, submission_map
    from yt8m_tf.metrics.segment_map import MAX_SEGMENTS
    from yt8m_tf.serving.segment_submission import read_classes

    num_classes, path = _NUM_CLASSES.value, _CLASSES.value
    classes = range(num_classes) if path is None else read_classes(Path(path).expanduser(), num_classes)
    ratings = read_ratings(_LABELS.value, num_classes)
    found = submission_map(submission, ratings, classes if path is None else frozenset(classes))
    name = f"MAP@{MAX_SEGMENTS}"
    return (
        f"{name} {found.mean:.6f} over all {len(found.average_precision):,} classes with a positive rating\n"
        f"{name} {found.mean_of_listed:.6f} over the {len(found.listed):,} of them in the submission\n"
        f"{found.num_rated:,} of {ratings.num_ratings:,} ratings are of segments in its lists"
    )


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
