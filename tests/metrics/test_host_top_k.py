"""The top k logits of rows, computed on the host, against a stable sort of each row."""

from __future__ import annotations

import numpy as np
import pytest

from yt8m_tf.metrics.host_top_k import host_top_k


def _plainly(logits: np.ndarray, k: int) -> np.ndarray:
    return np.array([sorted(range(len(row)), key=lambda c: (-row[c], c))[:k] for row in logits.tolist()])


@pytest.mark.parametrize(
    ("classes", "k", "values"),
    [
        (3862, 20, "real"),
        (1000, 20, "real"),
        (670, 20, "few"),  # many equal values
        (700, 20, "tenths"),  # some equal values
        (700, 25, "zeros"),  # of both signs
        (50, 20, "real"),  # fewer blocks than intended
        (7, 7, "few"),
    ],
)
def test_values_and_columns_are_those_of_a_stable_sort(
    classes: int, k: int, values: str, rng: np.random.Generator
) -> None:
    logits = rng.normal(-7, 2, (9, classes)).astype(np.float32)
    if values == "few":
        logits = np.round(logits / 4)
    elif values == "tenths":
        logits = np.round(logits, 1)
    elif values == "zeros":
        logits = np.where(rng.random(logits.shape) < 0.02, rng.choice([0.0, -0.0], logits.shape), logits)
    logits = logits.astype(np.float32)
    logits[3, rng.integers(classes)], logits[4, rng.integers(classes)] = np.inf, -np.inf
    logits[5] = logits[5, 0]
    found, columns = host_top_k(logits, k)
    expected = _plainly(logits, k)
    np.testing.assert_array_equal(columns, expected)
    np.testing.assert_array_equal(found, np.take_along_axis(logits, expected, 1))
    assert found.dtype == np.float32 and columns.dtype == np.int32
    rows = [0, 1, 2]  # without the rows that have many equal values
    np.testing.assert_array_equal(host_top_k(logits[rows], k)[1], expected[rows])


def test_rows_of_nan_do_not_affect_other_rows(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4, 800)).astype(np.float32)
    expected = _plainly(logits, 20)
    logits[1], logits[2, 5] = np.nan, np.nan
    np.testing.assert_array_equal(host_top_k(logits, 20)[1][[0, 3]], expected[[0, 3]])
    assert host_top_k(logits[:0], 20)[0].shape == (0, 20)
