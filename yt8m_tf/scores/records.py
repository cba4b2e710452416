"""The records of score shards: a video's highest scores, as `tf.train.Example` with three bytes features.

`id`; `class_ids`, little-endian uint16; `scores`, as many little-endian float16 probabilities, highest first, equal
ones by lower class id. 460 bytes a video for 100 classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import run_dir, schema

# class_ids are uint16.
MAX_CLASSES = 2**16
DEFAULT_TOP_K = 100

_KEYS = ("id", "class_ids", "scores")


def highest(probabilities: tf.Tensor, top_k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The highest scores of each video, as score shards hold them.

    Args:
      probabilities: [B, C] in [0, 1], float32.
      top_k: K; all classes where there are fewer.

    Returns:
      Class ids [B, K] int32 and scores [B, K] float16. Rounding comes before ranking, so that scores which are equal in
      float16 rank by lower class id.
    """
    rounded = tf.cast(tf.cast(probabilities, tf.float16), tf.float32)
    scores, classes = tf.math.top_k(rounded, min(top_k, probabilities.shape[-1]))
    return classes, tf.cast(scores, tf.float16)


def encode(video_id: bytes, classes: np.ndarray, scores: np.ndarray) -> bytes:
    """One record; `classes` [k] are ids below 65,536, `scores` [k] in [0, 1], both in the order described above."""
    values = (video_id, classes.astype("<u2").tobytes(), scores.astype("<f2").tobytes())
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for key, value in zip(_KEYS, values, strict=True)
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def write_shard(path: Path, rows: Iterable[tuple[bytes, np.ndarray, np.ndarray]]) -> int:
    """Writes a score shard of `encode`'s arguments; it appears when it is whole. Returns the number of records."""
    count = 0
    with run_dir.whole_file(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for row in rows:
            writer.write(encode(*row))
            count += 1
    return count


def parse_serialized(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Records split into their three features: [B] strings -> "id", "class_ids", "scores", [B] strings each."""
    return tf.io.parse_example(serialized, {key: tf.io.FixedLenFeature([], tf.string) for key in _KEYS})


def decode(class_ids: tf.Tensor, scores: tf.Tensor, top_k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes features of `parse_serialized`.

    Args:
      class_ids, scores: [B] strings.
      top_k: K, at least as many as any record has.

    Returns:
      Class ids [B, K] int32, padded with -1, and scores [B, K] float16, padded with 0.

    Raises:
      tf.errors.InvalidArgumentError: class ids and scores are not equally many, or more than K.
    """
    lengths = tf.strings.length(class_ids)  # [B], two bytes a class
    right = tf.reduce_all(tf.equal(lengths, tf.strings.length(scores)) & (lengths <= 2 * top_k) & (lengths % 2 == 0))
    with tf.control_dependencies([tf.debugging.Assert(right, ["score records of other lengths"])]):
        classes = tf.cast(tf.io.decode_raw(class_ids, tf.uint16, fixed_length=2 * top_k), tf.int32)
    padding = tf.range(top_k) >= lengths[:, None] // 2
    bits = tf.io.decode_raw(scores, tf.uint16, fixed_length=2 * top_k)
    return tf.where(padding, schema.NO_LABEL, classes), tf.bitcast(bits, tf.float16)
