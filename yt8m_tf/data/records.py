"""Parses batches of serialized records at either level: any version of YouTube-8M, and others (`FeatureConfig`).

One operation parses a whole batch (docs/BENCHMARKS.md). Features keep their storage type (uint8, float16 or float32),
and labels become padded lists of class ids; large tensors (`[B, C]` targets, float32 frames) are made on the device.
The functions run eagerly, inside `tf.data`, and in the exported graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import RecordsConfig, TargetsConfig, targets_of
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.data.assertions import require
from yt8m_tf.schema import ID_KEYS, LABELS_KEY, NO_LABEL

# Stands for the number of frames of a feature that has one vector for the whole clip.
_EVERY = tf.int32.max
_LABELS = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int32)

# Errors that bad records raise. TensorFlow's message quotes a record that is not a protocol buffer, which need not be
# valid UTF-8.
PARSE_FAILURES = (tf.errors.InvalidArgumentError, UnicodeDecodeError)


def parse_records(serialized: tf.Tensor, data: RecordsConfig) -> dict[str, tf.Tensor]:
    """Parses a batch of serialized records.

    Args:
      serialized: [B] strings; `tf.train.Example` at video level, `tf.train.SequenceExample` at frame level. Fields that
        `data` does not name, such as those of the 2019 segment data, are ignored.
      data: level, features, sizes and limits. Labels are parsed if this is a `DataConfig`, but not if it is only its
        `records`; a record without labels gets an empty list.

    Returns:
      "id": [B] string. "labels", if parsed: [B, L] int32 distinct class ids, padded with -1. Each feature: [B, D] at
      video level, [B, T, D] at frame level, as stored (uint8 codes, float16 or float32); floats are finite and within
      the feature's range. At frame level also "num_frames": [B] int32, at most `max_frames`. T is the shortest of
      `data.frame_lengths` and `data.max_frames` that fits the batch. Values after `num_frames` are finite but
      meaningless.

    Raises:
      PARSE_FAILURES: a record does not fit `data`. The message does not name the record; `integrity.find_bad_record`
        finds it.
    """
    parse = _parse_video if data.level == "video" else _parse_frames
    parsed, labels, ids = parse(serialized, data)
    with tf.control_dependencies([require(tf.reduce_all(tf.not_equal(ids, "")), "a record has no id")]):
        parsed["id"] = tf.identity(ids)
    if targets := targets_of(data):
        parsed["labels"] = _pad_labels(labels, targets)
    return parsed


def feature_specs(data: RecordsConfig) -> dict[str, tf.TensorSpec]:
    """Returns names, shapes and dtypes of the features of `parse_records`, and of `num_frames` at frame level."""
    shape = [None] if data.level == "video" else [None, None]
    specs = {
        name: tf.TensorSpec(
            [*shape, feature.size],
            tf.float32 if feature.dtype == "float_list" else tf.as_dtype(feature.dtype),
            name=name,
        )
        for name, feature in data.stored.items()
    }
    return specs if data.level == "video" else specs | {"num_frames": tf.TensorSpec([None], tf.int32, "num_frames")}


def clip_lengths(serialized: tf.Tensor, data: RecordsConfig) -> tf.Tensor:
    """Counts the frames of each clip's shortest feature, before truncation: [B] strings -> [B] int32."""
    return _shortest(_lengths(_parse_clips(serialized, data), data))


def parse_ids(serialized: tf.Tensor, id_keys: Sequence[str] = ID_KEYS) -> tf.Tensor:
    """Parses only ids, at either level: [B] strings -> [B] strings, "" for a record without one under `id_keys`."""
    return _given_id(tf.io.parse_example(serialized, _id_features(id_keys)), id_keys)


def parse_labels(serialized: tf.Tensor, key: str = LABELS_KEY) -> tf.Tensor:
    """Parses only labels, at either level: [B] strings -> ragged [B, (labels)] int64, each once, unchecked."""
    return _each_once(tf.io.parse_example(serialized, {key: _LABELS})[key])


def _id_features(id_keys: Sequence[str]) -> dict[str, Any]:
    return {key: tf.io.FixedLenFeature([], tf.string, "") for key in id_keys}


def _given_id(parsed: Mapping[str, tf.Tensor], id_keys: Sequence[str]) -> tf.Tensor:
    """Returns the first id that each record has under `id_keys`, [B] strings."""
    given = parsed[id_keys[-1]]
    for key in reversed(id_keys[:-1]):
        given = tf.where(tf.equal(parsed[key], ""), given, parsed[key])
    return given


def _parse_context(
    serialized: tf.Tensor, data: RecordsConfig, features: Mapping[str, Any]
) -> tuple[dict[str, tf.Tensor], tf.Tensor | None, tf.Tensor]:
    """Parses features of the context, the labels if `data` has targets, and the ids.

    The context of a SequenceExample is encoded like the features of an Example.
    """
    labels = {data.labels_key: _LABELS} if targets_of(data) else {}
    parsed = tf.io.parse_example(serialized, {**_id_features(data.id_keys), **labels, **features})
    return parsed, parsed.get(data.labels_key) if labels else None, _given_id(parsed, data.id_keys)


