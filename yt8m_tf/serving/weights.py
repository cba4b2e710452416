"""Reads the weights of a SavedModel of yt8m-export as float32 arrays, from which its model can be rebuilt."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_weights(loaded: Any) -> dict[str, np.ndarray]:
    """Returns the values of a model's variables by path, decoded as when the SavedModel is loaded.

    Args:
      loaded: from `scorer.load_saved_model`, with the attributes of `export.saved_model.InferenceModule`.

    Returns:
      Arrays by variable path; {} if something other than yt8m-export wrote the SavedModel.
    """
    found = {}
    for path, stored in dict(getattr(loaded, "weights", {})).items():
        decoded = getattr(stored, "_decoded", None)  # of weights in less than float32, see `export.stored.Stored`
        found[path] = (stored.stored["values"] if decoded is None else decoded).numpy()
    return found
