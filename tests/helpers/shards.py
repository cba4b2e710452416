"""Writes small records and shards, and decodes clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf


def _feature(values: np.ndarray | Sequence[bytes] | Sequence[int]) -> tf.train.Feature:
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    if len(values) and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def video_record(video_id: bytes, labels: Sequence[int] | None, **means: np.ndarray) -> bytes:
    """Returns a serialized video-level record; labels None leaves the field out."""
    features = {"id": _feature([video_id])} | {f"mean_{name}": _feature(value) for name, value in means.items()}
    if labels is not None:
        features["labels"] = _feature(labels)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def frame_record(video_id: bytes, labels: Sequence[int] | None, **frames: np.ndarray) -> bytes:
    """Returns a serialized frame-level record of uint8 [T, D] frames."""
    context = {"id": _feature([video_id])} | ({} if labels is None else {"labels": _feature(labels)})
    lists = {
        name: tf.train.FeatureList(feature=[_feature([frame.tobytes()]) for frame in value])
        for name, value in frames.items()
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
    ).SerializeToString()


def write_shard(path: Path, serialized: Sequence[bytes]) -> Path:
    """Writes records into one TFRecord file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return path


def codes_of(record: tf.train.SequenceExample) -> dict[str, np.ndarray]:
    """Returns the frames of a clip: feature to [T, D] uint8."""
    lists = record.feature_lists.feature_list
    return {
        key: np.stack([np.frombuffer(row.bytes_list.value[0], np.uint8) for row in lists[key].feature]) for key in lists
    }


def decoded_mean(codes: np.ndarray) -> np.ndarray:
    """Returns the mean of decoded frames: [T, D] uint8 to [D] float64."""
    return np.mean(codes.astype(np.float64) * (4 / 255) + (4 / 512 - 2), axis=0)