def _parse_video(serialized: tf.Tensor, data: RecordsConfig) -> tuple[dict[str, tf.Tensor], Any, Any]:
    features = {
        data.key_of(name): tf.io.FixedLenFeature([feature.size], tf.float32)
        if feature.dtype == "float_list"
        else tf.io.FixedLenFeature([], tf.string)
        for name, feature in data.stored.items()
    }
    parsed, labels, ids = _parse_context(serialized, data, features)
    values = {name: _vectors(parsed[data.key_of(name)], feature, name) for name, feature in data.stored.items()}
    return values, labels, ids


def _parse_frames(serialized: tf.Tensor, data: RecordsConfig) -> tuple[dict[str, tf.Tensor], Any, Any]:
    _, labels, ids = _parse_context(serialized, data, {})
    clips = _parse_clips(serialized, data)
    lengths = _lengths(clips, data)
    # Lists of rgb and audio can differ in length by a frame; both are cut to the shorter one.
    shortest = _shortest(lengths)
    num_frames = tf.minimum(shortest, data.max_frames)  # [B]
    with tf.control_dependencies(_check_lengths(lengths, shortest, data)):
        length = _padded_length(tf.reduce_max(num_frames), data)
    stored = data.stored
    frames = {name: _pad_frames(clips[name], own, length, name) for name, own in stored.items() if not own.mean_of}
    values = {
        name: _means(clips[name], frames[own.mean_of], num_frames, own, stored[own.mean_of], name)
        if own.mean_of
        else frames[name]
        for name, own in stored.items()
    }
    return values | {"num_frames": num_frames}, labels, ids


def _parse_clips(serialized: tf.Tensor, data: RecordsConfig) -> dict[str, tf.RaggedTensor]:
    """Parses features without decoding: ragged [B, (frames), (n)], or [B, (n)] in the context; strings or float32."""
    in_lists: dict[str, Any] = {}
    in_context: dict[str, Any] = {}
    for name, feature in data.stored.items():
        own = tf.io.RaggedFeature(tf.float32 if feature.dtype == "float_list" else tf.string, row_splits_dtype=tf.int32)
        (in_context if feature.in_context else in_lists)[data.key_of(name)] = own
    lists = tf.io.parse_sequence_example(serialized, sequence_features=in_lists)[1] if in_lists else {}
    context = tf.io.parse_example(serialized, in_context) if in_context else {}
    return {
        name: (context if feature.in_context else lists)[data.key_of(name)] for name, feature in data.stored.items()
    }


def _lengths(clips: Mapping[str, tf.RaggedTensor], data: RecordsConfig) -> tf.Tensor:
    """Returns the numbers of frames, [features, B] int32; `_EVERY` for a single vector in the context."""
    lengths = []
    for name, feature in data.stored.items():
        if feature.mean_of:
            lengths.append(tf.fill([clips[name].nrows()], _EVERY))
        elif feature.in_context:
            own = _num_in_context(clips[name], feature)
            lengths.append(tf.where(tf.equal(own, 1), _EVERY, own))
        else:
            lengths.append(clips[name].row_lengths())
    return tf.stack(lengths)


def _num_in_context(values: tf.RaggedTensor, feature: FeatureConfig) -> tf.Tensor:
    """Counts the vectors in ragged values [B, (n)]: [B] int32."""
    if feature.dtype == "float_list":
        return values.row_lengths() // feature.size
    return tf.reduce_sum(tf.strings.length(values), axis=1) // feature.num_bytes


def _shortest(lengths: tf.Tensor) -> tf.Tensor:
    """Returns the shortest of lengths [features, B] for each clip, [B]; a clip of single vectors has one frame."""
    shortest = tf.reduce_min(lengths, axis=0)
    return tf.where(tf.equal(shortest, _EVERY), 1, shortest)


def _check_lengths(lengths: tf.Tensor, shortest: tf.Tensor, data: RecordsConfig) -> list[Any]:
    if data.max_frame_difference is None:
        return []
    longest = tf.reduce_max(tf.where(tf.equal(lengths, _EVERY), 0, lengths), axis=0)
    # A clip without frames raises another error, or is left out.
    right = (longest - shortest <= data.max_frame_difference) | tf.equal(shortest, 0)
    return [require(tf.reduce_all(right), "features of a clip differ in their numbers of frames")]


