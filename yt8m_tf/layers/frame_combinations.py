"""Learned weightings of the frames of a clip."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class FrameCombinations(keras.layers.Layer):
    """H learned linear combinations of frames, a Dense(H) along time: [B, T, D] and a mask to [B, H, D].

    The result is that of a Dense on the transposed frames, padded with zeros or cut to `max_frames`. Neither the
    transpose nor the padding is computed: the first T rows of the kernel, masked for each clip, are multiplied by the
    frames. The output is [B, H, D], because for [B, D, H] XLA would transpose the frames.

    Args:
      head_size: H.
      max_frames: rows of the kernel.
      **kwargs: arguments of every layer: name, dtype, trainable.
    """

    def __init__(self, head_size: int, max_frames: int, **kwargs: Any) -> None:
        for argument, value in (("head_size", head_size), ("max_frames", max_frames)):
            if value < 1:
                raise ValueError(f"FrameCombinations: {argument} must be at least 1, got {value}")
        super().__init__(**kwargs)
        self.head_size = head_size
        self.max_frames = max_frames

    def build(self, frames_shape: Shape, frame_mask_shape: Shape) -> None:
        """Creates the kernel [max_frames, H] and the bias [H]."""
        self.kernel = self.add_weight(
            shape=(self.max_frames, self.head_size), initializer=blocks.kernel_initializer(), name="kernel"
        )
        self.bias = self.add_weight(
            shape=(self.head_size,), initializer=blocks.bias_initializer(self.max_frames), name="bias"
        )

    def call(self, frames: Any, frame_mask: Any) -> Any:
        """Computes the combinations.

        Args:
          frames: [B, T, D], any T; padding must be finite, too.
          frame_mask: [B, T] bool, False for padding.
        """
        frames, frame_mask = frames[:, : self.max_frames], frame_mask[:, : self.max_frames]
        kernel = self.kernel[: ops.shape(frames)[1]]  # [T, H]
        weights = ops.expand_dims(ops.cast(frame_mask, kernel.dtype), 2) * kernel  # [B, T, H]
        return ops.einsum("bth,btd->bhd", weights, frames) + ops.expand_dims(self.bias, 1)

    def compute_output_shape(self, frames_shape: Shape, frame_mask_shape: Shape) -> Shape:
        """[B, H, D]."""
        return (frames_shape[0], self.head_size, frames_shape[2])
