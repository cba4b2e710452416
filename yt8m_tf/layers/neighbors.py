"""Nearest-neighbour voting with a memory of videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from yt8m_tf import schema
from yt8m_tf.layers.directions import SAME, directions, fill_directions, mean_of

# The most labels that are remembered of a video. The records have up to 23.
_MAX_LABELS = 32
# Larger than every distance: for rows without a video, and for a video to itself in training.
_NEVER = 1e9

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class NeighborVotes(keras.layers.Layer):
    """Nearest-neighbour voting: the weighted share of remembered videos with each class, features [B, D'] to [B, C].

    The mean of the remembered videos is subtracted from each feature, which is then normalised to length 1. `scales`,
    one for each of the D = sum of D' dimensions, weight the dimensions in distances. The K nearest videos, at squared
    distances d, vote with weights softmax(-temperature / 2 * d). Scales and temperature are trained; the videos are
    constants that `remember` sets. In training, a video is not its own neighbour.

    One product [B, N] with N remembered videos finds the neighbours: 4.5 MFLOP per video for N = 2,000 and D = 1152.

    Args:
      num_classes: C.
      capacity: N, the most videos that are remembered.
      num_neighbors: K.
      shares: initial value of the scales of each feature.
      temperature: its initial value.
      sharpness: multiplies the temperature outside training.
      dtype: float32 by default, even with mixed precision: rounded distances would choose other neighbours.
      **kwargs: arguments of every layer: name.
    """

    def __init__(
        self,
        num_classes: int,
        capacity: int,
        num_neighbors: int,
        shares: Sequence[float],
        temperature: float,
        sharpness: float = 1.0,
        *,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes, self.capacity, self.num_neighbors = num_classes, capacity, num_neighbors
        self.shares, self.temperature, self.sharpness = tuple(shares), temperature, sharpness

    def build(self, features_shape: Sequence[Shape]) -> None:
        """Creates an empty memory, whose votes are 0 for every class."""
        sizes = [shape[-1] or 0 for shape in features_shape]
        scales = np.repeat(np.array(self.shares, "float32"), sizes)

        def constant(name: str, shape: Shape, initializer: Any, dtype: str = "float32") -> keras.Variable:
            return self.add_weight(shape=shape, initializer=initializer, dtype=dtype, trainable=False, name=name)

        self.means = constant("means", (sum(sizes),), "zeros")
        self.keys = constant("keys", (self.capacity, sum(sizes)), "zeros")
        no_label = keras.initializers.Constant(schema.NO_LABEL)
        self.labels = constant("labels", (self.capacity, _MAX_LABELS), no_label, "int32")
        self.scales = self.add_weight(shape=scales.shape, initializer=lambda *_, **__: scales, name="scales")
        logarithm = keras.initializers.Constant(float(np.log(self.temperature)))
        self.log_temperature = self.add_weight(shape=(), initializer=logarithm, name="log_temperature")

    def call(self, features: Sequence[Any], training: bool = False) -> Any:
        """Computes the votes of the nearest videos.

        Args:
          features: [B, D'] each.
          training: whether to exclude a video's own vote if it is in the memory.

        Returns:
          [B, C] in [0, 1].
        """
        keys, labels = ops.convert_to_tensor(self.keys), ops.convert_to_tensor(self.labels)
        importance = ops.square(self.scales)  # weights of squared differences: needs no scaled copy of the keys
        queries = directions(features, self.means)  # [B, D]
        norms = tf.linalg.matvec(ops.square(keys), importance)  # [N]
        norms += _NEVER * ops.cast(labels[:, 0] == schema.NO_LABEL, keys.dtype)
        nearness = tf.matmul(queries * importance, keys, transpose_b=True) - norms / 2  # [B, N]
        nearest, rows = tf.math.top_k(nearness, min(self.num_neighbors, self.capacity))  # [B, K]
        squares = ops.sum(ops.square(queries) * importance, axis=1, keepdims=True)  # [B, 1]
        distances = squares - 2 * nearest  # [B, K]
        temperature = ops.exp(self.log_temperature) * (1.0 if training else self.sharpness)
        if training:
            distances += _NEVER * ops.cast(distances < SAME * squares, distances.dtype)
        weights = ops.softmax(temperature * -distances / 2)
        weights *= ops.cast(distances < _NEVER / 2, weights.dtype)
        own = tf.gather(labels, rows)  # [B, K, L]
        batch = tf.shape(own)[0]
        slots = own + self.num_classes * tf.range(batch)[:, None, None]
        slots = tf.where(own == schema.NO_LABEL, -1, slots)  # negative ones are dropped
        votes = tf.repeat(weights[:, :, None], own.shape[2], axis=2)
        summed = tf.math.unsorted_segment_sum(votes, slots, batch * self.num_classes)
        return tf.ensure_shape(tf.reshape(summed, [batch, self.num_classes]), [None, self.num_classes])

    def remember(self, features: Sequence[np.ndarray], labels: Sequence[np.ndarray], progress: bool = False) -> None:
        """Fills the memory.

        Args:
          features: [M, D'] each, of M videos, at most the capacity.
          labels: the class ids of each video, of which the first 32 are kept. A video without labels never votes.
          progress: ignored, because this takes a second.
        """
        self.means.assign(mean_of(features))
        keys, ids = np.zeros(self.keys.shape, "float32"), np.full(self.labels.shape, schema.NO_LABEL, "int32")
        fill_directions(keys, features, self.means)
        for row, own in zip(ids, labels, strict=False):
            row[: len(own)] = own[:_MAX_LABELS]
        self.keys.assign(keys)
        self.labels.assign(ids)

    def compute_output_shape(self, features_shape: Sequence[Shape]) -> Shape:
        """[B, C]."""
        return (features_shape[0][0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        names = ("num_classes", "capacity", "num_neighbors", "shares", "temperature", "sharpness")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="yt8m_tf")
class SmoothedLogOdds(keras.layers.Layer):
    """Maps shares of votes v to logits: scale * log-odds of (1 - m) v + m sigmoid(bias); m, scale and bias are trained.

    A class without votes keeps its prior, at which the bias starts (`registry.set_output_bias`).

    Args:
      mixing: initial value of m, in (0, 1).
      dtype: float32 by default, even with mixed precision: shares go down to m times a prior of 1e-5.
      **kwargs: arguments of every layer: name.
    """

    def __init__(self, mixing: float = 0.1, *, dtype: str = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.mixing = mixing

    def build(self, votes_shape: Shape) -> None:
        """Creates the bias [C], and the scalars m (as a logit) and scale."""
        log_odds = float(np.log(self.mixing) - np.log1p(-self.mixing))
        self.bias = self.add_weight(shape=votes_shape[-1:], initializer="zeros", name="bias")
        self.mixing_logit = self.add_weight(shape=(), initializer=keras.initializers.Constant(log_odds), name="mixing")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, votes: Any) -> Any:
        """Maps [B, C] shares of votes to [B, C] logits."""
        mixing = ops.sigmoid(self.mixing_logit)
        yes = (1 - mixing) * votes + mixing * ops.sigmoid(self.bias)
        # Not 1 - yes: it would be 0 for a class that all neighbours have and whose prior rounds to 1.
        no = (1 - mixing) * ops.maximum(1 - votes, 0) + mixing * ops.sigmoid(-self.bias)
        return self.scale * (ops.log(yes) - ops.log(no))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"mixing": self.mixing}
