"""The weights of a SavedModel that yt8m-export wrote, as float32 arrays: its model can be built again from them."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_weights(loaded: Any) -> dict[str, np.ndarray]:
    """The values of a model's variables, by their paths, decoded as loading decodes them.

    Args:
      loaded: from `scorer.load_saved_model`; its object has the attributes of `export.saved_model.InferenceModule`.

    Returns:
      Variable path to array; {} where the SavedModel was written by something else.
    """
    found = {}
    for path, stored in dict(getattr(loaded, "weights", {})).items():
        decoded = getattr(stored, "_decoded", None)  # of weights in less than float32, see `export.stored.Stored`
        found[path] = (stored.stored["values"] if decoded is None else decoded).numpy()
    return found
