"""GAP@20 of a submission file against known labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from yt8m_tf.data import integrity, record_check
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import global_average_precision
from yt8m_tf.metrics.batch_statistics import TOP_K

T = TypeVar("T")


def read_csv_labels(path: Path) -> dict[str, set[int]]:
    """Labels by video id, from a file with the columns id,labels.

    Raises:
      InputError: it cannot be read, or has other columns or values.
    """
    return dict(_rows(path, "--labels", "id", "labels", _classes))


def read_shard_labels(pattern: str) -> dict[str, set[int]]:
    """Labels by video id, from labelled shards of either level.

    Raises:
      InputError: no shard matches; one is damaged, or holds a record without an id.
    """
    labels = {}
    for path in list_shards([pattern], source="--labels"):
        for number, serialized in enumerate(integrity.good_records(path)):
            record, video_id = record_check.parse_record(serialized), record_check.video_id(serialized)
            if record is None or video_id is None:
                raise InputError(f"--labels: {path}: record {number} has no id; give YouTube-8M shards")
            labels[video_id] = set(record.context.feature[record_check.LABELS_KEY].int64_list.value)
        if damage := integrity.scan_shard(path).damage:
            raise InputError(f"--labels: {damage}; yt8m-inspect can save the good records")
    return labels


def submission_gap(path: Path, labels: Mapping[str, set[int]]) -> float:
    """GAP@20 of `VideoId,LabelConfidencePairs` rows.

    Raises:
      InputError: the file cannot be read, or has other columns or values; its videos are not those of the labels; no
        video has a label.
    """
    if not any(labels.values()):
        raise InputError("--labels: no video has labels; those of the test split are not in the shards")
    scores, hits, seen = [], [], set()
    for video_id, pairs in _rows(path, "--submission", "VideoId", "LabelConfidencePairs", _pairs):
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


def _rows(
    path: Path, flag: str, id_column: str, values_column: str, parse: Callable[[str], T]
) -> Iterator[tuple[str, T]]:
    """The id and the parsed values of each row of a CSV file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not {id_column, values_column} <= set(reader.fieldnames or ()):
                raise InputError(f"{flag}={path}: lacks the columns {id_column},{values_column}")
            for row in reader:
                try:
                    yield row[id_column], parse(row[values_column])
                except (AttributeError, ValueError) as error:  # a cell that is not there is None
                    raise InputError(f"{flag}={path}: line {reader.line_num} cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be read: {error.strerror}") from error


def _classes(text: str) -> set[int]:
    return {int(word) for word in text.split()}


def _pairs(text: str) -> list[tuple[int, float]]:
    words = text.split()
    return [(int(c), float(s)) for c, s in zip(words[::2], words[1::2], strict=True)]
