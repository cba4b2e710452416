"""Training steps: each replica draws its own random numbers; float16 steps that overflow are skipped without effect."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig, TrainConfig
from yt8m_tf.metrics.batch_statistics import batch_statistics
from yt8m_tf.training.evaluation_step import EvaluationStep
from yt8m_tf.training.loop import build_for_training
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep

_SIZE, _CLASSES = 4, 3


def _experiment(accumulation: int) -> ExperimentConfig:
    return ExperimentConfig(
        model={"name": "resnet_like", "inner_size": 4, "av_blocks": 0, "concat_blocks": 0, "dropout": 0.0},
        data=DataConfig(features={"rgb": _SIZE}, num_classes=_CLASSES),
        train=TrainConfig(batch_size=8, accumulation=accumulation, ema_decay=0.9, precision="mixed_float16"),
    )


def _batch(strategy: Any, rng: np.random.Generator, scale: float = 1.0) -> Any:
    """Four videos for each replica; a scale above 1e5 overflows."""

    def values(_: Any) -> dict[str, tf.Tensor]:
        labels = tf.constant(rng.integers(-1, _CLASSES, (4, 2)), tf.int32)
        return {"rgb": tf.constant(scale * rng.normal(size=(4, _SIZE)), tf.float32), "labels": labels}

    if strategy.num_replicas_in_sync == 1:
        return values(None)
    parts = [values(None) for _ in range(strategy.num_replicas_in_sync)]
    return {
        name: strategy.experimental_distribute_values_from_function(
            lambda context, name=name: parts[context.replica_id_in_sync_group][name]
        )
        for name in parts[0]
    }


def _values(state: TrainState) -> dict[str, np.ndarray]:
    named = {name: tf.convert_to_tensor(value).numpy() for name, value in state.named().items()}
    return {name: value for name, value in named.items() if not name.startswith("loss_scale/")}


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_skipped_step_changes_nothing(
    replicas: int, accumulation: int, rng: np.random.Generator, request: pytest.FixtureRequest
) -> None:
    strategy = request.getfixturevalue("two_replicas") if replicas == 2 else tf.distribute.get_strategy()
    experiment = _experiment(accumulation)
    with strategy.scope():
        keras.utils.set_random_seed(1)
        state = TrainState(build_for_training(experiment), experiment)
        assert state.loss_scale is not None
        state.loss_scale[0].assign(1.0)
    step = TrainStep(state, experiment, strategy, xla=False)

    def train(*scales: float) -> int:
        return int(step.train([_batch(strategy, rng, scale) for scale in scales], 0, [0.1])["skipped"])

    good = (1.0,) * accumulation
    start = _values(state)
    assert train(*good) == 0
    before = _values(state)
    assert any("moving_variance" in name and (start[name] != before[name]).any() for name in before)
    for count in (1, 2):
        assert train(*good[1:], 1e30) == count  # only the last part overflows
        after = _values(state)
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert train(*good) == 0
    after = _values(state)
    assert all(np.isfinite(value).all() for value in after.values())
    assert (before["model/logits/kernel"] != after["model/logits/kernel"]).any()


def test_only_skips_at_the_lowest_scale_are_counted(rng: np.random.Generator) -> None:
    """Earlier skips are part of the search for a scale that fits, and are not counted."""
    experiment, strategy = _experiment(1), tf.distribute.get_strategy()
    state = TrainState(build_for_training(experiment), experiment)
    assert state.loss_scale is not None
    state.loss_scale[0].assign(4.0)
    step = TrainStep(state, experiment, strategy, xla=False)
    found = [int(step.train([_batch(strategy, rng, 1e30)], 0, [0.1])["skipped"]) for _ in range(4)]
    assert found == [0, 0, 1, 2] and float(state.loss_scale[0]) == 1.0


@pytest.mark.end_to_end
def test_replicas_draw_different_dropout(rng: np.random.Generator, two_replicas: tf.distribute.Strategy) -> None:
    """Both replicas get the same videos: with equal dropout masks, their mean gradient would be that of one replica."""
    batch = {"rgb": tf.constant(rng.normal(size=(4, _SIZE)), tf.float32), "labels": tf.constant([[0], [1], [2], [0]])}

    def trained(strategy: tf.distribute.Strategy, dropout: float) -> np.ndarray:
        model = {"name": "resnet_like", "inner_size": 8, "av_blocks": 0, "concat_blocks": 0, "dropout": dropout}
        experiment = dataclasses.replace(_experiment(1), model=model, train=TrainConfig(batch_size=8))
        with strategy.scope():
            keras.utils.set_random_seed(1)
            state = TrainState(build_for_training(experiment), experiment)
        step = TrainStep(state, experiment, strategy, xla=False)
        single = strategy.num_replicas_in_sync == 1
        step.train(
            [batch if single else strategy.experimental_distribute_values_from_function(lambda _: batch)], 0, [0.1]
        )
        return _values(state)["model/rgb_fc_dense/kernel"]

    one = tf.distribute.get_strategy()
    np.testing.assert_allclose(trained(two_replicas, 0.0), trained(one, 0.0), rtol=0, atol=1e-5)
    assert np.abs(trained(two_replicas, 0.5) - trained(one, 0.5)).max() > 1e-3


def test_evaluation_uses_the_averages(rng: np.random.Generator) -> None:
    experiment = dataclasses.replace(_experiment(1), train=TrainConfig(ema_decay=0.9))
    state = TrainState(build_for_training(experiment), experiment)
    named = state.named()
    for name, variable in named.items():
        if name.startswith("ema/"):
            variable.assign(rng.normal(size=variable.shape))
    strategy, features = tf.distribute.get_strategy(), {"rgb": tf.constant(rng.normal(size=(6, _SIZE)), tf.float32)}
    step = EvaluationStep(state, experiment.data.spec, strategy, xla=False)
    labels, valid = tf.constant([[0], [1], [2], [0], [1], [2]]), tf.ones([6], tf.bool)
    found = step({**features, "labels": labels, "valid": valid})
    for variable in state.model.trainable_variables:
        variable.assign(named[f"ema/{variable.path}"])
    expected = batch_statistics(state.model(features, training=False), labels, valid)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value.numpy(), rtol=1e-5, err_msg=name)
