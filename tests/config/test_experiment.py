"""The configuration of a run: values out of range, overrides, and the round trip through YAML."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import yaml

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from yt8m_tf.config.strict_yaml import parse, to_dict
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import load_experiment, parse_experiment


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"batch_size": 10, "accumulation": 3}}, r"10 is not a multiple of train\.accumulation 3"),
        ({"train": {"ema_decay": 1}}, "between 0 and 1, got 1.0"),
        ({"train": {"mixup_alpha": -0.1}}, "must not be negative, got -0.1"),
        ({"train": {"target_reweighting": -1}}, r"train\.target_reweighting must not be negative, got -1"),
        ({"loss": "bce"}, "'loss': 'bce' is not a mapping"),
        ({"loss": {"name": "rank"}}, r"'loss\.name': 'rank' is not one of bce, mse, soft_ranking"),
        ({"loss": {"negatives": 0}}, "'loss': negatives must be positive, got 0"),
        ({"loss": {"name": "bce_labels_tags"}}, r"weighs tags, and data\.verticals is 0; set it, or use bce"),
        ({"optimizer": {"rho": 1}}, r"rho must lie in \[0, 1\), got 1"),
        ({"train": {"validation_examples": 0}}, "validation_examples must be positive, got 0"),
        ({"optimizer": {"clip_norm": 0}}, "clip_norm must be positive"),
        ({"optimizer": {"learning_rate": ".inf"}}, r"optimizer\.learning_rate': '\.inf' is not a number"),
        ({"model": {"name": "resnetlike"}}, "unknown model 'resnetlike'; did you mean 'resnet_like'?"),
        ({"model": {"name": "resnet_like", "inner_sise": 4}}, r"'model\.inner_sise'; did you mean 'model\.inner_size'"),
        ({"model": {}}, r"'model\.name' is missing"),
    ],
)
def test_an_experiment_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_experiment({"model": {"name": "logistic"}} | values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate", "write it as key=value"),
        ("optimizer.learning_rate=[", "the value is not YAML"),
        ("optimizer.learning_rat=3", r"unknown key 'optimizer\.learning_rat'; did you mean"),
        ("optimizer.learning_rate.x=3", r"'optimizer\.learning_rate': \{'x': 3\} is not a number"),
        ("=3", "unknown key ''"),
        ("model.name=[1]", r"'model\.name': \[1\] is not a name; give one of "),
        ("model.name={a: 1}", r"'model\.name': \{'a': 1\} is not a name"),
        ("model.name=null", r"'model\.name': None is not a name"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_experiment("first_level/logistic.yaml", [override])
    assert "\n" not in str(caught.value)


def test_overrides_reach_the_experiment() -> None:
    overrides = ["optimizer.learning_rate=3e-5", "data.train=a*", "data.features={rgb: 1024}", "train.ema_decay=.9"]
    experiment = load_experiment("first_level/logistic.yaml", overrides)
    assert experiment.optimizer.learning_rate == 3e-5
    assert experiment.data.train == ("a*",) and experiment.data.features == {"rgb": 1024}
    assert experiment.train.ema_decay == 0.9


def _random_experiment(rng: np.random.Generator) -> ExperimentConfig:
    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.5 else None

    def number() -> float:
        return float(10.0 ** rng.uniform(-12, 3))

    features = {name: int(rng.integers(1, 2000)) for name in ("rgb", "audio", "extra")[: rng.integers(1, 4)]}
    accumulation = int(rng.integers(1, 5))
    return ExperimentConfig(
        model={"name": "logistic"},
        data=DataConfig(
            level=str(rng.choice(["video", "frame"])),  # type: ignore[arg-type]
            train=tuple(f"t{i}*" for i in range(rng.integers(1, 4))),
            features=features,
            keys={"rgb": "inc3"} if rng.random() < 0.5 else {},
            frame_lengths=tuple(int(length) for length in rng.integers(1, 300, rng.integers(0, 3))),
            shuffle_records=maybe(int(rng.integers(0, 1000))),
            split=str(rng.choice(["shard", "record"])),  # type: ignore[arg-type]
        ),
        optimizer=OptimizerConfig(learning_rate=number(), epsilon=number(), clip_norm=maybe(number())),
        schedule=ScheduleConfig(name="cosine", factor=float(rng.random()), threshold=number()),
        train=TrainConfig(
            batch_size=accumulation * int(rng.integers(1, 9)),
            accumulation=accumulation,
            ema_decay=maybe(float(rng.uniform(0.01, 0.99))),
            early_stopping_patience=maybe(int(rng.integers(0, 9))),
            sync_batch_norm=bool(rng.integers(2)),
            seed=int(rng.integers(2**62)),
        ),
    )


def test_round_trip_through_yaml(rng: np.random.Generator) -> None:
    for _ in range(50):
        experiment = _random_experiment(rng)
        assert parse(ExperimentConfig, to_dict(experiment), "") == experiment
        text = yaml.safe_dump(to_dict(experiment), sort_keys=False)
        resolved = parse_experiment(yaml.safe_load(text))
        assert dataclasses.replace(resolved, model=experiment.model) == experiment
        assert parse_experiment(to_dict(resolved)) == resolved
