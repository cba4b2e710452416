"""Gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks


def context_gating(
    x: keras.KerasTensor, name: str, dtype: str | None = None, activation: Callable[[Any], Any] = ops.sigmoid
) -> keras.KerasTensor:
    """Context gating, x * sigmoid(Dense(x)), or another activation over the last axis; the shape stays.

    Reference: "Learnable pooling with Context Gating for video classification", https://arxiv.org/abs/1706.06905.

    Example:
      >>> import keras, yt8m_tf
      >>> yt8m_tf.context_gating(keras.Input((16,)), name="gate").shape
      (None, 16)
    """
    return x * activation(blocks.dense(x, x.shape[-1], name, dtype=dtype))


def normalised_context_gating(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Context gating with batch normalisation in front of the sigmoid, as the code of that paper has it."""
    gates = blocks.dense(x, x.shape[-1], f"{name}_dense", use_bias=False)
    return x * ops.sigmoid(blocks.batch_norm(gates, f"{name}_bn"))


def bottleneck_gating(x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
    """Squeeze-and-excitation: x * sigmoid(Dense(ReLU(BN(Dense(x))))), the inner Dense `units` wide; the shape stays.

    Reference: https://arxiv.org/abs/1709.01507; here as NeXtVLAD has it, https://arxiv.org/abs/1811.05014.
    """
    squeezed = blocks.dense(x, units, f"{name}_squeeze_dense", use_bias=False)
    squeezed = ops.relu(blocks.batch_norm(squeezed, f"{name}_squeeze_bn"))
    return x * ops.sigmoid(blocks.dense(squeezed, x.shape[-1], f"{name}_excite_dense", use_bias=False))
