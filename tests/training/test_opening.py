"""The lines printed when a run starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import run_dir
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.models import build_model
from yt8m_tf.training.opening import opening_facts
from yt8m_tf.training.sessions import Session


def test_lines_name_device_model_data_and_directory(sample: Any, tmp_path: Path) -> None:
    data = DataConfig(features={"rgb": 24, "audio": 12}, num_classes=20)
    experiment = ExperimentConfig({"name": "logistic"}, data)
    train = sorted(str(path) for path in (sample.directory / "video").glob("train*"))
    model = build_model(experiment.model, data.spec)
    facts = opening_facts(experiment, model, tf.distribute.get_strategy(), train, ["gs://x/validate0"])
    assert list(facts) == ["device", "model", "training", "validation"]
    assert facts["model"] == "logistic, 740 parameters, video level"  # (24 + 12 + 1) * 20
    assert facts["training"].startswith("3 shards, 1,536 videos, ") and "10,000 updates of 256" in facts["training"]
    assert facts["validation"] == "1 shard"


def test_sessions_are_kept_separately(tmp_path: Path) -> None:
    first = Session(tmp_path, 0, {"device": "CPU"})
    first.update(30)
    second = Session(tmp_path, 30, {"device": "GPU"})
    assert [entry["device"] for entry in run_dir.read_sessions(tmp_path)] == ["CPU", "GPU"]
    second.update(50)
    one, two = run_dir.read_sessions(tmp_path)
    assert (one["first_step"], one["step"], two["first_step"], two["step"]) == (0, 30, 30, 50)
    assert two["seconds"] >= 0 and one["started"] <= two["started"] and one["started"].endswith("+00:00")
    assert one["versions"]["tensorflow"] == tf.__version__
