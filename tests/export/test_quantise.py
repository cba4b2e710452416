import re

import keras
import numpy as np
import pytest

from yt8m_tf.errors import InputError
from yt8m_tf.export.quantise import is_stored_as_half, to_half


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "half"),
    [
        ("kernel", (32, 32), "float32", True),
        ("kernel", (1023,), "float32", False),
        ("centroids", (1024,), "float32", True),
        ("bias", (4096,), "float32", False),
        ("hidden_bias", (2, 2048), "float32", False),
        ("gamma", (4096,), "float32", False),
        ("beta", (4096,), "float32", False),
        ("moving_mean", (4096,), "float32", False),
        ("moving_variance", (4096,), "float32", False),
        ("table", (64, 64), "int32", False),
        ("kernel", (64, 64), "bfloat16", True),
    ],
)
def test_which_variables_are_halved(name, shape, dtype, half):
    variable = keras.Variable(np.zeros(shape, "int32" if dtype == "int32" else "float32"), dtype=dtype, name=name)
    assert is_stored_as_half(variable) is half


def test_halves_are_the_nearest_float16(rng):
    values = rng.normal(size=(40, 50)).astype(np.float32)
    halves = to_half("w", values)
    assert halves.dtype == np.float16
    # Half a unit in the last of 11 binary digits.
    assert (np.abs(halves.astype(np.float64) - values) <= np.abs(values) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize("value", [65520.0, -1e9, np.inf, np.nan])
def test_values_beyond_float16_are_named(value):
    values = np.zeros((3, 4), np.float32)
    values[1, 2] = value
    with pytest.raises(InputError, match=rf"'block/kernel': 1 of 12 .*first is {re.escape(f'{value:g}')}"):
        to_half("block/kernel", values)


def test_largest_float16_fits():
    assert to_half("w", np.array([65504.0, -65519.0], np.float32)).tolist() == [65504.0, -65504.0]
