"""A bilinear map of two vectors."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class Bilinear(keras.layers.Layer):
    """y[k] = sum over i, j of x[i] * kernel[i, j, k] * h[j], plus a bias: [B, D] and [B, R] to [B, units].

    The sums can be computed in two orders. Both take one matrix product of equal cost, and one intermediate tensor
    larger than input and output: the outer products x[i] * h[j], [B, D * R], or x @ kernel, [B, R * units]. This layer
    computes the outer products, which are smaller if D < units. The matrix product then sums over i and j, in float32
    even with mixed precision. The gradient of the outer products takes the same memory again (docs/BENCHMARKS.md).

    Reference: `torch.nn.Bilinear`, including its initial weights, uniform in +-1/sqrt(D):
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Bilinear.html.

    Args:
      units: size of the output.
      **kwargs: arguments of every layer: name, dtype, trainable.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        if units < 1:
            raise ValueError(f"Bilinear: units must be at least 1, got {units}")
        super().__init__(**kwargs)
        self.units = units

    def build(self, x_shape: Shape, h_shape: Shape) -> None:
        """Creates the kernel [D, R, units] and the bias [units]."""
        size, rank = x_shape[-1], h_shape[-1]
        assert size is not None and rank is not None
        uniform = blocks.bias_initializer(size)  # for the kernel too: fan_in is D here, not D * R
        self.kernel = self.add_weight(shape=(size, rank, self.units), initializer=uniform, name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer=blocks.bias_initializer(size), name="bias")

    def call(self, x: Any, h: Any) -> Any:
        """Maps [B, D] and [B, R] to [B, units]."""
        size, rank, _ = self.kernel.shape
        products = ops.reshape(x[:, :, None] * h[:, None, :], (-1, size * rank))  # [B, D * R]
        return ops.matmul(products, ops.reshape(self.kernel, (size * rank, self.units))) + self.bias

    def compute_output_shape(self, x_shape: Shape, h_shape: Shape) -> Shape:
        """[B, units]."""
        return (x_shape[0], self.units)