def _pad_frames(values: tf.RaggedTensor, feature: FeatureConfig, length: tf.Tensor, name: str) -> tf.Tensor:
    """Pads with 0 or truncates the frames of clips to [B, length, D], in their storage type."""
    if feature.in_context:
        flat = values.flat_values if feature.dtype == "float_list" else tf.strings.reduce_join(values.flat_values)
        vectors = _vectors(flat, feature, name)
        num_vectors = _num_in_context(values, feature)
        frames = tf.RaggedTensor.from_row_lengths(vectors, num_vectors)
    else:
        inner = values.values  # [frames of all clips, (n)]: the format allows any number of values in a frame
        each = feature.size if feature.dtype == "float_list" else 1
        right = tf.reduce_all(tf.equal(inner.row_lengths(), each))
        with tf.control_dependencies([require(right, f"{name}: frames are not of {each} values each")]):
            frames = values.with_values(_vectors(tf.identity(inner.flat_values), feature, name))
    padded = frames.to_tensor(shape=tf.stack([-1, length, feature.size]))
    if feature.in_context:
        padded = tf.where(tf.equal(num_vectors, 1)[:, None, None], padded[:, :1], padded)
    return tf.ensure_shape(padded, [None, None, feature.size])


def _means(
    given: tf.RaggedTensor,
    frames: tf.Tensor,
    num_frames: tf.Tensor,
    feature: FeatureConfig,
    source: FeatureConfig,
    name: str,
) -> tf.Tensor:
    """Repeats a mean for every frame: the record's own, `given`, ragged [B, (D or 0)], or that of frames [B, T, D]."""
    known = tf.equal(given.row_lengths(), feature.size)
    right = tf.reduce_all(known | tf.equal(given.row_lengths(), 0))
    with tf.control_dependencies([require(right, f"{name}: not one mean of {feature.size} values")]):
        known = tf.identity(known)
    listed = tf.reshape(_vectors(given.flat_values, feature, name), [-1])
    listed = given.with_values(listed).to_tensor(shape=[None, feature.size])
    mask = tf.sequence_mask(num_frames, tf.shape(frames)[1])[:, :, None]
    count = tf.maximum(tf.cast(num_frames, tf.float32), 1.0)[:, None]
    # Decoding is linear, so the mean can be taken over the codes.
    mean = tf.reduce_sum(tf.where(mask, tf.cast(frames, tf.float32), 0.0), axis=1) / count
    if source.dtype == "uint8":
        mean = schema.dequantise(mean, source.range or schema.CODE_RANGE)
    mean = tf.where(known[:, None], listed, mean)
    return tf.repeat(mean[:, None], tf.shape(frames)[1], axis=1)


def _vectors(values: tf.Tensor, feature: FeatureConfig, name: str) -> tf.Tensor:
    """Decodes and checks vectors, given as floats or as strings of one or all: [N, D] in their storage type."""
    if feature.dtype != "float_list":
        lengths, one_each = tf.strings.length(values), values.shape.rank != 0
        right = tf.reduce_all(
            tf.equal(lengths if one_each else lengths % feature.num_bytes, feature.num_bytes if one_each else 0)
        )
        with tf.control_dependencies([require(right, f"{name}: not {feature.num_bytes} bytes each")]):
            values = tf.identity(values)
        values = tf.io.decode_raw(values, tf.as_dtype(feature.dtype))
    vectors = tf.reshape(values, [-1, feature.size])
    if feature.dtype == "uint8":
        return vectors
    if feature.range:
        low, high = (tf.constant(limit, vectors.dtype) for limit in feature.range)
        right = tf.reduce_all((vectors >= low) & (vectors <= high))
    elif feature.dtype == "float16":  # the sum would overflow
        right = tf.reduce_all(tf.math.is_finite(vectors))
    else:
        # A sum is finite only if every value is, and is the cheapest check of all values.
        right = tf.math.is_finite(tf.reduce_sum(vectors))
    with tf.control_dependencies([require(right, f"{name}: not a finite number, or out of range")]):
        return tf.identity(vectors)


def _padded_length(longest: tf.Tensor, data: RecordsConfig) -> tf.Tensor:
    lengths = tf.constant(data.padded_lengths, tf.int32)
    return tf.reduce_min(tf.boolean_mask(lengths, lengths >= longest))


def _each_once(labels: tf.RaggedTensor) -> tf.RaggedTensor:
    """Removes repeated classes of each record, and keeps the order: ragged [B, (labels)]."""
    rows = tf.cast(labels.value_rowids(), tf.int64)
    pairs, _ = tf.raw_ops.UniqueV2(x=tf.stack([rows, labels.flat_values], axis=1), axis=[0])
    return tf.RaggedTensor.from_value_rowids(
        pairs[:, 1], tf.cast(pairs[:, 0], labels.row_splits.dtype), labels.nrows(), validate=False
    )


def _pad_labels(labels: tf.RaggedTensor, targets: TargetsConfig) -> tf.Tensor:
    """Checks labels, removes repetitions, and pads: ragged [B, (labels)] int64 -> [B, L] int32."""
    labels = _each_once(labels)
    ids = labels.flat_values
    checks = [
        require(tf.reduce_all((ids >= 0) & (ids < targets.num_classes)), "labels: a class id out of range"),
        require(tf.reduce_all(labels.row_lengths() <= targets.max_labels), "labels: more than max_labels"),
    ]
    with tf.control_dependencies(checks):
        padded = labels.to_tensor(NO_LABEL, shape=[None, targets.max_labels])
        return tf.cast(padded, tf.int32)
