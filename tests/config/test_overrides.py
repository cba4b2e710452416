"""Overrides change only the keys that they name."""

from __future__ import annotations

from typing import Any

import pytest

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.config.strict_yaml import apply_overrides, parse, to_dict
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import load_experiment
from yt8m_tf.pipelines.settings import load_pipeline


def _data(*overrides: str) -> DataConfig:
    return load_experiment("first_level/logistic.yaml", overrides).data


@pytest.mark.parametrize(
    ("overrides", "features"),
    [
        ((), {"rgb": 1024, "audio": 128}),
        (("data.features.audio=64",), {"rgb": 1024, "audio": 64}),
        (("data.features={audio: 64}",), {"audio": 64}),  # a whole mapping replaces the default
        (("data={features: {audio: 64}, num_classes: 60}",), {"audio": 64}),
        (("data.features.text=768",), {"rgb": 1024, "audio": 128, "text": 768}),
        (("data.features.audio=null",), {"rgb": 1024}),
        (("data.features.rgb=null", "data.features.clip=512"), {"audio": 128, "clip": 512}),
        (("data.features.rgb=null", "data.features.rgb=8"), {"rgb": 8, "audio": 128}),
    ],
)
def test_features_are_changed_one_by_one(overrides: tuple[str, ...], features: dict[str, int]) -> None:
    assert _data(*overrides).features == features


_LONG = "data.features.clip={size: 512, dtype: float16, range: [-2, 2]}"


@pytest.mark.parametrize(
    ("overrides", "features"),
    [
        ((_LONG,), {"rgb": 1024, "audio": 128, "clip": FeatureConfig(512, "float16", (-2.0, 2.0))}),
        (
            (_LONG, "data.features.clip=256"),
            {"rgb": 1024, "audio": 128, "clip": FeatureConfig(256, "float16", (-2.0, 2.0))},
        ),
        ((_LONG, "data.features.clip.range=null"), {"rgb": 1024, "audio": 128, "clip": FeatureConfig(512, "float16")}),
        ((_LONG, "data.features.clip=null"), {"rgb": 1024, "audio": 128}),
        (("data.features.rgb.dtype=float32",), {"rgb": FeatureConfig(1024, "float32"), "audio": 128}),
        (("data.features={clip: {size: 8}}",), {"clip": FeatureConfig(8)}),
    ],
)
def test_how_a_feature_is_stored_is_changed_key_by_key(overrides: tuple[str, ...], features: dict[str, Any]) -> None:
    data = _data(*overrides)
    assert data.features == features
    assert parse(DataConfig, to_dict(data), "data") == data


def test_other_mappings() -> None:
    assert _data("data.keys.rgb=a", "data.keys.audio=b", "data.keys.rgb=null").keys == {"audio": "b"}
    experiment = load_experiment("first_level/logistic.yaml", ["optimizer.clip_norm=null"])
    assert experiment.optimizer.clip_norm is None  # null is a value of this key
    baseline = "baselines.b={config: first_level/moe.yaml}"
    pipeline = load_pipeline("pipelines/demo.yaml", [baseline, "baselines.c={config: first_level/moe.yaml}"])
    assert {"b", "c"} <= set(pipeline.baselines)
    assert "b" not in load_pipeline("pipelines/demo.yaml", [baseline, "baselines.b=null"]).baselines


def test_removing_all_features_is_an_error() -> None:
    with pytest.raises(InputError, match="must name at least one feature"):
        _data("data.features.audio=null", "data.features.rgb=null")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("data.train=*.tfrecord", "--set='data.train=\"*.tfrecord\"'"),
        ("data.train=!x", "--set='data.train=\"!x\"'"),
        ("data.train=[a*, *b]", "and likewise each text in a list or mapping"),
    ],
)
def test_quotes_are_advised_for_text_that_yaml_interprets(override: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        _data(override)
    assert hint in str(error.value)
    assert _data('data.train="*.tfrecord"').train == ("*.tfrecord",)  # as the shell passes the first hint


def test_removing_a_missing_entry_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no 'audoi' to remove with null; known: rgb, audio; did you mean 'audio'"):
        apply_overrides(ExperimentConfig, {}, ["data.features.audoi=null"])
