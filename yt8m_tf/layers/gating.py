"""Gates."""

from __future__ import annotations

import keras
from keras import ops

from yt8m_tf.layers import blocks


def context_gating(x: keras.KerasTensor, name: str, dtype: str | None = None) -> keras.KerasTensor:
    """Context gating, x * sigmoid(Dense(x)); the shape stays.

    Reference: "Learnable pooling with Context Gating for video classification", https://arxiv.org/abs/1706.06905.
    """
    return x * ops.sigmoid(blocks.dense(x, x.shape[-1], name, dtype=dtype))
