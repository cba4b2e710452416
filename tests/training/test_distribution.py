"""Which strategy a process gets, and what is wrong with --devices and TF_CONFIG."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.training import distribution


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.mark.parametrize(
    ("devices", "missing"),
    [("gpu:7", "gpu:7"), ("cpu:0, tpu:0", "tpu:0"), ("cpu", "cpu"), ("cpu:0;cpu:1", "cpu:0;cpu:1")],
)
def test_devices_that_are_not_there(devices: str, missing: str) -> None:
    with pytest.raises(InputError, match=f"--devices={devices}: this process has no '{missing}'; it has cpu:0, cpu:1"):
        distribution.make_strategy(devices)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{not json", "not a JSON object"), ("[1]", "not a JSON object"), ('"text"', "not a JSON object")],
)
def test_tf_config_that_is_no_json_object(content: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", content)
    with pytest.raises(InputError, match=f"TF_CONFIG: {message}") as caught:
        distribution.make_strategy()
    assert "\n" not in str(caught.value)


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


def test_one_process_gathers_its_own() -> None:
    arrays = {"x": np.arange(3), "y": np.zeros((0, 2))}
    gathered = distribution.gather(distribution.make_strategy("cpu:0,cpu:1"), arrays)
    assert gathered.keys() == arrays.keys()
    np.testing.assert_array_equal(gathered["x"], arrays["x"])
