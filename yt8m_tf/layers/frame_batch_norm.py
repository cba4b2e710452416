"""Batch normalisation of frames that leaves padding out of the statistics."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class FrameBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the real frames of all clips: [B, T, D] and a mask to [B, T, D].

    In training, mean and variance are those of real frames only; in inference, the running averages apply. Padding
    is normalised like frames. Differences from `BatchNormalization` with its `mask`: `synchronized` works (Keras
    ignores it if there is a mask), and D may be 1 (Keras squeezes that axis away).

    Args:
      **kwargs: arguments of `keras.layers.BatchNormalization`.
    """

    def build(self, frames_shape: Shape, frame_mask_shape: Shape) -> None:
        """Creates gamma, beta, and the running averages of mean and variance, all [D]."""
        super().build(frames_shape)

    def call(self, frames: Any, frame_mask: Any, training: bool | None = None) -> Any:
        """Normalises frames.

        Args:
          frames: [B, T, D]; padding must be finite, too.
          frame_mask: [B, T] bool, False for padding.
          training: whether to use the statistics of these frames, and to add them to the running averages.
        """
        frames = ops.cast(frames, "float32")  # even with mixed precision: sums of many frames
        if training and self.trainable:
            mean, variance = self._statistics(frames, ops.cast(frame_mask, "float32")[:, :, None])
            update_running_averages(self, mean, variance)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)  # [D]
        offset = self.beta if self.center else 0.0
        return ops.cast((frames - mean) * scale + offset, self.compute_dtype)

    def compute_output_shape(self, frames_shape: Shape, frame_mask_shape: Shape) -> Shape:
        """[B, T, D]."""
        return frames_shape

    def _statistics(self, frames: Any, real: Any) -> tuple[Any, Any]:
        """Returns mean and variance over the frames where `real`, [B, T, 1], is 1."""
        count = ops.maximum(sum_over_replicas(self, ops.sum(real)), 1.0)
        mean = sum_over_replicas(self, ops.sum(frames * real, axis=(0, 1))) / count  # [D]
        variance = sum_over_replicas(self, ops.sum(ops.square(frames - mean) * real, axis=(0, 1))) / count
        return mean, variance


def update_running_averages(layer: keras.layers.BatchNormalization, mean: Any, variance: Any) -> None:
    """Moves the layer's running averages towards the statistics of a batch, [D] each."""
    for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        average.assign(average * layer.momentum + ops.stop_gradient(value) * (1.0 - layer.momentum))


def sum_over_replicas(layer: keras.layers.BatchNormalization, value: Any) -> Any:
    """Returns `value` summed over all replicas if the layer is synchronised, else `value` itself."""
    context = tf.distribute.get_replica_context()
    if not layer.synchronized or context is None:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
