"""A learned power."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="yt8m_tf")
class SignedPower(keras.layers.Layer):
    """sign(x) * |x| ** power, with one power for all elements; keeps the shape.

    |x| counts as at least 1e-6, which keeps the gradients of x and of the power finite at zero, for any power.

    Args:
      power: the initial power.
      learnable: whether to train the power.
      dtype: float32 by default, even with mixed precision: powers magnify rounding errors.
      **kwargs: arguments of every layer: name, trainable.
    """

    def __init__(self, power: float = 3.0, learnable: bool = True, *, dtype: str = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.power = power
        self.learnable = learnable

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scalar exponent."""
        initializer = keras.initializers.Constant(self.power)
        self.exponent = self.add_weight(shape=(), initializer=initializer, trainable=self.learnable, name="exponent")

    def call(self, inputs: Any) -> Any:
        """Maps a tensor of any shape to one of the same shape."""
        magnitude = ops.maximum(ops.abs(inputs), 1e-6)
        return ops.sign(inputs) * ops.exp(self.exponent * ops.log(magnitude))
