"""Clustering of weights: 256 values and one-byte indices, a quarter of the size of float32.

Starting values come from k-means++ of tensorflow-model-optimization, and are refined by Lloyd's algorithm. For
one-dimensional data it needs a sorted sample and no distances, so 245 million weights take seconds. Other starting
values give larger errors (docs/BENCHMARKS.md).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import ENTRIES

_SAMPLE = 1_000_000  # weights of a block to which values are fitted
_STARTING_SAMPLE = 100_000  # of these, for k-means++: 0.3 s
_LLOYD_STEPS = 30


@dataclasses.dataclass(frozen=True, eq=False)
class Clustered:
    """An array as indices into codebooks.

    Attributes:
      indices: uint8, in the shape of the array.
      codebooks: [K, 256] float32, ascending, one for every `block` outputs (last axis).
      block: number of outputs of a codebook; the last codebook may have fewer.
    """

    indices: np.ndarray
    codebooks: np.ndarray
    block: int


def cluster(name: str, values: np.ndarray, block: int | None = None, seed: int = 0) -> Clustered:
    """Clusters an array.

    Args:
      name: the variable's name, for the message.
      values: float array [..., O].
      block: number of outputs that share a codebook; None: all.
      seed: seed of the sample that is drawn from large blocks.

    Raises:
      InputError: a value is infinite or NaN.
    """
    values = np.asarray(values, np.float32)
    if values.size and not np.isfinite([values.min(), values.max()]).all():
        raise InputError(
            f"variable '{name}': {int((~np.isfinite(values)).sum())} values are infinite or NaN; export another"
            " checkpoint"
        )
    outputs = values.shape[-1]
    block = min(block or outputs, outputs)
    indices = np.empty(values.shape, np.uint8)
    codebooks = []
    for first in range(0, outputs, block):
        part = values[..., first : first + block].ravel()
        rng = np.random.default_rng([seed, first])
        sample = part if part.size <= _SAMPLE else part[rng.integers(0, part.size, _SAMPLE)]
        found, codebook = _assign(part, _fit(sample))
        codebooks.append(codebook)
        indices[..., first : first + block] = found.reshape(indices[..., first : first + block].shape)
    return Clustered(indices, np.stack(codebooks), block)


def decode(indices: tf.Tensor, codebooks: tf.Tensor, block: int) -> tf.Tensor:
    """Returns the float32 array that indices and codebooks represent."""
    if codebooks.shape[0] == 1:
        return tf.gather(codebooks[0], tf.cast(indices, tf.int32))
    parts = [
        tf.gather(codebooks[number], tf.cast(indices[..., number * block : (number + 1) * block], tf.int32))
        for number in range(codebooks.shape[0])
    ]
    return tf.concat(parts, axis=-1)


def _assign(values: np.ndarray, codebook: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest entry of each value [N], and the codebook with each entry moved to the mean of its values."""
    borders = (codebook[1:] + codebook[:-1]) / 2
    indices = np.empty(len(values), np.uint8)
    counts, sums = np.zeros(ENTRIES), np.zeros(ENTRIES)
    for start in range(0, len(values), _SAMPLE):  # in parts: `found` is int64, eight times the size of the result
        part = values[start : start + _SAMPLE]
        found = np.searchsorted(borders, part)
        indices[start : start + _SAMPLE] = found
        counts += np.bincount(found, minlength=ENTRIES)
        sums += np.bincount(found, part, minlength=ENTRIES)
    return indices, np.where(counts > 0, sums / np.maximum(counts, 1), codebook).astype(np.float32)


def _fit(sample: np.ndarray) -> np.ndarray:
    """Fits 256 values to a sample by least squares; returns them ascending, float32."""
    ordered = np.sort(sample.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    values = np.sort(_starting_values(sample).astype(np.float64))
    for _ in range(_LLOYD_STEPS):
        borders = np.searchsorted(ordered, (values[1:] + values[:-1]) / 2)
        bounds = np.concatenate([[0], borders, [len(ordered)]])
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        moved = np.sort(np.where(counts > 0, means, values))
        if np.array_equal(moved, values):
            break
        values = moved
    return values.astype(np.float32)


def _starting_values(sample: np.ndarray) -> np.ndarray:
    distinct = np.unique(sample)
    if len(distinct) <= ENTRIES:
        return np.concatenate([distinct, np.full(ENTRIES - len(distinct), distinct[-1])])
    # Imported here, because it needs tf_keras and takes seconds.
    from tensorflow_model_optimization.python.core.clustering.keras import clustering_centroids

    weights = sample[:_STARTING_SAMPLE] if len(np.unique(sample[:_STARTING_SAMPLE])) > ENTRIES else distinct
    found = clustering_centroids.KmeansPlusPlusCentroidsInitialisation(tf.constant(weights), ENTRIES)
    return np.asarray(found.get_cluster_centroids()).ravel()
