"""The highest logits of each row on the host, found with NumPy's vector instructions."""

from __future__ import annotations

import numpy as np

# Columns in a block, of which only the maximum is considered to find a lower bound for a row.
_WIDTH = 16
# The most candidates of a row that are sorted; rows with more have many equal values.
_MOST = 256


def host_top_k(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k highest logits of each row, exactly as `tf.math.top_k` does, in a fraction of its time on a CPU.

    The k-th highest of the maxima of blocks of columns is a lower bound of the k-th highest value. Few values of a row
    reach it, and only these are sorted.

    Args:
      logits: [B, C] float32. The results of rows with a NaN are meaningless.
      k: at most C.

    Returns:
      Values [B, k] float32, highest first, and their columns [B, k] int32. Equal values rank by lower column, and -0.0
      equals 0.0.
    """
    count, num_classes = logits.shape
    blocks = num_classes // _WIDTH
    if blocks <= 2 * k or not count:  # too few blocks for their maxima to narrow the search
        return _of_all(logits, k)
    maxima = logits[:, : blocks * _WIDTH].reshape(count, _WIDTH, blocks).max(axis=1)
    bounds = np.partition(maxima, blocks - k, axis=1)[:, blocks - k]
    rows, columns = np.divmod(np.flatnonzero(logits >= bounds[:, None]), num_classes)
    lengths = np.bincount(rows, minlength=count)
    if lengths.min() < k or lengths.max() > _MOST:  # NaN, or many equal values
        return _of_all(logits, k)
    keys = np.full((count, lengths.max()), np.iinfo(np.int64).min)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    keys[rows, places] = _keys(logits[rows, columns], columns)
    return _values_of(logits, keys, k)


def _of_all(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    keys = _keys(logits, np.arange(logits.shape[1]))
    return _values_of(logits, np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:], k)


def _keys(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns int64 keys in ranking order: the float's bits as a sortable integer, then the columns reversed."""
    bits = (values + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    return (np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64) << 32) | (0xFFFFFFFF - columns)


def _values_of(logits: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    columns = 0xFFFFFFFF - (np.sort(keys, axis=1)[:, : -k - 1 : -1] & 0xFFFFFFFF)
    return np.take_along_axis(logits, columns, axis=1), columns.astype(np.int32)
