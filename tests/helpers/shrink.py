"""Shrinks a full-size configuration, without changing its structure, so that a test can train it in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The largest widths, by the names of their options. Depths, dropout rates and variants are kept.
_WIDTHS = {
    **dict.fromkeys(("inner_size", "hidden_size", "hidden_sizes", "rgb_size", "audio_size"), 32),
    **dict.fromkeys(("cluster_size", "num_clusters", "n_clusters"), 16),
    **dict.fromkeys(("rgb_channels", "audio_channels", "concat_channels"), 24),
    **dict.fromkeys(("rank", "first_rgb"), 8),
    "capacity": 500,
    "repeats": 4,
}


def shrink(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a model with all widths cut."""
    if "width" in options:  # scales all widths; for short training, moving averages must adapt faster
        return {**options, "width": 0.02, "momentum": 0.9}
    result: dict[str, Any] = {}
    for key, value in options.items():
        if key == "feature_hidden_sizes":
            result[key] = {feature: [min(size, 16) for size in sizes] for feature, sizes in value.items()}
        elif isinstance(value, Mapping):
            result[key] = shrink(value)
        elif key in _WIDTHS and value is not None:
            limit = _WIDTHS[key]
            result[key] = [min(size, limit) for size in value] if isinstance(value, list | tuple) else min(value, limit)
        else:
            result[key] = value
    if "start_size" in options:  # halved `depth` times
        result["start_size"] = 8 * 2 ** options["depth"]
    return result
