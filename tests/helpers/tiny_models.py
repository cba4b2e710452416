"""A small model of each level, whose weights cover every case of export, and records for it."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from yt8m_tf.config.data import DataConfig
from yt8m_tf.models.registry import model_inputs

# Largest difference between the scores of an export and of the model, by precision.
CLOSE = {"float32": 1e-6, "float16": 1e-3, "cluster": 2e-2}
FEATURES = {"rgb": 48, "audio": 16}
NUM_CLASSES = 30
MAX_FRAMES = 12


def tiny_data(level: str, **changes) -> DataConfig:
    values = {"level": level, "features": FEATURES, "num_classes": NUM_CLASSES, "max_frames": MAX_FRAMES} | changes
    return DataConfig(**values)


def tiny_model(data: DataConfig, rng: np.random.Generator) -> keras.Model:
    """Builds a model: mean over frames, a hidden layer with batch normalisation, dropout, logits; random weights."""
    inputs = model_inputs(data.spec)
    x = ops.concatenate([inputs[name] for name in data.features], axis=-1)
    if data.level == "frame":
        count = ops.expand_dims(ops.cast(inputs["num_frames"], "float32"), 1)  # [B, 1]
        numbers = ops.cumsum(ops.ones_like(x), axis=1)  # [B, T, D], from 1
        x = ops.sum(ops.where(numbers <= ops.expand_dims(count, 1), x, 0.0), axis=1) / count
    x = keras.layers.Dense(64, name="hidden")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, seed=1)(ops.relu(x))
    model = keras.Model(inputs, keras.layers.Dense(data.num_classes, name="logits")(x))
    for variable in model.weights:
        scale = 3.0 if variable.path == "logits/kernel" else 0.5
        values = rng.normal(0.0, scale / np.sqrt(variable.shape[0]), variable.shape)
        variable.assign(np.abs(values) + 0.5 if variable.name == "moving_variance" else values)
    return model


def tiny_records(data: DataConfig, rng: np.random.Generator, num_records: int, prefix: str = "v") -> list[bytes]:
    """Returns serialized records with ids `prefix` + number; at frame level, with 1 to `max_frames` + 2 frames."""
    return [_record(data, rng, f"{prefix}{number}".encode()) for number in range(num_records)]


def empty_clip(video_id: bytes) -> bytes:
    """Returns a frame-level record without frames."""
    lists = tf.train.FeatureLists(feature_list={name: tf.train.FeatureList() for name in FEATURES})
    context = tf.train.Features(feature={"id": _bytes(video_id)})
    return tf.train.SequenceExample(context=context, feature_lists=lists).SerializeToString()


def write_shard(path: Path, serialized: list[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return str(path)


def float_scores(model: keras.Model, data: DataConfig, serialized: list[bytes]) -> np.ndarray:
    """Computes the [N, C] probabilities of a `tiny_model` in NumPy and float64."""
    weights = {variable.path: np.asarray(variable, np.float64) for variable in model.weights}
    means = np.array([_mean(data, record) for record in serialized])
    hidden = means @ weights["hidden/kernel"] + weights["hidden/bias"]
    spread = np.sqrt(weights["norm/moving_variance"] + 1e-3)
    normed = (hidden - weights["norm/moving_mean"]) / spread * weights["norm/gamma"] + weights["norm/beta"]
    logits = np.maximum(normed, 0) @ weights["logits/kernel"] + weights["logits/bias"]
    return 1 / (1 + np.exp(-logits))


def _mean(data: DataConfig, record: bytes) -> np.ndarray:
    """Concatenates all features of a record; of a clip, the means of its decoded frames."""
    if data.level == "video":
        context = tf.train.Example.FromString(record).features.feature
        return np.concatenate([context[f"mean_{n}"].float_list.value for n in data.features])
    lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    clips = {n: [np.frombuffer(f.bytes_list.value[0], np.uint8) for f in lists[n].feature] for n in data.features}
    count = min(data.max_frames, *(len(clip) for clip in clips.values()))
    return np.concatenate([np.mean(clip[:count], axis=0) * (4 / 255) + (4 / 512 - 2) for clip in clips.values()])


def _record(data: DataConfig, rng: np.random.Generator, video_id: bytes) -> bytes:
    labels = rng.choice(data.num_classes, size=3, replace=False)
    context = {"id": _bytes(video_id), "labels": tf.train.Feature(int64_list=tf.train.Int64List(value=labels))}
    if data.level == "video":
        for name, size in data.features.items():
            means = tf.train.FloatList(value=rng.uniform(-2, 2, size))
            context[f"mean_{name}"] = tf.train.Feature(float_list=means)
        return tf.train.Example(features=tf.train.Features(feature=context)).SerializeToString()
    length = int(rng.integers(1, data.max_frames + 3))
    lists = {
        name: tf.train.FeatureList(
            feature=[_bytes(rng.integers(0, 256, size, np.uint8).tobytes()) for _ in range(length)]
        )
        for name, size in data.features.items()
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
    ).SerializeToString()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def clean_environment() -> dict[str, str]:
    """Returns the environment without the checkout on Python's path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
