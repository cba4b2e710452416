"""Completes stored configurations of earlier releases: a missing key means the behaviour before the key existed.

This module lists the new keys whose default changes the behaviour. A run of an earlier release can thus be resumed,
evaluated and exported as it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yt8m_tf.errors import InputError

_RANKING: Mapping[str, Any] = {"positive_above": 0.0}
# By section, and by the `name` in it to which the key applies.
_BEFORE: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "loss": {
        "soft_ranking": _RANKING,
        "soft_ranking_per_example": _RANKING,
        "sigmoid_ranking": _RANKING,
        "hinge_ranking": _RANKING,
        "lsep": _RANKING,
        "rank_weighted_bce": _RANKING,
        "bce_plus_soft_ranking": _RANKING,
        "bce_labels_tags": {"separate_means": False},
    },
    "model": {"transformer": {"biases": True}},
    "optimizer": {name: {"epsilon": 1e-7} for name in ("adam", "adamw", "rmsprop")},
}
_DEFAULT_NAMES = {"optimizer": "adam"}


def completed(values: Any) -> Any:
    """Returns a stored configuration with the earlier behaviour for keys that the release that wrote it did not have.

    Args:
      values: plain YAML values; malformed ones are left as they are, for `strict_yaml.parse` to reject.

    Raises:
      InputError: a stacking in one graph whose trees are stored as nodes, not as tables.
    """
    if not isinstance(values, Mapping):
        return values
    result = dict(values)
    for section, known in _BEFORE.items():
        own = values.get(section, {} if section in _DEFAULT_NAMES else None)
        if isinstance(own, Mapping):
            result[section] = _completed(own, known, _DEFAULT_NAMES.get(section))
    if isinstance(values.get("data"), Mapping):
        result["data"] = completed_data(values["data"])
    return result


def completed_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Does the same for only the `data` section."""
    return {"max_frame_difference": None, **data}


def _completed(own: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], default: str | None) -> dict[str, Any]:
    name = own.get("name", default)
    if isinstance(own.get("forest"), Mapping) and "nodes" in own["forest"]:
        raise InputError(
            "model.forest: trees in the form of an earlier release; make the run again with yt8m-ensemble --stack; its"
            " SavedModels can still be served"
        )
    result = {**known.get(name, {}), **own} if isinstance(name, str) else dict(own)
    members = own.get("members")  # of a weighted mean
    if isinstance(members, list):
        result["members"] = [_completed(m, known, None) if isinstance(m, Mapping) else m for m in members]
    return result
