"""Masks and masked reductions of padded frame sequences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops


def sequence_mask(num_frames: Any, frames: Any) -> Any:
    """Marks the real frames of a batch of padded clips.

    Args:
      num_frames: [B] integers, at least 0; values above T count as T.
      frames: [B, T, D], symbolic or not; only the shape is used, and T may be unknown.

    Returns:
      [B, T] bool: True for a frame, False for padding.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> yt8m_tf.sequence_mask(np.array([2, 3]), np.zeros((2, 3, 8))).numpy().tolist()
      [[True, True, False], [True, True, True]]
    """
    # A cumulative sum, because a range needs T, which may be unknown while the model is built.
    position = ops.cumsum(ops.ones_like(frames[:, :, 0], dtype="float32"), axis=1)  # [B, T], from 1
    # `expand_dims` instead of an index of None, which LiteRT does not support.
    return position <= ops.expand_dims(ops.cast(num_frames, "float32"), 1)


def clip_mask(inputs: Mapping[str, Any]) -> Any:
    """Returns the `sequence_mask`, [B, T], of a frame-level model's inputs, {feature: [B, T, D]; "num_frames": [B]}."""
    frames = next(values for name, values in inputs.items() if name != "num_frames")
    return sequence_mask(inputs["num_frames"], frames)


def zero_padding(frames: Any, frame_mask: Any) -> Any:
    """Sets frames [B, T, D] to zero where the mask [B, T] is False."""
    return ops.where(ops.expand_dims(frame_mask, 2), frames, ops.zeros_like(frames))


def masked_mean(frames: Any, frame_mask: Any) -> Any:
    """Computes the mean over real frames.

    Args:
      frames: [B, T, D] float; padding must be finite, too.
      frame_mask: [B, T] bool.

    Returns:
      [B, D]; zeros for a clip without frames.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> frames = np.array([[[1.0], [3.0], [9.0]]], "float32")
      >>> yt8m_tf.masked_mean(frames, np.array([[True, True, False]])).numpy().tolist()
      [[2.0]]
    """
    real = ops.cast(frame_mask, frames.dtype)  # [B, T]
    weights = real / ops.maximum(ops.sum(real, axis=1, keepdims=True), 1)
    # A matrix product needs no masked copy of the frames. LiteRT does not support `ops.einsum`.
    return ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), frames), 1)


def masked_means(inputs: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Computes the means over real frames, {name: [B, D]}, of a frame-level model's inputs (`clip_mask`)."""
    mask = clip_mask(inputs)
    return {name: masked_mean(inputs[name], mask) for name in names}


def masked_max(frames: Any, frame_mask: Any) -> Any:
    """Computes the maximum over real frames, [B, T, D] and [B, T] to [B, D]; zeros for a clip without frames.

    If several frames have the maximum, the first one gets the gradient.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> frames = np.array([[[1.0], [3.0], [9.0]]], "float32")
      >>> yt8m_tf.masked_max(frames, np.array([[True, True, False]])).numpy().tolist()
      [[3.0]]
    """
    real = ops.expand_dims(frame_mask, 2)  # [B, T, 1]; LiteRT supports neither `[..., None]` nor `&`
    masked = ops.where(real, ops.stop_gradient(frames), float("-inf"))
    first = ops.expand_dims(_FirstLargest()(masked), 1)  # [B, 1, D]
    # The gradient of `ops.max` compares frames with the maximum. XLA may recompute the frames for that with different
    # rounding; then none is equal, and it divides by zero.
    position = ops.cumsum(ops.ones_like(real, dtype="int32"), axis=1) - 1  # [B, T, 1]
    chosen = ops.equal(ops.where(real, position, -1), first)  # [B, T, D]
    return ops.sum(ops.where(chosen, frames, ops.zeros_like(frames)), axis=1)


@keras.saving.register_keras_serializable(package="yt8m_tf")
class _FirstLargest(keras.Operation):
    """Finds the first frame with the largest value, [B, T, D] to [B, D] int32; 0 and -0 are equal.

    `ops.argmax` distinguishes 0 and -0 by their bits, for which LiteRT has no operation.
    """

    def call(self, frames: Any) -> Any:
        return tf.argmax(frames, axis=1, output_type=tf.int32)

    def compute_output_spec(self, frames: Any) -> keras.KerasTensor:
        return keras.KerasTensor((frames.shape[0], frames.shape[2]), dtype="int32")


def masked_softmax(scores: Any, frame_mask: Any) -> Any:
    """Computes a softmax over real frames, [B, T] and [B, T] to [B, T]; zeros for padding and clips without frames.

    Computed in float32, even with mixed precision.
    """
    real = ops.cast(frame_mask, "float32")
    values = ops.where(frame_mask, ops.cast(scores, "float32"), -1e30)
    powers = ops.exp(values - ops.stop_gradient(ops.max(values, axis=1, keepdims=True))) * real
    weights = powers / ops.maximum(ops.sum(powers, axis=1, keepdims=True), 1e-30)
    return ops.cast(weights, scores.dtype)
