"""The meaning of missing keys in a stored configuration, as opposed to a new one."""

from __future__ import annotations

from typing import Any

import pytest

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.stored import completed
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment

_TAGS = {"data": {"verticals": 25}}


def test_trees_of_an_earlier_release() -> None:
    old = {"name": "stack", "forest": {"boosters": 2, "nodes": 610, "columns": 5, "active": [10, 4], "trees": 10}}
    for model in (old, {"name": "weighted_mean", "members": [{"name": "logistic"}, old]}):
        with pytest.raises(InputError, match=r"model\.forest: trees in the form of an earlier release; .* --stack"):
            completed({"model": model})


@pytest.mark.parametrize(
    ("values", "key", "before", "now"),
    [
        ({"model": {"name": "transformer"}, "data": {"level": "frame"}}, "model.biases", True, False),
        ({"optimizer": {"name": "adamw"}}, "optimizer.epsilon", 1e-7, 1e-8),
        ({"optimizer": {}}, "optimizer.epsilon", 1e-7, 1e-8),
        ({}, "optimizer.epsilon", 1e-7, 1e-8),
        ({"loss": {"name": "soft_ranking"}}, "loss.positive_above", 0.0, 0.5),
        ({"loss": {"name": "rank_weighted_bce"}}, "loss.positive_above", 0.0, 0.5),
        ({"loss": {"name": "bce_labels_tags"}} | _TAGS, "loss.separate_means", False, True),
        ({"data": {"level": "frame"}}, "data.max_frame_difference", None, 1),
        ({"loss": {"name": "bce"}}, "loss.positive_above", 0.5, 0.5),  # no release uses the key
    ],
)
def test_a_missing_key(values: dict[str, Any], key: str, before: Any, now: Any) -> None:
    values = {"model": {"name": "logistic"}} | values
    section, _, name = key.partition(".")
    for given, expected in ((completed(values), before), (values, now)):
        assert strict_yaml.to_dict(parse_experiment(given))[section][name] == expected


def test_existing_keys_are_kept() -> None:
    values = {
        "model": {"name": "transformer", "biases": False},
        "loss": {"name": "lsep", "positive_above": 0.25},
        "optimizer": {"name": "rmsprop", "epsilon": 1e-3},
        "data": {"max_frame_difference": 3},
    }
    assert completed(values) == values


def test_members_of_a_mean_are_completed_too() -> None:
    transformer = {"name": "transformer", "num_heads": 2}
    mean = {"name": "weighted_mean", "members": [{"name": "logistic"}, transformer]}
    found = completed({"model": {"name": "weighted_mean", "members": [mean, transformer]}})["model"]
    old = transformer | {"biases": True}
    assert found["members"] == [mean | {"members": [{"name": "logistic"}, old]}, old]


@pytest.mark.parametrize("values", [[], None, 3, {"model": [1], "loss": {"name": []}}, {"model": {"members": [3]}}])
def test_values_of_another_form_are_left_to_the_parser(values: Any) -> None:
    found = completed(values)
    assert found == values or {k: v for k, v in found.items() if k != "optimizer"} == values
