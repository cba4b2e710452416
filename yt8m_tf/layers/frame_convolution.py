"""Convolutions over the frames of padded clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from yt8m_tf.layers import blocks, masking

Activation = Literal["none", "leaky_relu", "relu"]
_ACTIVATIONS = {"none": lambda x: x, "leaky_relu": blocks.leaky_relu, "relu": ops.relu}


@keras.saving.register_keras_serializable(package="yt8m_tf")
class ZeroPadding(keras.layers.Layer):
    """Sets padding to zero, and pads sequences to at least `min_frames`: [B, T, D] to [B, max(T, min_frames), D].

    Args:
      min_frames: the shortest sequence to return.
      **kwargs: arguments of every layer: name, dtype, trainable.
    """

    def __init__(self, min_frames: int, **kwargs: Any) -> None:
        if min_frames < 1:
            raise ValueError(f"ZeroPadding: min_frames must be at least 1, got {min_frames}")
        super().__init__(**kwargs)
        self.min_frames = min_frames

    def call(self, frames: Any, frame_mask: Any) -> Any:
        """Sets frames [B, T, D] to zero where their mask [B, T] is False, and appends zeros if T is too small."""
        batch, length, size = ops.shape(frames)
        missing = ops.maximum(self.min_frames - length, 0)
        zeros = ops.zeros((batch, missing, size), frames.dtype)
        return ops.concatenate([masking.zero_padding(frames, frame_mask), zeros], axis=1)

    def compute_output_shape(self, frames_shape: tuple[int | None, ...], frame_mask_shape: Any) -> Any:
        """[B, T, D], T unknown."""
        return (frames_shape[0], None, frames_shape[2])


def receptive_field(kernel_sizes: Sequence[int], pool_sizes: Sequence[int]) -> int:
    """Returns how many frames one output of several blocks sees, each block a convolution and then a pool.

    The last block may have no pool in `pool_sizes`, because it is global.
    """
    frames = 1
    for i, kernel_size in reversed(list(enumerate(kernel_sizes))):
        frames = frames * (pool_sizes[i] if i < len(pool_sizes) else 1) + kernel_size - 1
    return frames


def conv_block(
    frames: keras.KerasTensor,
    num_frames: keras.KerasTensor,
    channels: int,
    kernel_size: int,
    dropout_rate: float,
    activation: Activation,
    name: str,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Applies a convolution, dropout of whole channels, batch normalisation and an activation.

    The convolution has a bias: because of the dropout after it, batch normalisation does not cancel the bias.

    Args:
      frames: [B, T, D], T at least `kernel_size`; the first `num_frames` of each clip count.
      num_frames: [B] integers, at least `kernel_size`.
      channels: number of output channels.
      kernel_size: frames that one output sees; the convolution adds no padding.
      dropout_rate: in [0, 1).
      activation: "none" for none.
      name: prefix of the layers' names.

    Returns:
      [B, T - kernel_size + 1, channels], and how many positions of each clip count.
    """
    convolution = keras.layers.Conv1D(
        channels,
        kernel_size,
        kernel_initializer=blocks.kernel_initializer(),
        bias_initializer=blocks.bias_initializer(kernel_size * frames.shape[-1]),
        name=f"{name}_conv",
    )
    x, num_positions = convolution(frames), num_frames - (kernel_size - 1)
    x = keras.layers.SpatialDropout1D(dropout_rate, name=f"{name}_dropout")(x)
    x = blocks.frame_batch_norm(x, masking.sequence_mask(num_positions, x), f"{name}_bn")
    return _ACTIVATIONS[activation](x), num_positions


def max_pool(
    frames: keras.KerasTensor, num_frames: keras.KerasTensor, pool_size: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns maxima over every `pool_size` frames; frames at a clip's end that do not fill a pool are left out.

    Args:
      frames: [B, T, D].
      num_frames: [B] integers, how many frames of each clip count.
      pool_size: width and stride.

    Returns:
      [B, T // pool_size, D], and how many pools of each clip count: those whose frames all count.
    """
    return ops.max_pool(frames, pool_size, strides=pool_size, padding="valid"), num_frames // pool_size
