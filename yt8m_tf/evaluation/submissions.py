"""Computes GAP@20 of a submission file against known labels."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from yt8m_tf import schema
from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.data import integrity, record_check
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.labels import LabelRule
from yt8m_tf.data.record_check import Reader
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import global_average_precision
from yt8m_tf.metrics.batch_statistics import TOP_K

T = TypeVar("T")

# The number of classes in the 2017 version of the dataset, which has the most.
MOST_CLASSES = 4716
# Decides the remedies that messages about the shards of --labels name.
READER = Reader(model="yt8m-score-submission", id_flag="--id_key", classes_flag="--num_classes")


def read_csv_labels(path: Path, num_classes: int = MOST_CLASSES) -> dict[str, set[int]]:
    """Reads labels by video id from a CSV file with the columns id,labels.

    Raises:
      InputError: the file cannot be read, or has other columns or values, a repeated video, or a class that is not
        below `num_classes`.
    """
    return {
        video_id: set(classes)
        for _, video_id, classes in _rows(path, "--labels", "id", "labels", lambda text: _classes(text, num_classes))
    }


def read_shard_labels(
    pattern: str, num_classes: int = MOST_CLASSES, keys: Mapping[str, str] | None = None
) -> dict[str, set[int]]:
    """Reads labels by video id from labelled shards of either level.

    Args:
      pattern: pattern of the shards.
      num_classes: class ids must be below it.
      keys: the keys of "id" and "labels" in the records, if they are not YouTube-8M's (`data.keys` of a configuration).

    Raises:
      InputError: no shard matches; or one is damaged, or has a record without an id, with the id of an earlier record,
        or with a class that is not below `num_classes`.
    """
    labels: dict[str, set[int]] = {}
    shards = list_shards([pattern], source="--labels")
    rule = LabelRule(num_classes, schema.id_keys_of(keys or {}), schema.labels_key_of(keys or {}), READER)
    for path in shards:
        for number, serialized in enumerate(integrity.good_records(path)):
            video_id = record_check.video_id(serialized, rule.id_keys) or ""
            problem = rule.problem(serialized)
            if not problem and video_id in labels:
                problem = (
                    "its id is that of an earlier record, and ids must be unique; give each shard once, and every video"
                    " another id"
                )
            if problem:
                name = integrity.named(serialized, rule.id_keys)
                raise InputError(f"--labels: {path}: record {number}{name}: {problem}")
            record = record_check.parse_record(serialized)
            assert record is not None  # it has an id
            labels[video_id] = set(record.context.feature[rule.labels_key].int64_list.value)
        if damage := integrity.scan_shard(path).damage:
            raise InputError("--labels: " + damage.advise("yt8m-inspect can save the good records"))
    Faults().check_any(len(labels), shards, "--labels: no video was read")
    return labels


def submission_gap(
    path: Path, labels: Mapping[str, set[int]], num_classes: int = MOST_CLASSES, on_unlabelled: str = "error"
) -> tuple[float, int]:
    """Computes GAP@20 of `VideoId,LabelConfidencePairs` rows.

    Args:
      path: the submission file.
      labels: the labels of every video, by id.
      num_classes: class ids must be below it.
      on_unlabelled: what to do about videos without labels: "error", "skip": leave their rows out, or "negative": count
        all their predictions as wrong.

    Returns:
      GAP@20, and the number of videos without labels.

    Raises:
      InputError: the file cannot be read, or has other columns or values; its videos are not those of the labels; or no
        video has a label.
    """
    unlabelled = {video_id for video_id, own in labels.items() if not own}
    if len(unlabelled) == len(labels):
        raise InputError("--labels: no video has labels; the shards of the test split have none; give other shards")
    if unlabelled and on_unlabelled == "error":
        raise InputError(
            f"--labels: {len(unlabelled):,} of {len(labels):,} videos have no labels, for example '{min(unlabelled)}';"
            f" {record_check.ON_UNLABELLED_HINT}"
        )
    scores, hits, seen = [], [], set()
    rows = _rows(path, "--submission", "VideoId", "LabelConfidencePairs", lambda text: _pairs(text, num_classes))
    for line, video_id, pairs in rows:
        if video_id not in labels:
            raise InputError(
                f"--submission={path}: line {line}: video '{video_id}' has no labels given; give --labels of the same"
                " videos"
            )
        seen.add(video_id)
        if on_unlabelled == "skip" and video_id in unlabelled:
            continue
        for class_id, score in pairs[:TOP_K]:
            scores.append(score)
            hits.append(class_id in labels[video_id])
    if missing := labels.keys() - seen:
        raise InputError(
            f"--submission={path}: lacks {len(missing)} of {len(labels)} videos, for example '{min(missing)}'; score"
            " all of them, or give --labels of the same videos"
        )
    num_labels = sum(map(len, labels.values()))
    return global_average_precision(np.array(scores, np.float32), np.array(hits), num_labels), len(unlabelled)


def _rows(
    path: Path, flag: str, id_column: str, values_column: str, parse: Callable[[str], T]
) -> Iterator[tuple[int, str, T]]:
    """Yields line, id and parsed values of each row of a CSV file, with or without a byte order mark; no id twice."""
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = CsvRows(file, strict=True)
            if not {id_column, values_column} <= set(reader.fieldnames or ()):
                first = ",".join(reader.fieldnames or ())[:80] or "nothing"
                raise InputError(
                    f"{flag}={path}: lacks the columns {id_column},{values_column}: line 1 contains {first}; give a"
                    " CSV file with commas and that header"
                )
            for row in reader:
                try:
                    if not row[id_column]:
                        raise ValueError("no id")
                    if row[id_column] in lines:
                        raise ValueError(f"video '{row[id_column]}' is already in line {lines[row[id_column]]}")
                    lines[row[id_column]] = reader.line_num
                    values = parse(row[values_column] or "")
                except ValueError as error:
                    raise InputError(f"{flag}={path}: line {reader.line_num} cannot be read: {error}") from error
                yield reader.line_num, row[id_column], values
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be read: {error.strerror}; check the path") from error
    except csv.Error as error:
        raise InputError(f"{flag}={path}: {error}; mend the line, or unpack the file if it is compressed") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{flag}={path}: not a CSV file ({error}); is it compressed? unpack it") from error


def _classes(text: str, num_classes: int) -> list[int]:
    words = text.split()
    if wrong := [word for word in words if not (word.isascii() and word.isdecimal())]:
        raise ValueError(f"'{wrong[0]}' is not a class id")
    return [_below(int(word), num_classes) for word in words]


def _below(class_id: int, num_classes: int) -> int:
    if not 0 <= class_id < num_classes:
        raise ValueError(f"class {class_id} is not below --num_classes={num_classes}; class ids begin at 0")
    return class_id


def _pairs(text: str, num_classes: int) -> list[tuple[int, float]]:
    """Parses and checks class ids and scores: distinct classes, scores from 0 to 1, highest first."""
    words = text.split()
    if not words:
        raise ValueError("no class and score; give every video's highest classes")
    if len(words) % 2:
        raise ValueError(f"{len(words)} words, not pairs of a class and its score")
    classes = _classes(" ".join(words[::2]), num_classes)
    pairs = list(zip(classes, map(_score, words[1::2]), strict=True))
    if len(set(classes)) < len(classes):
        raise ValueError(f"class {next(c for c in classes if classes.count(c) > 1)} occurs twice")
    if unsorted := [after for before, after in itertools.pairwise(score for _, score in pairs) if after > before]:
        raise ValueError(f"score {unsorted[0]:g} comes after a lower one; write each row's highest scores first")
    return pairs


def _score(word: str) -> float:
    try:
        score = float(word)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise ValueError(f"'{word}' is not a score from 0 to 1")
    return score
