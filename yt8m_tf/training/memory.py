"""Fills the memory of the models nearest_neighbors, kernel_ridge and sparse_kernel_ridge from their training shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import clips, pipeline
from yt8m_tf.data.clips import prepare_clips
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.layers.kernel_ridge import KernelRidge
from yt8m_tf.layers.neighbors import NeighborVotes
from yt8m_tf.metrics.rated_pairs import PRESENT_FROM
from yt8m_tf.models.registry import parts
from yt8m_tf.training.evaluation_step import NOT_FEATURES

Memory = NeighborVotes | KernelRidge


def fill(
    model: keras.Model,
    shards: Sequence[str],
    data: DataConfig,
    faults: Faults,
    membership: np.ndarray | None = None,
    progress: bool = False,
) -> None:
    """Fills every memory of a new model, or of the members of a weighted mean, with training videos.

    If there are more videos than the capacity of a memory, it takes an even sample of the first videos of every shard.

    Args:
      model: any model; if it has no memory, nothing is read.
      shards: labelled shards.
      data: configuration of the records.
      faults: policies for damage and clips without frames.
      membership: [C, V], nonzero if a class belongs to a tag; None if the model predicts no tags.
      progress: whether to show progress bars.

    Raises:
      InputError: a record cannot be used, `model.ridge` is too small, or `model.capacity` too large.
    """
    for part in parts(model):
        for layer in part.layers:
            if isinstance(layer, Memory):
                features, labels = _videos(keras.Model(part.inputs, layer.input), layer, shards, data, faults)
                if labels:  # otherwise the training stream reports the problem of the shards
                    labels = [_with_tags(own, data.num_classes, membership) for own in labels]
                    try:
                        layer.remember(features, labels, progress)
                    except np.linalg.LinAlgError as error:
                        raise InputError(
                            "configuration key 'model.ridge': the kernel matrix of the training videos is not positive"
                            " definite in float32, or its inverse is too large; raise model.ridge"
                        ) from error
                    except MemoryError as error:
                        raise InputError(
                            f"configuration key 'model.capacity': the kernel matrix of {len(labels):,} videos needs"
                            f" {4 * len(labels) ** 2 / 1e9:,.1f} GB of memory, which is not available; lower it"
                        ) from error


def _videos(
    inputs_of: keras.Model, layer: Memory, shards: Sequence[str], data: DataConfig, faults: Faults
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the layer's inputs for the videos to remember, [M, D'] each, and the labels of these videos."""
    batches: list[Sequence[np.ndarray]] = []
    labels: list[np.ndarray] = []
    each = -(-layer.capacity * 5 // (4 * len(shards)))  # more than enough, because shards differ in size; thinned below
    size = pipeline.scoring_batch_size(data.level)
    names = [tensor.name for tensor in inputs_of.inputs]
    for batch in pipeline.evaluation_stream(shards, data, size, faults=faults, records_per_shard=each):
        valid = np.asarray(batch["valid"])
        given: Mapping[str, Any] = {key: batch[key] for key in batch if key not in NOT_FEATURES | {"id"}}
        inputs = clips.decode_features(prepare_clips(given, data.spec), data.spec)
        found = keras.tree.flatten(inputs_of([inputs[name] for name in names], training=False))
        batches.append([np.asarray(values)[valid] for values in found])
        labels += [own[own != schema.NO_LABEL] for own in _labels(batch)[valid]]
    rows = np.linspace(0, len(labels), min(len(labels), layer.capacity), endpoint=False).astype(np.int64)
    features = [np.concatenate(parts)[rows] for parts in zip(*batches, strict=True)]
    return features, [labels[row] for row in rows]


def _labels(batch: Mapping[str, Any]) -> np.ndarray:
    """Returns class ids [B, L], padded with `schema.NO_LABEL`; for rated segments, those of present classes."""
    if "labels" in batch:
        return np.asarray(batch["labels"])
    present = np.asarray(batch["ratings"]) >= PRESENT_FROM
    return np.where(present, np.asarray(batch["rated_classes"]), schema.NO_LABEL)


def _with_tags(labels: np.ndarray, num_classes: int, membership: np.ndarray | None) -> np.ndarray:
    """Returns class ids, followed by C + v for each of their tags v."""
    if membership is None:
        return labels
    return np.concatenate([labels, num_classes + np.flatnonzero(membership[labels].any(axis=0))])
