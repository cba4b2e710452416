"""Attention over the frames of a clip."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class FrameClipDense(keras.layers.Dense):
    """Dense over the concatenation of each frame with its clip's vector: [B, T, D] and [B, E] to [B, T, units].

    The tensor [B, T, D + E] is never built: the first D rows of the kernel multiply the frames, and the other E rows
    multiply each clip's vector once.

    Args:
      units: size of the output.
      **kwargs: arguments of `keras.layers.Dense`.
    """

    def build(self, frames_shape: Shape, clip_shape: Shape) -> None:
        """Creates the kernel [D + E, units] and the bias [units]."""
        self._frame_size, clip_size = frames_shape[-1], clip_shape[-1]
        assert self._frame_size is not None and clip_size is not None
        super().build((None, self._frame_size + clip_size))
        self.input_spec = None  # that of Dense is for a single input, as wide as the kernel is high

    def call(self, frames: Any, clip: Any) -> Any:
        """Maps [B, T, D] frames and [B, E] clips to [B, T, units]."""
        frame_kernel, clip_kernel = self.kernel[: self._frame_size], self.kernel[self._frame_size :]
        of_clip = ops.matmul(clip, clip_kernel) + self.bias  # [B, units]
        return ops.matmul(frames, frame_kernel) + of_clip[:, None]

    def compute_output_shape(self, frames_shape: Shape, clip_shape: Shape) -> Shape:
        """[B, T, units]."""
        return (*frames_shape[:-1], self.units)


@keras.saving.register_keras_serializable(package="yt8m_tf")
class PositionedSelfAttention(keras.layers.Layer):
    """Self-attention over real frames, with position codes in queries and keys but not in values.

    Frame t = 0, 1, ... is x[t], and its code p[t, j] = sin(2 * pi * t * 2j / max_length), j = 1..D. Queries and keys
    are linear maps of x + p, values of x. A head's weights are softmax(q . k / sqrt(D)) over the real frames.

    `keras.layers.MultiHeadAttention` cannot express this: it divides by the square root of the head's width rather than
    of the frame's, and scales its initial weights by the number of heads. This layer calls the function beneath it,
    `keras.ops.dot_product_attention`.

    Args:
      head_size: width of each head.
      num_heads: number of heads.
      max_length: number of frames after which position codes repeat.
      biases: whether queries and values have biases. Keys have none: a key's bias adds the same number to all scores of
        a query, which the softmax cancels.
      **kwargs: arguments of every layer: name, dtype, trainable.
    """

    def __init__(self, head_size: int, num_heads: int, max_length: int, biases: bool = False, **kwargs: Any) -> None:
        for argument, value in (("head_size", head_size), ("num_heads", num_heads), ("max_length", max_length)):
            if value < 1:
                raise ValueError(f"PositionedSelfAttention: {argument} must be at least 1, got {value}")
        super().__init__(**kwargs)
        self.head_size = head_size
        self.num_heads = num_heads
        self.max_length = max_length
        self.biases = biases

    def build(self, frames_shape: Shape, frame_mask_shape: Shape) -> None:
        """Creates kernels [D, heads * head_size] for queries, keys and values; with `biases`, also biases."""
        size = frames_shape[-1]
        assert size is not None
        width = self.num_heads * self.head_size
        for name in ("query", "key", "value"):
            kernel = self.add_weight(
                shape=(size, width), initializer=blocks.kernel_initializer(), name=f"{name}_kernel"
            )
            setattr(self, f"{name}_kernel", kernel)
        self.query_bias, self.value_bias = (
            self.add_weight(shape=(width,), initializer=blocks.bias_initializer(size), name=f"{name}_bias")
            if self.biases
            else 0.0
            for name in ("query", "value")
        )

    def call(self, frames: Any, frame_mask: Any) -> Any:
        """Applies attention.

        Args:
          frames: [B, T, D]; padding must be finite, too.
          frame_mask: [B, T] bool, False for padding.

        Returns:
          [B, T, heads * head_size], the concatenated heads; undefined in the padding.
        """
        positioned = frames + ops.cast(position_codes(frames, self.max_length), frames.dtype)
        attended = ops.dot_product_attention(
            self._heads(ops.matmul(positioned, self.query_kernel) + self.query_bias),
            self._heads(ops.matmul(positioned, self.key_kernel)),
            self._heads(ops.matmul(frames, self.value_kernel) + self.value_bias),
            mask=ops.expand_dims(frame_mask, (1, 2)),  # [B, heads, queries, keys]; LiteRT has no index of None
            scale=1 / math.sqrt(frames.shape[-1]),
        )
        return ops.reshape(attended, (*ops.shape(frames)[:2], self.num_heads * self.head_size))

    def compute_output_shape(self, frames_shape: Shape, frame_mask_shape: Shape) -> Shape:
        """Returns [B, T, heads * head_size]."""
        return (*frames_shape[:-1], self.num_heads * self.head_size)

    def _heads(self, x: Any) -> Any:
        return ops.reshape(x, (*ops.shape(x)[:2], self.num_heads, self.head_size))


def position_codes(frames: Any, max_length: int) -> Any:
    """Returns sin(2 * pi * t * 2j / max_length) for t = 0.., j = 1..: [1, T, D] float32, for frames [B, T, D]."""
    ones = ops.ones_like(frames[:1], dtype="float32")
    steps = (ops.cumsum(ones, axis=1) - 1) * 2 * ops.cumsum(ones, axis=2)  # t * 2j, exact because they are integers
    return ops.sin(2 * math.pi / max_length * ops.mod(steps, max_length))
