"""Records of other kinds than YouTube-8M's, with their contents: written with protobuf only, decoded by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from shards import write_shard

from yt8m_tf import schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import DataConfig

NUM_CLASSES = 4
MAX_FRAMES = 7
_FLOATS = {"size": 6, "dtype": "float_list"}

# The section `data` of each kind, by level, as in YAML.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "clip_floats": {
        "frame": {"features": {"clip": _FLOATS}, "keys": {"clip": "CLIP/feature/floats"}},
        "video": {"features": {"clip": 6}, "keys": {"clip": "CLIP/mean"}},
    },
    "clip_bytes": {
        "frame": {"features": {"clip": {"size": 6, "dtype": "float16", "range": [-4, 4]}}, "keys": {"id": "key"}},
        "video": {"features": {"clip": {"size": 6, "dtype": "float16"}}, "keys": {"id": "key"}},
    },
    "mediapipe": {
        "frame": {
            "features": {"rgb": {"size": 8, "dtype": "float_list"}, "audio": {"size": 4, "dtype": "float_list"}},
            "keys": {
                "id": "clip/data_path",
                "labels": "clip/label/index",
                "rgb": "RGB/feature/floats",
                "audio": "AUDIO/feature/floats",
            },
        },
        "video": {
            "features": {"rgb": 8, "audio": 4},
            "keys": {"id": "clip/data_path", "labels": "clip/label/index", "rgb": "RGB", "audio": "AUDIO"},
        },
    },
    "audioset": {
        "frame": {"features": {"audio": 16}, "keys": {"audio": "audio_embedding"}},
        "video": {"features": {"audio": {"size": 16, "dtype": "uint8"}}, "keys": {"audio": "audio_embedding"}},
    },
    "rgb_only": {"frame": {"features": {"rgb": 8}}, "video": {"features": {"rgb": 8}}},
    "audio_only": {"frame": {"features": {"audio": 4}}, "video": {"features": {"audio": 4}}},
    "three": {
        "frame": {
            "features": {
                "rgb": {"size": 8, "dtype": "uint8", "range": [0, 6]},
                "audio": 4,
                "text": {"size": 6, "dtype": "float32", "in_context": True},
            }
        },
        "video": {"features": {"rgb": 8, "audio": 4, "text": {"size": 6, "dtype": "float32"}}},
    },
    "one_list": {  # a tf.train.Example with all frames of a clip in one list
        "frame": {"features": {"clip": {**_FLOATS, "in_context": True}, "audio": {"size": 4, "in_context": True}}},
        "video": {"features": {"clip": 6, "audio": {"size": 4, "dtype": "uint8"}}},
    },
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """The contents of a record: id, labels, and decoded features, [n, D] of a clip and [D] of a video."""

    id: bytes
    labels: list[int]
    features: dict[str, np.ndarray]


def section(kind: str, level: schema.Level) -> dict[str, Any]:
    """Returns the section `data` of a configuration that reads records of a kind."""
    return {"level": level, "num_classes": NUM_CLASSES, "max_frames": MAX_FRAMES, "max_labels": 4, **KINDS[kind][level]}


def data_of(kind: str, level: schema.Level) -> DataConfig:
    """Returns the parsed section `data`."""
    return strict_yaml.parse(DataConfig, section(kind, level), "data")


def record(
    kind: str, level: schema.Level, rng: np.random.Generator, video: bytes, labels: list[int], num_frames: int = 5
) -> tuple[bytes, Clip]:
    """Creates a record, with values that reveal the first label, and returns it with its contents.

    Args:
      kind: one of `KINDS`.
      level: level of the record.
      rng: source of the values.
      video: id of the record.
      labels: class ids.
      num_frames: number of frames of a clip; for "mediapipe", the second feature has one frame more.
    """
    data = data_of(kind, level)
    context = {data.keys.get("id", "video_id"): _bytes([video]), data.keys.get("labels", "labels"): _int64(labels)}
    lists: dict[str, tf.train.FeatureList] = {}
    features = {}
    for number, (name, feature) in enumerate(data.stored.items()):
        own = number if kind in ("mediapipe",) else 0  # frames of rgb and audio can differ by one
        count = 1 if level == "video" or (kind == "three" and feature.in_context) else num_frames + own
        stored, decoded = _values(rng, feature.dtype or "", feature.range, (count, feature.size), labels[0])
        key = data.key_of(name)
        if level == "video" or feature.in_context:
            one = _float([*stored.ravel()]) if feature.dtype == "float_list" else _bytes([stored.tobytes()])
            context[key] = one
        else:
            each = (_float([*row]) if feature.dtype == "float_list" else _bytes([row.tobytes()]) for row in stored)
            lists[key] = tf.train.FeatureList(feature=each)
        features[name] = decoded[0] if level == "video" else decoded
    if kind == "audioset":
        context["start_time_seconds"] = _float([30.0])
    if lists:
        message = tf.train.SequenceExample(
            context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
        )
    else:
        message = tf.train.Example(features=tf.train.Features(feature=context))
    return message.SerializeToString(), Clip(video, labels, features)


def records(
    kind: str, level: schema.Level, rng: np.random.Generator, count: int, first: int = 0
) -> tuple[list[bytes], list[Clip]]:
    """Creates `count` records, and returns them with their contents."""
    made = [
        record(kind, level, rng, b"v%03d" % (first + i), [int(rng.integers(NUM_CLASSES))], int(rng.integers(1, 7)))
        for i in range(count)
    ]
    return [serialized for serialized, _ in made], [clip for _, clip in made]


def write_shards(kind: str, level: schema.Level, directory: Path, rng: np.random.Generator) -> Path:
    """Writes two training shards and one for validation and test each, of 24 records."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("train0", "train1", "validate0", "test0")):
        write_shard(directory / f"{name}.tfrecord", records(kind, level, rng, 24, 24 * number)[0])
    return directory


def _values(
    rng: np.random.Generator, dtype: str, limits: Any, shape: tuple[int, int], label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns values as they are stored, and decoded; the column of the label is high."""
    if dtype == "uint8":
        codes = rng.integers(0, 200, shape, np.uint8)
        codes[:, label % shape[1]] = 255
        low, high = limits or (-2.0, 2.0)
        decoded = codes * ((high - low) / 255.0) + (high - low) / 512.0 + low
        return codes, decoded.astype(np.float32)
    values = rng.uniform(-1, 1, shape)
    values[:, label % shape[1]] = 3.0
    stored = values.astype("<f2" if dtype == "float16" else "<f4")
    return stored, stored.astype(np.float32)


def _bytes(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _int64(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _float(values: list[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
