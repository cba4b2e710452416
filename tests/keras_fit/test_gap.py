"""GAP@20 as a Keras metric, against the accumulator, and by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.keras_fit.gap import GlobalAveragePrecision
from yt8m_tf.metrics.accumulator import MetricAccumulator, global_average_precision
from yt8m_tf.metrics.batch_statistics import batch_statistics


def _videos(rng: np.random.Generator, count: int, classes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Logits with ties, and targets that depend on some of them."""
    logits = np.round(rng.normal(size=(count, classes)), 1).astype(np.float32)
    targets = (rng.random((count, classes)) < 0.02 + 0.2 * (logits > 1.5)).astype(np.float32)
    return logits, targets


def _of_accumulator(logits: np.ndarray, targets: np.ndarray) -> float:
    accumulator = MetricAccumulator(logits.shape[1])
    labels = np.where(targets > 0.5, np.arange(targets.shape[1]), -1).astype(np.int32)
    statistics = batch_statistics(tf.constant(logits), tf.constant(labels), tf.ones(len(logits), tf.bool))
    accumulator.update({name: value.numpy() for name, value in statistics.items()})
    return accumulator.result().gap


@pytest.mark.parametrize("in_graph", [False, True])
def test_any_batch_size_gives_the_accumulators_gap(in_graph: bool, rng: np.random.Generator) -> None:
    logits, targets = _videos(rng, 300)
    metric = GlobalAveragePrecision()
    update = tf.function(metric.update_state, reduce_retracing=True) if in_graph else metric.update_state
    expected = _of_accumulator(logits, targets)
    for sizes in ([300], [1, 2, 297], [7] * 42 + [6]):
        metric.reset_state()
        for part in np.split(np.arange(300), np.cumsum(sizes)[:-1]):
            update(targets[part], logits[part])
        assert abs(float(metric.result()) - expected) < 1e-6
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    other = GlobalAveragePrecision(from_logits=False)
    other.update_state(targets, probabilities)
    assert abs(float(other.result()) - expected) < 1e-6


def test_memory_of_a_video(rng: np.random.Generator) -> None:
    metric = GlobalAveragePrecision()
    logits, targets = _videos(rng, 500)
    for _ in range(40):
        metric.update_state(targets, logits)
    own = metric._accumulator
    assert own is not None and own.num_videos == 20_000
    held = sum(value.nbytes for value in vars(own).values() if isinstance(value, np.ndarray))
    assert 80 < held / own.num_videos <= 200


def test_fit_and_evaluate_log_the_exact_value(rng: np.random.Generator) -> None:
    features = rng.normal(size=(200, 8)).astype(np.float32)
    targets = (features @ rng.normal(size=(8, 30)) > 3).astype(np.float32)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(30)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=[GlobalAveragePrecision()], jit_compile=False)
    history = model.fit(features, targets, batch_size=32, epochs=1, verbose=0, validation_data=(features, targets))
    logits = model.predict(features, verbose=0)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :20]
    scores = np.take_along_axis(1 / (1 + np.exp(-logits)), best, 1)
    hits = np.take_along_axis(targets, best, 1) > 0
    expected = global_average_precision(scores, hits, int(targets.sum()))
    assert abs(history.history["val_gap_at_20"][0] - expected) < 1e-6
    assert 0 < history.history["gap_at_20"][0] < 1


def test_the_shown_value_is_computed_again_after_a_tenth_more_videos() -> None:
    metric = GlobalAveragePrecision(from_logits=False)
    result = tf.function(metric.result)
    assert np.isnan(result())
    metric.update_state(np.eye(2, 3)[:1].repeat(20, 0), np.array([[0.9, 0.1, 0.2]] * 20))
    assert float(result()) == 1.0
    metric.update_state(np.array([[0, 0, 1]]), np.array([[0.95, 0.1, 0.2]]))
    assert float(result()) == 1.0 and float(metric.result()) < 1.0
    metric.update_state(np.array([[0, 0, 1]] * 2), np.array([[0.95, 0.1, 0.2]] * 2))
    assert float(result()) == float(metric.result()) < 1.0


def test_refuses_weights_and_nan_and_can_be_rebuilt_from_its_configuration() -> None:
    metric = GlobalAveragePrecision(name="g", from_logits=False)
    assert np.isnan(metric.result())
    with pytest.raises(ValueError, match="leave sample_weight out"):
        metric.update_state(np.ones((1, 2)), np.ones((1, 2)), sample_weight=np.ones(1))
    with pytest.raises(InputError, match="number 2: its scores are NaN"):
        metric.update_state(np.ones((2, 2)), np.array([[0.5, 0.5], [np.nan, 0.5]]))
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
