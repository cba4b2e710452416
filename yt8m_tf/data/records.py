"""Parses batches of serialized YouTube-8M records, at either level and of any version.

Whole batches are parsed by one operation: per-record parsing is ten times slower. Features stay as they are stored
(float32 means, uint8 frames), labels become padded lists of class ids; what is large (`[B, C]` targets, float frames)
is made on the device. The functions run eagerly, inside `tf.data`, and in the exported graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from yt8m_tf.config.data import RecordsConfig, TargetsConfig, targets_of
from yt8m_tf.schema import NO_LABEL

# 2018 files call the id "id", 2017 files "video_id": a record has one of them.
_ID_KEYS = ("id", "video_id")
_LABELS = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int32)

# What a bad record raises. TensorFlow's message quotes one that is no protocol buffer, and then may not be text.
PARSE_FAILURES = (tf.errors.InvalidArgumentError, UnicodeDecodeError)


def record_key(data: RecordsConfig, feature: str) -> str:
    """The key under which records hold `feature`."""
    return data.keys.get(feature, f"mean_{feature}" if data.level == "video" else feature)


def parse_records(serialized: tf.Tensor, data: RecordsConfig) -> dict[str, tf.Tensor]:
    """Parses a batch of serialized records.

    Args:
      serialized: [B] strings; `tf.train.Example` at video level, `tf.train.SequenceExample` at frame level. Fields that
        `data` does not name, such as those of the 2019 segment data, are ignored.
      data: level, features, sizes and limits. Labels are read with a `DataConfig`, and left out with its `records`;
        records without any get an empty list.

    Returns:
      "id": [B] string. "labels", if they are read: [B, L] int32 class ids, each once, padded with -1. For each feature,
      at video level [B, D] float32; at frame level [B, T, D] uint8 and beside them "num_frames" [B] int32, at most
      `max_frames`.
      T is the shortest of `data.frame_lengths` and `data.max_frames` that holds the batch. Codes after `num_frames`
      mean nothing.

    Raises:
      PARSE_FAILURES: when run on a record that does not fit `data`. The message does not name the record:
        `integrity.find_bad_record` does.
    """
    parse = _parse_video if data.level == "video" else _parse_frames
    targets = targets_of(data)
    parsed, labels, ids = parse(serialized, data, targets is not None)
    given = _given_id(ids)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.not_equal(given, "")), ["a record has no id"])]):
        parsed["id"] = tf.identity(given)
    if targets:
        parsed["labels"] = _pad_labels(labels, targets)
    return parsed


def clip_lengths(serialized: tf.Tensor, data: RecordsConfig) -> tf.Tensor:
    """The frames of each frame-level record, uncut: [B] strings -> [B] int32, the shorter list where lists differ."""
    lists = _parse_lists(serialized, data)
    return tf.reduce_min(tf.stack([frames.row_lengths() for frames in lists.values()]), axis=0)


def parse_ids(serialized: tf.Tensor) -> tf.Tensor:
    """The ids alone, at either level: [B] strings -> [B] strings, "" where a record has none."""
    parsed = tf.io.parse_example(serialized, _context_features(with_labels=False))
    return _given_id([parsed[key] for key in _ID_KEYS])


def parse_labels(serialized: tf.Tensor) -> tf.Tensor:
    """The labels alone, at either level: [B] strings -> ragged [B, (labels)] int64, each once, unchecked."""
    return _each_once(tf.io.parse_example(serialized, {"labels": _LABELS})["labels"])


def _given_id(ids: Sequence[tf.Tensor]) -> tf.Tensor:
    """[B] strings: of the ids under `_ID_KEYS` the one that each record has."""
    return tf.where(tf.equal(ids[0], ""), ids[1], ids[0])


def _context_features(with_labels: bool) -> dict[str, Any]:
    features: dict[str, Any] = {key: tf.io.FixedLenFeature([], tf.string, "") for key in _ID_KEYS}
    if with_labels:
        features["labels"] = _LABELS
    return features


def _parse_video(
    serialized: tf.Tensor, data: RecordsConfig, with_labels: bool
) -> tuple[dict[str, tf.Tensor], Any, Any]:
    features = _context_features(with_labels)
    keys = {name: record_key(data, name) for name in data.features}
    features |= {keys[name]: tf.io.FixedLenFeature([size], tf.float32) for name, size in data.features.items()}
    parsed = tf.io.parse_example(serialized, features)
    values = {}
    for name, key in keys.items():
        # A sum is finite only if every value is, and is the cheapest way to look at all of them.
        finite = tf.math.is_finite(tf.reduce_sum(parsed[key]))
        with tf.control_dependencies([tf.debugging.Assert(finite, [f"{key}: not a finite number"])]):
            values[name] = tf.identity(parsed[key])
    return values, parsed.get("labels"), [parsed[key] for key in _ID_KEYS]


def _parse_frames(
    serialized: tf.Tensor, data: RecordsConfig, with_labels: bool
) -> tuple[dict[str, tf.Tensor], Any, Any]:
    # The context of a SequenceExample is encoded as the features of an Example are.
    context = tf.io.parse_example(serialized, _context_features(with_labels))
    lists = _parse_lists(serialized, data)
    # rgb and audio lists can differ in length by a frame: the shorter one counts.
    lengths = tf.stack([frames.row_lengths() for frames in lists.values()])  # [features, B]
    num_frames = tf.minimum(tf.reduce_min(lengths, axis=0), data.max_frames)  # [B]
    length = _padded_length(tf.reduce_max(num_frames), data)
    values = {name: _decode_frames(lists[name], length, size, name) for name, size in data.features.items()}
    return values | {"num_frames": num_frames}, context.get("labels"), [context[key] for key in _ID_KEYS]


def _parse_lists(serialized: tf.Tensor, data: RecordsConfig) -> dict[str, tf.RaggedTensor]:
    """For each feature the frames as ragged [B, (frames), (1)] strings."""
    frames = tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int32)
    keys = {record_key(data, name): frames for name in data.features}
    lists = tf.io.parse_sequence_example(serialized, sequence_features=keys)[1]
    return {name: lists[record_key(data, name)] for name in data.features}


def _decode_frames(frames: tf.RaggedTensor, length: tf.Tensor, size: int, name: str) -> tf.Tensor:
    """[B, (frames), (1)] strings of `size` bytes each -> [B, length, size] uint8, padded with code 0 or cut."""
    values = frames.values  # [frames of all clips, (1)]: to the format, a frame could hold any number of strings
    right = tf.reduce_all(tf.equal(values.row_lengths(), 1))
    right &= tf.reduce_all(tf.equal(tf.strings.length(values.flat_values), size))
    with tf.control_dependencies([tf.debugging.Assert(right, [f"{name}: frames are not of {size} bytes each"])]):
        codes = tf.io.decode_raw(values.flat_values, tf.uint8, fixed_length=size)
    padded = frames.with_values(codes).to_tensor(shape=tf.stack([-1, length, size]))
    return tf.ensure_shape(padded, [None, None, size])


def _padded_length(longest: tf.Tensor, data: RecordsConfig) -> tf.Tensor:
    lengths = tf.constant(data.padded_lengths, tf.int32)
    return tf.reduce_min(tf.boolean_mask(lengths, lengths >= longest))


def _each_once(labels: tf.RaggedTensor) -> tf.RaggedTensor:
    """Without the repetitions of a class in a row, which mean nothing; the order stays: ragged [B, (labels)]."""
    rows = tf.cast(labels.value_rowids(), tf.int64)
    pairs, _ = tf.raw_ops.UniqueV2(x=tf.stack([rows, labels.flat_values], axis=1), axis=[0])
    return tf.RaggedTensor.from_value_rowids(
        pairs[:, 1], tf.cast(pairs[:, 0], labels.row_splits.dtype), labels.nrows(), validate=False
    )


def _pad_labels(labels: tf.RaggedTensor, targets: TargetsConfig) -> tf.Tensor:
    """Checked, each once, and padded: ragged [B, (labels)] int64 -> [B, L] int32."""
    labels = _each_once(labels)
    ids = labels.flat_values
    checks = [
        tf.debugging.Assert(
            tf.reduce_all((ids >= 0) & (ids < targets.num_classes)), ["labels: a class id out of range"]
        ),
        tf.debugging.Assert(
            tf.reduce_all(labels.row_lengths() <= targets.max_labels), ["labels: more than max_labels"]
        ),
    ]
    with tf.control_dependencies(checks):
        padded = labels.to_tensor(NO_LABEL, shape=[None, targets.max_labels])
        return tf.cast(padded, tf.int32)
