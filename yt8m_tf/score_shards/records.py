"""The records of score shards: a video's highest scores, as `tf.train.Example` with three bytes features.

These are `id`; `class_ids`, little-endian uint16; and `scores`, as many little-endian float16 probabilities, highest
first, and among equal ones the lower class id first. A video with 100 classes takes 460 bytes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.data.assertions import require
from yt8m_tf.layers.candidates import ranking_keys as ranking_keys

DEFAULT_TOP_K = 100

_KEYS = ("id", "class_ids", "scores")


def highest(keys: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the highest scores of each video, in the order of score shards.

    NumPy partitions and sorts integers with vector instructions, unlike `tf.math.top_k` on a CPU (docs/BENCHMARKS.md).

    Args:
      keys: [B, C] int32, from `ranking_keys`; the K highest suffice, in any order.
      top_k: K; if there are fewer keys, all are returned.

    Returns:
      Class ids [B, K] int32 and scores [B, K] float16.
    """
    if keys.shape[1] > top_k:
        keys = np.partition(keys, keys.shape[1] - top_k, axis=1)[:, -top_k:]
    keys = np.sort(keys, axis=1)[:, ::-1]
    return schema.MAX_STORED_CLASSES - 1 - (keys & (schema.MAX_STORED_CLASSES - 1)), (keys >> 16).astype(
        np.uint16
    ).view(np.float16)


def encode(video_id: bytes, classes: np.ndarray, scores: np.ndarray) -> bytes:
    """Encodes a record; `classes` [k] are ids below 65,536, `scores` [k] in [0, 1], both in the order of the module."""
    values = (np.asarray(classes, "<u2").tobytes(), video_id, np.asarray(scores, "<f2").tobytes())
    return b"".join(itertools.chain(*zip(_headers(len(video_id), len(classes)), values, strict=True)))


@functools.lru_cache(maxsize=4096)
def _headers(id_length: int, count: int) -> list[bytes]:
    """Returns the bytes before each value of `encode` in a serialized `tf.train.Example`: lengths and keys.

    They are the same for records of equal lengths, and joining them is faster than serializing every record.
    """
    lengths = {"class_ids": 2 * count, "id": id_length, "scores": 2 * count}
    features = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(n)])) for key, n in lengths.items()}
    # A map's entries come one after the other, ordered by key, each with its value at the end.
    entries = [tf.train.Features(feature={key: feature}).SerializeToString() for key, feature in features.items()]
    whole = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    headers = [entry[: len(entry) - n] for entry, n in zip(entries, lengths.values(), strict=True)]
    return [whole[: len(whole) - sum(map(len, entries))] + headers[0], *headers[1:]]


def write_shard(path: Path, rows: Iterable[tuple[bytes, np.ndarray, np.ndarray]]) -> int:
    """Writes a score shard, which appears once it is complete, from the arguments of `encode`; returns their number."""
    count = 0
    with files.whole_file(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for row in rows:
            writer.write(encode(*row))
            count += 1
    return count


def parse_serialized(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Splits records into their three features: [B] strings to "id", "class_ids" and "scores", [B] strings each."""
    return tf.io.parse_example(serialized, {key: tf.io.FixedLenFeature([], tf.string) for key in _KEYS})


def decode(class_ids: tf.Tensor, scores: tf.Tensor, top_k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes features of `parse_serialized`.

    Args:
      class_ids, scores: [B] strings.
      top_k: K, at least as many as any record has.

    Returns:
      Class ids [B, K] int32, padded with -1, and scores [B, K] float16, padded with 0.

    Raises:
      tf.errors.InvalidArgumentError: a record has different numbers of class ids and scores, or more than K.
    """
    lengths = tf.strings.length(class_ids)  # [B], two bytes per class
    right = tf.reduce_all(tf.equal(lengths, tf.strings.length(scores)) & (lengths <= 2 * top_k) & (lengths % 2 == 0))
    with tf.control_dependencies([require(right, "score records of other lengths")]):
        classes = tf.cast(tf.io.decode_raw(class_ids, tf.uint16, fixed_length=2 * top_k), tf.int32)
    padding = tf.range(top_k) >= lengths[:, None] // 2
    bits = tf.io.decode_raw(scores, tf.uint16, fixed_length=2 * top_k)
    return tf.where(padding, schema.NO_LABEL, classes), tf.bitcast(bits, tf.float16)
