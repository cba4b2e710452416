"""The lines that a run begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.models import build_model
from yt8m_tf.training.opening import opening_lines


def test_lines_name_device_model_data_and_directory(sample: Any, tmp_path: Path) -> None:
    data = DataConfig(features={"rgb": 24, "audio": 12}, num_classes=20)
    experiment = ExperimentConfig({"name": "logistic"}, data)
    train = sorted(str(path) for path in (sample.directory / "video").glob("train*"))
    model = build_model(experiment.model, data.spec)
    lines = opening_lines(experiment, model, tf.distribute.get_strategy(), train, ["gs://x/validate0"], tmp_path)
    assert lines[0].startswith("device: ")
    assert lines[1] == "model: logistic, 740 parameters, video level"  # (24 + 12 + 1) * 20
    assert lines[2].startswith("training: 3 shards, 1,536 videos, ") and "10,000 updates of 256" in lines[2]
    assert lines[3] == "validation: 1 shard"
    assert lines[4] == f"run: {tmp_path}"
