"""Storage of features: codes and floats, their means, and values that cannot be stored."""

from __future__ import annotations

import math

import numpy as np
import pytest

from yt8m_tf import schema
from yt8m_tf.conversion.encoding import EncodingError, Storage, encode
from yt8m_tf.errors import InputError


def test_codes_by_hand() -> None:
    """-2 -> 0 and 2 -> 255 with steps of 4 / 255; 0 is 127.5 steps above -2, which is truncated to 127."""
    values = np.array([[-2.0, 2.0, 0.0, -2 + 4.01 / 255, -2 + 3.99 / 255, -9.0, 9.0]])
    assert Storage().encode(values).tolist() == [[0, 255, 127, 1, 0, 0, 255]]
    assert Storage("uint8", 0.0, 1.0).encode(np.array([[0.0, 0.5, 1.0]])).tolist() == [[0, 127, 255]]


@pytest.mark.parametrize("limits", [(-2.0, 2.0), (0.0, 10.0), (-5.5, -1.0)])
def test_codes_against_a_loop(limits: tuple[float, float], rng: np.random.Generator) -> None:
    low, high = limits
    values = rng.uniform(low - 1, high + 1, [5, 40])
    storage = Storage("uint8", low, high)
    expected = [[math.floor((min(max(v, low), high) - low) * 255 / (high - low)) for v in row] for row in values]
    codes = storage.encode(values)
    assert codes.dtype == np.uint8 and codes.tolist() == expected
    assert storage.outside(values) == sum(not low <= v <= high for v in values.flat)
    inside = np.clip(values, low, high)
    # Truncation, and half a step added in decoding: the error is at most about half a step, and zero on average.
    step = (high - low) / 255
    error = storage.decode(codes) - inside
    assert np.abs(error).max() <= 0.51 * step
    if limits == (-2.0, 2.0):
        np.testing.assert_allclose(storage.decode(codes), schema.dequantise(codes), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_are_stored_as_they_are(dtype: str, rng: np.random.Generator) -> None:
    values = rng.normal(size=[3, 4]).astype(np.float16).astype(np.float64)
    stored = Storage(dtype).encode(values)  # type: ignore[arg-type]
    assert stored.dtype == np.dtype(dtype).newbyteorder("<")
    np.testing.assert_array_equal(stored.astype(np.float64), values)


def test_a_video(rng: np.random.Generator) -> None:
    """The longer list is cut; means are those of the decoded frames."""
    features = {"rgb": rng.normal(size=[6, 3]), "audio": rng.normal(size=[5, 2])}
    encoded = encode(features, {"rgb": 3, "audio": 2}, Storage())
    assert encoded.num_frames == 5
    for name, codes in encoded.frames.items():
        decoded = codes.astype(np.float64) * (4 / 255) + (4 / 512 - 2)
        np.testing.assert_allclose(encoded.means[name], decoded.mean(axis=0), rtol=1e-6)
        assert encoded.means[name].dtype == np.float32
    assert encoded.num_values == {"rgb": 15, "audio": 10}


def test_vectors_without_frames() -> None:
    encoded = encode({"x": np.array([5.0, -9.0])}, {"x": 2}, Storage())
    assert encoded.num_frames == 0 and encoded.means["x"].tolist() == [5.0, -9.0]  # stored as they are


_ONES = np.ones([4, 2])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"x": _ONES, "y": _ONES[:2]}, "the numbers of frames differ by more than one: x 4, y 2"),
        ({"x": _ONES}, "has the features x, and others have x, y"),
        ({"x": _ONES, "y": np.ones([4, 3])}, "y has 3 values, and others have 2"),
        ({"x": _ONES, "y": np.ones([4, 2, 1])}, r"y has the shape \[4, 2, 1\], not \[frames, 2\]"),
        ({"x": _ONES, "y": np.ones(2)}, "has frames for some features, but a single vector for others"),
        ({"x": _ONES, "y": np.array([["a", "b"]] * 4)}, "y contains <U1, not numbers"),
        ({"x": _ONES[:0], "y": _ONES[:0]}, "has no frames"),
        ({"x": _ONES, "y": np.where(np.eye(4, 2), np.nan, 1)}, "y: 2 of 8 values are not finite numbers"),
        ({"x": _ONES, "y": np.where(np.eye(4, 2), np.inf, 1)}, "y: 2 of 8 values are not finite numbers"),
    ],
)
def test_features_that_cannot_be_stored(features: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        encode(features, {"x": 2, "y": 2}, Storage())


def test_floats_that_are_too_large() -> None:
    with pytest.raises(EncodingError, match="x: 1 of 2 values are too large for float16"):
        encode({"x": np.array([[1.0, 1e6]])}, {"x": 2}, Storage("float16"))


@pytest.mark.parametrize("limits", [["1"], ["2", "1"], ["a", "b"], ["0", "inf"]])
def test_invalid_ranges(limits: list[str]) -> None:
    with pytest.raises(InputError, match=r"--range=.*: must be LOW,HIGH"):
        Storage.parse("uint8", limits, "--range")
    assert Storage.parse("uint8", ["0", "1.5"], "--range") == Storage("uint8", 0.0, 1.5)
