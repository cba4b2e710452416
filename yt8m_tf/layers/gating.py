"""Gates: a tensor multiplied by factors that depend on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks


def context_gating(
    x: keras.KerasTensor, name: str, dtype: str | None = None, activation: Callable[[Any], Any] = ops.sigmoid
) -> keras.KerasTensor:
    """Applies context gating over the last axis, x * sigmoid(Dense(x)) or another activation; keeps the shape.

    Reference: "Learnable pooling with Context Gating for video classification", https://arxiv.org/abs/1706.06905.

    Example:
      >>> import keras, yt8m_tf
      >>> yt8m_tf.context_gating(keras.Input((16,)), name="gate").shape
      (None, 16)
    """
    return x * activation(blocks.dense(x, x.shape[-1], name, dtype=dtype))


def normalised_context_gating(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Applies context gating with batch normalisation before the sigmoid, as in the code of that paper."""
    gates = blocks.dense(x, x.shape[-1], f"{name}_dense", use_bias=False)
    return x * ops.sigmoid(blocks.batch_norm(gates, f"{name}_bn"))


def bottleneck_gating(x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
    """Applies squeeze-and-excitation, x * sigmoid(Dense(ReLU(BN(Dense(x))))), the inner Dense with `units`.

    The shape stays. Reference: https://arxiv.org/abs/1709.01507; this variant is that of NeXtVLAD,
    https://arxiv.org/abs/1811.05014.
    """
    squeezed = blocks.dense(x, units, f"{name}_squeeze_dense", use_bias=False)
    squeezed = ops.relu(blocks.batch_norm(squeezed, f"{name}_squeeze_bn"))
    return x * ops.sigmoid(blocks.dense(squeezed, x.shape[-1], f"{name}_excite_dense", use_bias=False))
