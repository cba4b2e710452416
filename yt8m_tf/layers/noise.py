"""Gaussian noise in proportion to the activations that it is added to."""

from __future__ import annotations

import zlib
from typing import Any, Literal, get_args

import keras
from keras import ops

from yt8m_tf.layers.numerics import square_root

Magnitude = Literal["std", "mean", "mean_abs", "max_abs", "norm_by_size", "square"]


def magnitude(x: Any, kind: Magnitude) -> Any:
    """Returns f(x), the factor of the noise: a scalar, or for "square" a tensor.

    Args:
      x: float tensor of any shape. f depends on all of it, including the rest of the batch.
      kind: "std" (of the population); "mean"; "mean_abs"; "max_abs"; "norm_by_size", the square root of the sum of
        squares, divided by the number of elements; or "square", each element's square divided by the number of
        elements.

    Returns:
      A scalar, or for "square" a tensor of the shape of x. The gradient is finite, even at x = 0.
    """
    size = ops.cast(ops.size(x), x.dtype)
    if kind == "std":
        return square_root(ops.mean(ops.square(x - ops.mean(x))))
    if kind == "mean":
        return ops.mean(x)
    if kind == "mean_abs":
        return ops.mean(ops.abs(x))
    if kind == "max_abs":
        # By index, because of the gradient of a maximum: see `masking.masked_max`.
        magnitudes = ops.reshape(ops.abs(x), (-1,))
        return ops.take(magnitudes, ops.argmax(ops.stop_gradient(magnitudes)))
    if kind == "norm_by_size":
        return square_root(ops.sum(ops.square(x))) / size
    return ops.square(x) / size


@keras.saving.register_keras_serializable(package="yt8m_tf")
class GaussianNoise(keras.layers.Layer):
    """x + N(0, 1) * scale * f(x), with noise drawn for each element; f is `magnitude`, and gradients pass through it.

    With `always`, inference adds noise, too: a fixed draw, seeded by the layer's name, instead of a new one in each
    call. Scores are then the same whenever they are computed, and an exported model has no state. They still depend on
    a video's position in the batch and, through f, on the rest of the batch.

    Args:
      scale: at least 0; 0 adds nothing.
      kind: see `magnitude`.
      always: whether inference adds noise, too.
      **kwargs: arguments of every layer: name, dtype, trainable.
    """

    def __init__(self, scale: float = 1.0, kind: Magnitude = "std", always: bool = False, **kwargs: Any) -> None:
        if scale < 0:
            raise ValueError(f"GaussianNoise: scale must be at least 0, got {scale}")
        if kind not in get_args(Magnitude):
            raise ValueError(f"GaussianNoise: kind must be one of {', '.join(get_args(Magnitude))}, got '{kind}'")
        super().__init__(**kwargs)
        self.scale = scale
        self.kind = kind
        self.always = always
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Adds noise in training, or always; keeps the shape."""
        if not (training or self.always):
            return inputs
        x = ops.cast(inputs, "float32")  # sums and squares of a whole tensor exceed half precision
        seed = self.seed_generator if training else zlib.crc32(self.name.encode())
        noise = keras.random.normal(ops.shape(x), dtype="float32", seed=seed)
        return ops.cast(x + noise * (self.scale * magnitude(x, self.kind)), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape
