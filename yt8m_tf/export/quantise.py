"""Half-precision storage of weights: which variables are stored as float16, and their conversion."""

from __future__ import annotations

from typing import Literal

import keras
import numpy as np

from yt8m_tf.errors import InputError

Precision = Literal["float16", "float32"]

# Smaller variables are not worth the rounding: together they are a negligible share of any model.
MIN_ELEMENTS = 1024

# Batch normalisation divides by statistics of any magnitude, and a bias shifts every score of a class: these keep
# their float32, whatever their size.
_KEPT_NAMES = ("gamma", "beta", "moving_mean", "moving_variance")


def is_stored_as_half(variable: keras.Variable) -> bool:
    """Whether float16 storage applies: a float variable of at least 1,024 elements, no BN parameter and no bias."""
    if not keras.backend.is_float_dtype(variable.dtype):
        return False
    if variable.name in _KEPT_NAMES or variable.name.endswith("bias"):
        return False
    return int(np.prod(variable.shape)) >= MIN_ELEMENTS


def to_half(name: str, values: np.ndarray) -> np.ndarray:
    """Rounds to float16.

    Args:
      name: the variable's name, for the message.
      values: float array of any shape.

    Returns:
      float16 array of the same shape. Magnitudes below 6e-8, float16's smallest, become 0.

    Raises:
      InputError: a value is beyond float16's range of +-65504, infinite or NaN.
    """
    values = np.asarray(values, np.float32)
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    wrong = ~np.isfinite(halves)
    if wrong.any():
        first = values[np.unravel_index(np.argmax(wrong), wrong.shape)]
        raise InputError(
            f"variable '{name}': {int(wrong.sum())} of {values.size} values do not fit float16 (-65504 to 65504), the"
            f" first is {first:g}; export with --precision=float32"
        )
    return halves


def stored_value(variable: keras.Variable, precision: Precision) -> np.ndarray:
    """The array that is stored for a variable.

    Raises:
      InputError: see `to_half`.
    """
    values = keras.ops.convert_to_numpy(variable.value)
    if precision == "float16" and is_stored_as_half(variable):
        return to_half(variable.path, values)
    return values
