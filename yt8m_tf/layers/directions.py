"""Directions of features: what the layers with a memory compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# Squared distances below this share of the query's squared norm are rounding: the two are the same video.
SAME = 1e-5
_PART = 4096  # videos whose directions are computed at a time, to need little space beyond the memory itself


def directions(features: Sequence[Any], means: Any) -> Any:
    """Subtracts the means, normalises each feature to length 1, and concatenates the features.

    Args:
      features: [B, D'] each.
      means: [D], with D = sum of D'.

    Returns:
      [B, D]; a feature that equals its mean has length 0.
    """
    parts, start = [], 0
    for values in features:
        centred = values - means[start : start + values.shape[-1]]
        parts.append(tf.math.l2_normalize(centred, axis=-1))
        start += values.shape[-1]
    return tf.concat(parts, axis=-1)


def mean_of(features: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the mean of each dimension, [D] float64, of features [M, D'] each."""
    return np.concatenate([values.mean(axis=0, dtype=np.float64) for values in features])


def fill_directions(rows: np.ndarray, features: Sequence[np.ndarray], means: Any) -> None:
    """Sets the first M rows of `rows` [N, D] float32 to the directions of M videos, features [M, D'] each."""
    for start in range(0, len(features[0]), _PART):
        part = [values[start : start + _PART] for values in features]
        rows[start : start + len(part[0])] = directions(part, means)
