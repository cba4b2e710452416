"""Writes clips with ratings of segments, and cuts them in plain Python."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from shards import codes_of, frame_record, write_shard

Rating = tuple[int, int, float]  # start, class, score


def rated_record(video_id: bytes, ratings: Sequence[Rating], **frames: np.ndarray) -> bytes:
    """Returns a serialized clip of uint8 [T, D] frames with ratings, and a wrong label of the whole video."""
    record = tf.train.SequenceExample.FromString(frame_record(video_id, [0], **frames))
    context = record.context.feature
    context["segment_start_times"].int64_list.value.extend(start for start, _, _ in ratings)
    context["segment_end_times"].int64_list.value.extend(start + 5 for start, _, _ in ratings)
    context["segment_labels"].int64_list.value.extend(label for _, label, _ in ratings)
    context["segment_scores"].float_list.value.extend(score for _, _, score in ratings)
    return record.SerializeToString()


def cut_plainly(
    serialized: bytes, size: int, context: int = 0, beyond: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Returns the segments of a record (id, frames, ratings by class), and the number of those beyond the clip's end.

    With `beyond`, the latter are returned, too.
    """
    record = tf.train.SequenceExample.FromString(serialized)
    own = record.context.feature
    ratings: dict[int, dict[int, list[float]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for start, label, score in zip(
        own["segment_start_times"].int64_list.value,
        own["segment_labels"].int64_list.value,
        own["segment_scores"].float_list.value,
        strict=True,
    ):
        ratings[start][label].append(score)
    codes = codes_of(record)
    length = min(map(len, codes.values()))
    segments = [
        {
            "id": own["id"].bytes_list.value[0] + b":%d" % start,
            "ratings": {label: float(np.mean(scores)) for label, scores in of_start.items()},
            **{name: rows[:length][max(0, start - context) : start + size + context] for name, rows in codes.items()},
        }
        for start, of_start in ratings.items()
        if start < length or beyond
    ]
    return segments, len(ratings) - len(segments)


def random_records(rng: np.random.Generator, count: int, classes: int = 10, prefix: str = "v") -> list[bytes]:
    """Returns clips of 1 to 29 frames with 0 to 6 ratings; some repeat a pair, some are beyond the clip's end."""
    records = []
    for number in range(count):
        length = int(rng.integers(1, 30))
        codes = rng.integers(0, 256, (length, 12)).astype(np.uint8)
        ratings = [
            (int(rng.integers(0, 7)) * 5, int(rng.integers(classes)), float(rng.integers(0, 5)) / 4)
            for _ in range(int(rng.integers(0, 7)))
        ]
        records.append(rated_record(f"{prefix}{number:03d}".encode(), ratings, rgb=codes[:, :8], audio=codes[:, 8:]))
    return records


def learnable_segments(directory: Path, classes: int = 10, train: int = 4, validate: int = 2, each: int = 24) -> Path:
    """Writes shards with rated segments whose frames show the rated class or do not; other classes are unknown."""
    fixed = np.random.default_rng(7)
    prototypes = fixed.normal(size=(classes, 12))
    for split, count in (("train", train), ("validate", validate)):
        for shard in range(count):
            records = []
            for number in range(each):
                frames, ratings = fixed.normal(size=(20, 12)) * 0.1, []
                for start in (0, 5, 10):
                    shown, asked = fixed.integers(classes, size=2)
                    rated = shown if fixed.random() < 0.5 else asked
                    frames[start : start + 5] += prototypes[shown] * 0.6
                    ratings.append((start, int(rated), float(rated == shown)))
                codes = np.clip(np.round((frames - (4 / 512 - 2)) * 255 / 4), 0, 255).astype(np.uint8)
                name = f"{split[0]}{shard}{number:03d}".encode()
                records.append(rated_record(name, ratings, rgb=codes[:, :8], audio=codes[:, 8:]))
            write_shard(directory / f"{split}{shard:04d}.tfrecord", records)
    return directory
