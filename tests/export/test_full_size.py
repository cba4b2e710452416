"""The final network at its published size, 247 million weights, exported by the command in each precision."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from yt8m_tf import models
from yt8m_tf.config import configurations
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"float16": 500_000_000, "cluster": 270_000_000}


@pytest.mark.slow
def test_the_final_network_within_its_limits(real_data_dir, tmp_path):
    values = configurations.load_yaml("second_level/final_network.yaml")
    shards = ["validate/validate012*.tfrecord"]
    experiment = parse_experiment({"model": values["model"], "data": {"validation": shards}})
    model = models.build_model(experiment.model, experiment.data.spec)
    float32_bytes = sum(4 * int(np.prod(variable.shape)) for variable in model.weights)
    assert float32_bytes > 980_000_000
    checkpoints.save_run(tmp_path / "run", experiment, {variable.path: variable for variable in model.weights})
    del model
    for precision, limit in LIMITS.items():
        flags = {"workdir": "run", "output": precision, "precision": precision, "measure_examples": 1024}
        flags |= {"data_dir": real_data_dir / "yt8m_2018", "size_limit": limit}
        line = [sys.executable, "-m", "yt8m_tf.bin.export", *(f"--{name}={value}" for name, value in flags.items())]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / precision / "assets.extra" / "export_report.json").read_text())
        assert report["size"]["total_bytes"] < limit
        assert report["peak_bytes"] < 2.5 * float32_bytes
        assert set(report["videos_per_second"]) == {"1", "64", "1024"}
        assert 0 < report["metrics"]["max_difference"] < 0.01
