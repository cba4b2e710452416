"""The contract of every registered model beyond a forward pass: equal on two replicas, and unchanged by export."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_contract import (
    FEATURES,
    MAX_FRAMES,
    build,
    exported_first,
    num_outputs,
    randomise,
    replicated_first,
    without_randomness,
)

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig, TrainConfig
from yt8m_tf.data import clips
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.models import build_without_weights
from yt8m_tf.training import optimizers
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep

BATCH_SIZE, NUM_STEPS, LEARNING_RATE = 8, 3, 1.0


def data_config(name, level):
    return DataConfig(level=level, features=FEATURES, num_classes=num_outputs(name), max_frames=MAX_FRAMES)


def random_batch(level, rng, batch_size=BATCH_SIZE):
    """Features as stored in records; the clips have from 1 frame to all frames."""
    if level == "video":
        return {key: rng.normal(size=(batch_size, size)).astype("float32") for key, size in FEATURES.items()}
    shape = (batch_size, MAX_FRAMES)
    codes = {key: rng.integers(0, 256, (*shape, size), "uint8") for key, size in FEATURES.items()}
    lengths = rng.permuted(np.resize([1, MAX_FRAMES, 4, 6], batch_size)).astype("int32")
    return codes | {"num_frames": lengths}


def train(name, level, strategy, batches):
    """Trains for a few steps; returns all variables of the run, and the largest change of any weight."""
    experiment = ExperimentConfig(
        model={},
        data=data_config(name, level),
        train=TrainConfig(batch_size=BATCH_SIZE, sync_batch_norm=True),
    )
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = build(name, level, options=without_randomness(name, level))
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
        state = TrainState(model, experiment)
    start = [tf.convert_to_tensor(value).numpy() for value in state.trainable]
    step = TrainStep(state, experiment, strategy, xla=False)
    for number, batch in enumerate(batches):
        step.train([share(batch, strategy)], number, [LEARNING_RATE])
    ends = [tf.convert_to_tensor(value).numpy() for value in state.trainable]
    way = max(np.abs(end - begin).max() for end, begin in zip(ends, start, strict=True))
    return {path: tf.convert_to_tensor(value).numpy() for path, value in state.named().items()}, way


def share(batch, strategy):
    """The parts of a batch, one for each replica."""
    replicas = strategy.num_replicas_in_sync

    def values(whole):
        if replicas == 1:
            return tf.constant(whole)
        parts = np.split(whole, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    return {key: values(whole) for key, whole in batch.items()}


@pytest.fixture
def plain_descent(monkeypatch):
    """Replaces Adam by plain gradient descent: Adam would amplify rounding errors of zero gradients to full steps, and
    would hide a gradient that is twice too large."""
    monkeypatch.setattr(
        optimizers, "update", lambda _, variable, gradient, slots, count, rate: (variable - rate * gradient, *slots)
    )


@replicated_first
@pytest.mark.usefixtures("plain_descent", "graphs_as_traced")
def test_two_replicas_equal_one(name, level, rng, two_replicas):
    labels = [{"labels": rng.integers(-1, num_outputs(name), (BATCH_SIZE, 3), "int32")} for _ in range(NUM_STEPS)]
    batches = [random_batch(level, rng) | own for own in labels]
    one, way = train(name, level, tf.distribute.get_strategy(), batches)
    two, _ = train(name, level, two_replicas, batches)
    assert way > 1e-3 and one.keys() == two.keys()
    for path, value in one.items():
        np.testing.assert_allclose(two[path], value, rtol=1e-5, atol=1e-5, err_msg=path)


@exported_first
@pytest.mark.usefixtures("graphs_as_traced")
def test_saved_model_round_trip(name, level, rng, tmp_path):
    model, data = build(name, level), data_config(name, level)
    randomise(model, rng)
    batch = {key: tf.constant(value) for key, value in random_batch(level, rng).items()}
    values = {variable.path: variable.numpy() for variable in model.weights}
    bare = build(name, level, make=build_without_weights)  # as in yt8m-export
    export_saved_model(bare, data, tmp_path / "1", precision=FLOAT32, read=lambda variable: values[variable.path])
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["features"]
    predictions = signature(**batch)["predictions"]
    expected = tf.sigmoid(model(clips.decode_features(batch, data.spec), training=False)).numpy()
    assert np.ptp(expected) > 1e-2
    np.testing.assert_allclose(predictions, expected, rtol=1e-5, atol=1e-5)
