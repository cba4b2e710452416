"""Facts about a run: printed before its first update, and kept in its directory (`sessions`)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.data.clip_reader import count_records, is_local
from yt8m_tf.training import distribution

# The records of more shards are not counted, because that would take too long.
_MOST_COUNTED = 500


def opening_facts(
    experiment: ExperimentConfig,
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    train_shards: Sequence[str],
    validation_shards: Sequence[str],
) -> dict[str, str]:
    """Describes the device, the model, and the training and validation data, in a line of text each."""
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    updates = experiment.train.total_steps
    return {
        "device": _device(strategy),
        "model": f"{experiment.model['name']}, {count:,} parameters, {experiment.data.level} level",
        "training": f"{_described(train_shards)}; {updates:,} updates of {experiment.train.batch_size:,}",
        "validation": _described(validation_shards),
    }


def _device(strategy: tf.distribute.Strategy) -> str:
    replicas, workers = strategy.num_replicas_in_sync, distribution.num_workers(strategy)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        kind = f"CPU, {os.cpu_count()} cores"
    else:
        kind = str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    shared = f" in {workers} processes" if workers > 1 else ""
    return f"{replicas} x {kind}{shared}" if replicas > 1 else kind


def _described(shards: Sequence[str]) -> str:
    """Describes shards by their number and, unless that takes long to find out, their records and megabytes."""
    text = f"{len(shards):,} shard{'s' if len(shards) != 1 else ''}"
    if len(shards) > _MOST_COUNTED or not is_local(shards):
        return text
    records, size = count_records(shards), sum(os.path.getsize(shard) for shard in shards)
    return f"{text}, {size / 1e6:,.1f} MB" if records is None else f"{text}, {records:,} videos, {size / 1e6:,.1f} MB"
