"""A learned power."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="yt8m_tf")
class SignedPower(keras.layers.Layer):
    """sign(x) * |x| ** power, one power for all elements and every use of the layer; the shape stays.

    |x| counts as at least 1e-6, which keeps the gradients of x and of the power finite at zero, whatever the power.

    Args:
      power: the initial power.
      learnable: train it.
      dtype: float32 by default, under mixed precision too: powers are large where a few digits matter.
      **kwargs: of every layer: name, trainable.
    """

    def __init__(self, power: float = 3.0, learnable: bool = True, *, dtype: str = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.power = power
        self.learnable = learnable

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the scalar exponent."""
        initializer = keras.initializers.Constant(self.power)
        self.exponent = self.add_weight(shape=(), initializer=initializer, trainable=self.learnable, name="exponent")

    def call(self, inputs: Any) -> Any:
        """Any shape to the same."""
        magnitude = ops.maximum(ops.abs(inputs), 1e-6)
        return ops.sign(inputs) * ops.exp(self.exponent * ops.log(magnitude))
