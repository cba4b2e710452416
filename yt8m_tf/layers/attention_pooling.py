"""Attention pooling: a mean over frames with weights from a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks, masking

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class AttentionPooling(keras.layers.Layer):
    """The mean over real frames, weighted by a softmax over time of Dense(1): [B, T, D] to [B, D].

    Frames may be given in parts, [B, T, D1], [B, T, D2], ... with D = D1 + D2 + ... The parts are not concatenated;
    instead, the kernel and the sum are split. The Dense has no bias, because the softmax would cancel it.

    Args:
      **kwargs: arguments of every layer: name, dtype, trainable.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> rgb, audio = np.ones((2, 5, 8), "float32"), np.ones((2, 5, 4), "float32")
      >>> mask = yt8m_tf.sequence_mask(np.array([5, 3]), rgb)
      >>> yt8m_tf.AttentionPooling()([rgb, audio], mask).shape.as_list()
      [2, 12]
    """

    def build(self, parts_shape: Sequence[Shape], frame_mask_shape: Shape) -> None:
        """Creates the kernel [D, 1], with rows in the order of the parts."""
        self._sizes = [int(shape[-1] or 0) for shape in parts_shape]
        self.kernel = self.add_weight(
            shape=(sum(self._sizes), 1), initializer=blocks.kernel_initializer(), name="kernel"
        )

    def call(self, parts: Sequence[Any], frame_mask: Any) -> Any:
        """Pools frames.

        Args:
          parts: parts of the frames, each [B, T, Di]; padding must be finite, too.
          frame_mask: [B, T] bool, False for padding.
        """
        scores, start = 0.0, 0
        for part, size in zip(parts, self._sizes, strict=True):
            scores += ops.matmul(part, self.kernel[start : start + size])[:, :, 0]  # [B, T]
            start += size
        weights = masking.masked_softmax(scores, frame_mask)
        return ops.concatenate([ops.einsum("bt,btd->bd", weights, part) for part in parts], axis=-1)

    def compute_output_shape(self, parts_shape: Sequence[Shape], frame_mask_shape: Shape) -> Shape:
        """[B, D]."""
        return (parts_shape[0][0], sum(int(shape[-1] or 0) for shape in parts_shape))
