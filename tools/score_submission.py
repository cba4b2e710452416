"""GAP@20 of a submission file against known labels.

The labels come from labelled shards (--labels='DATA/validate*.tfrecord'), or from a CSV file with the columns
id,labels, such as the test_labels.csv of the sample data. Every video of the labels must be in the submission, and no
other.

  python tools/score_submission.py --submission=submission.csv --labels='DATA/validate*.tfrecord'
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin.launch import launch
from yt8m_tf.errors import InputError


def main(_: Sequence[str]) -> None:
    pattern = flags.FLAGS.labels
    labels = read_csv_labels(Path(pattern)) if pattern.endswith(".csv") else read_shard_labels(pattern)
    gap = submission_gap(Path(flags.FLAGS.submission), labels)
    print(f"GAP@20 {gap:.6f} ({len(labels):,} videos, {sum(map(len, labels.values())):,} labels)")


def read_csv_labels(path: Path) -> dict[str, set[int]]:
    """Labels by video id, from a file with the columns id,labels."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: {int(word) for word in row["labels"].split()} for row in csv.DictReader(file)}


def read_shard_labels(pattern: str) -> dict[str, set[int]]:
    """Labels by video id, from labelled shards of either level."""
    import tensorflow as tf

    from yt8m_tf.data.shards import list_shards

    labels = {}
    for record in tf.data.TFRecordDataset(list_shards([pattern], source="--labels")).as_numpy_iterator():
        # Read as a SequenceExample, a video-level Example is one with a context alone: their first fields are alike.
        context = tf.train.SequenceExample.FromString(record).context.feature
        key = "id" if "id" in context else "video_id"
        labels[context[key].bytes_list.value[0].decode()] = set(context["labels"].int64_list.value)
    return labels


def submission_gap(path: Path, labels: Mapping[str, set[int]]) -> float:
    """GAP@20 of `VideoId,LabelConfidencePairs` rows.

    Raises:
      InputError: the videos of the submission are not those of the labels.
    """
    import numpy as np

    from yt8m_tf.metrics.accumulator import global_average_precision
    from yt8m_tf.metrics.batch_statistics import TOP_K

    scores, hits, seen = [], [], set()
    for video_id, pairs in _rows(path):
        if video_id in seen or video_id not in labels:
            raise InputError(
                f"{path}: video '{video_id}' {'stands twice' if video_id in seen else 'has no labels given'}"
            )
        seen.add(video_id)
        for class_id, score in pairs[:TOP_K]:
            scores.append(score)
            hits.append(class_id in labels[video_id])
    if missing := labels.keys() - seen:
        raise InputError(f"{path}: lacks {len(missing)} of {len(labels)} videos, '{min(missing)}' for one")
    return global_average_precision(np.array(scores, np.float32), np.array(hits), sum(map(len, labels.values())))


def _rows(path: Path) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            words = row["LabelConfidencePairs"].split()
            yield row["VideoId"], [(int(c), float(s)) for c, s in zip(words[::2], words[1::2], strict=True)]


if __name__ == "__main__":
    flags.DEFINE_string("submission", None, "The submission file.", required=True)
    flags.DEFINE_string("labels", None, "Pattern of labelled shards, or a CSV file with id,labels.", required=True)
    launch(main)
