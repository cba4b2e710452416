"""The choice of strategy for a process, and errors in --devices and TF_CONFIG."""

from __future__ import annotations

import json
import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import distribution
from yt8m_tf.training.evaluation_step import EvaluationStep
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.mark.parametrize(
    ("devices", "missing"),
    [("gpu:7", "gpu:7"), ("cpu:0, tpu:0", "tpu:0"), ("cpu", "cpu"), ("cpu:0;cpu:1", "cpu:0;cpu:1")],
)
def test_devices_that_do_not_exist(devices: str, missing: str) -> None:
    with pytest.raises(InputError, match=f"--devices={devices}: this process has no '{missing}'; it has cpu:0, cpu:1"):
        distribution.make_strategy(devices)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{not json", "not a JSON object"), ("[1]", "not a JSON object"), ('"text"', "not a JSON object")],
)
def test_tf_config_that_is_not_a_json_object(content: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", content)
    with pytest.raises(InputError, match=f"TF_CONFIG: {message}") as caught:
        distribution.make_strategy()
    assert "\n" not in str(caught.value)


def test_a_cluster_that_does_not_connect_gives_a_one_line_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise tf.errors.DeadlineExceededError(None, None, "Deadline Exceeded\nin RegisterTask")

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", fail)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": _PAIR, "task": _FIRST}))
    with pytest.raises(InputError, match=r"its 2 processes did not connect \(Deadline Exceeded in RegisterTask\)"):
        distribution.make_strategy()
    assert "waiting for all 2 processes of TF_CONFIG; if one of them has ended" in capsys.readouterr().err


_PAIR = {"worker": ["a:1", "b:2"]}
_FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("cluster", "task", "message"),
    [
        (["a:1"], _FIRST, "cluster must contain the jobs chief and worker"),
        (_PAIR | {"ps": ["c:3"]}, _FIRST, "cluster must contain the jobs chief and worker, and no others"),
        ({"worker": "a:1"}, _FIRST, "cluster.worker must be a list of addresses"),
        ({"worker": []}, _FIRST, "cluster.worker must be a list of addresses"),
        ({"worker": ["a"]}, _FIRST, "'a' is not an address, HOST:PORT"),
        ({"worker": ["a:1", "a:1"]}, _FIRST, "'a:1' occurs twice"),
        (_PAIR, None, "task must say which process of the cluster this is"),
        (_PAIR, {"type": "worker"}, "task must say which process of the cluster this is"),
        (_PAIR, {"type": "chief", "index": 0}, "task.type 'chief' is not a job of the cluster: worker"),
        (_PAIR, {"type": "worker", "index": 2}, "task.index 2 is not one of 0 to 1"),
        (_PAIR, {"type": "worker", "index": "0"}, "task.index '0' is not one of 0 to 1"),
    ],
)
def test_tf_config_that_is_not_a_cluster(
    cluster: Any, task: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(InputError, match=f"environment variable TF_CONFIG: {re.escape(message)}.*; write {{"):
        distribution.make_strategy()


@pytest.mark.parametrize("content", ["", "{}", json.dumps({"cluster": {}})])
def test_tf_config_without_a_cluster_is_one_process(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", content)
    assert distribution.num_workers(distribution.make_strategy()) == 1


@pytest.mark.parametrize(
    ("devices", "replicas", "single"),
    [("", 1, True), ("cpu:1", 1, True), ("CPU:0, cpu:1", 2, False), ("cpu:0,", 1, True)],
)
def test_one_process(devices: str, replicas: int, single: bool) -> None:
    strategy = distribution.make_strategy(devices)
    assert distribution.local_replicas(strategy) == strategy.num_replicas_in_sync == replicas
    assert distribution.is_single(strategy) == single
    assert distribution.worker_index(strategy) == 0 and distribution.num_workers(strategy) == 1
    with strategy.scope():
        variable = tf.Variable(1.0)
    if devices == "cpu:1":
        assert variable.device.lower().endswith("cpu:1")


def test_replicas_get_the_parts_of_a_batch_in_order(
    two_replicas: tf.distribute.Strategy, rng: np.random.Generator
) -> None:
    frames = rng.integers(0, 256, (6, 3, 2), np.uint8)
    batch = {"rgb": tf.constant(frames), "num_frames": tf.range(6)}
    for name, values in distribution.share(two_replicas, batch).items():
        parts = two_replicas.experimental_local_results(values)
        np.testing.assert_array_equal(parts, np.split(batch[name].numpy(), 2), err_msg=name)
    assert distribution.share(tf.distribute.get_strategy(), batch) is batch


def test_one_process_gathers_only_its_own_arrays() -> None:
    arrays = {"x": np.arange(3), "y": np.zeros((0, 2))}
    gathered = distribution.gather(distribution.make_strategy("cpu:0,cpu:1"), arrays)
    assert gathered.keys() == arrays.keys()
    np.testing.assert_array_equal(gathered["x"], arrays["x"])


def test_recurrent_models_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def builds_what_compiles(**options: Any) -> bool:
        return distribution.compiles_with_xla(build_model(options, InputSpec("frame", {"rgb": 4}, 3, 5)))

    recurrent: dict[str, Any] = {"name": "early_concat_rnn", "num_layers": 1, "hidden_size": 2, "hidden_sizes": [2]}
    assert not builds_what_compiles(**recurrent)
    gpu = tf.config.LogicalDevice("/device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: [gpu])
    assert not builds_what_compiles(**recurrent)
    assert not builds_what_compiles(**recurrent | {"cell": "gru"})
    assert builds_what_compiles(name="mean_fcn", hidden_sizes=[2])


class _Host(keras.layers.Layer):
    """A layer that runs Python code, which XLA cannot compile, and declares it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = False

    def call(self, x: Any) -> Any:
        return tf.ensure_shape(tf.grad_pass_through(lambda y: tf.numpy_function(np.copy, [y], y.dtype))(x), x.shape)


def test_steps_do_not_use_xla_for_a_layer_that_forbids_it() -> None:
    values = {"model": {"name": "logistic"}, "data": {"features": {"rgb": 4}, "num_classes": 3}}
    experiment = parse_experiment(values)
    inputs = {"rgb": keras.Input((4,), name="rgb")}
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(_Host(name="host")(inputs["rgb"])))
    state, strategy = TrainState(model, experiment), distribution.make_strategy()
    batch = {"rgb": tf.ones([2, 4]), "labels": tf.constant([[0], [2]])}
    before = model.get_layer("logits").kernel.numpy()
    assert np.isfinite(TrainStep(state, experiment, strategy, xla=True).train([batch], 0, [0.1])["loss"])
    assert np.abs(model.get_layer("logits").kernel.numpy() - before).max() > 0.01
    statistics = EvaluationStep(state, experiment.data.spec, strategy, xla=True)(batch | {"valid": tf.ones([2], bool)})
    assert all(np.isfinite(value).all() for value in statistics.values())
