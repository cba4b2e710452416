import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf import models, run_dir
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.records import parse_records
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32, parse_precision
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.export.trained import export_trained
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.serving.inference import infer
from yt8m_tf.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trained(rng, tmp_path, learnable_shards):
    """The run directory of a finished training with a moving average of the weights, and its data directory."""
    data_dir = learnable_shards("video", train=1, validate=2, each=40, classes=24)
    values = {
        "model": {"name": "resnet_like", "inner_size": 64, "av_blocks": 0, "concat_blocks": 0},
        "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 24},
        "train": {"ema_decay": 0.9},
    }
    experiment = parse_experiment(values)
    run_dir.prepare(tmp_path / "run", experiment)
    model = models.build_model(experiment.model, experiment.data.spec)
    weights = [variable for variable in model.variables if variable.name != "seed_generator_state"]
    for variable in weights:
        values = rng.normal(0.0, 1 / np.sqrt(variable.shape[0]), variable.shape)
        variable.assign(np.abs(values) + 0.5 if variable.name == "moving_variance" else values)
    state = {"ema/" + v.path: v.value for v in weights}
    state |= {"model/" + v.path: tf.zeros(v.shape) for v in weights}
    state |= {f"slots/{name}/{v.path}": tf.zeros(v.shape) for v in weights for name in ("momentum", "velocity")}
    checkpoints.save(tmp_path / "run", 10, state, {"best_step": 10})
    return tmp_path / "run", data_dir, model


@pytest.mark.end_to_end
def test_average_weights_are_exported_measured_and_described(trained, tmp_path):
    workdir, data_dir, model = trained
    report = export_trained(workdir, tmp_path / "model" / "1", data_dir=str(data_dir))

    assert report.comparison.num_videos == 80
    assert 0 < report.comparison.gap < 1
    assert 0 < report.comparison.max_difference < 1e-3
    (line,) = [line for line in report.stripped if line.startswith("checkpoint variables in all")]
    checkpoint = int(line.split()[-2].replace(",", ""))
    assert checkpoint == 4 * 4 * sum(int(np.prod(v.shape)) for v in model.variables if "seed" not in v.name)

    inputs = {"rgb": np.ones((1, 8), np.float32), "audio": np.ones((1, 4), np.float32)}
    served = tf.saved_model.load(str(tmp_path / "model" / "1")).signatures["features"](**inputs)["predictions"]
    np.testing.assert_allclose(served, tf.sigmoid(model(inputs, training=False)), atol=1e-3)
    metadata = json.loads((tmp_path / "model" / "1" / "assets" / "metadata.json").read_text())
    assert metadata["model"]["name"] == "resnet_like"
    assert metadata["metrics"]["gap"] == report.comparison.gap
    written = json.loads((tmp_path / "model" / "1" / "assets.extra" / "export_report.json").read_text())
    assert written["metrics"] == metadata["metrics"] and list(written["videos_per_second"]) == ["1", "64", "1024"]
    assert written["size"]["total_bytes"] == _bytes(tmp_path / "model" / "1")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["1"]


@pytest.mark.slow
def test_measuring_fewer_examples_and_failing_the_tolerance(trained, tmp_path):
    workdir, data_dir, _ = trained
    report = export_trained(workdir, tmp_path / "m", data_dir=str(data_dir), measure_examples=33, precision=FLOAT32)
    assert report.comparison.num_videos == 33
    with pytest.raises(InputError, match="--tolerance=-1"):
        export_trained(workdir, tmp_path / "n", data_dir=str(data_dir), tolerance=-1.0)
    assert not (tmp_path / "n").exists()


def _bytes(directory):
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@pytest.mark.end_to_end
def test_clusters_by_rule(trained, tmp_path):
    workdir, data_dir, _ = trained
    report = export_trained(
        workdir, tmp_path / "m", data_dir=str(data_dir), precision=parse_precision("logits/*:cluster@8,*:float16")
    )
    assert 0 < report.comparison.max_difference < 0.02
    dtypes = tf.train.load_checkpoint(str(tmp_path / "m" / "variables" / "variables")).get_variable_to_dtype_map()
    indices = [key for key, dtype in dtypes.items() if dtype == tf.uint8]
    assert ["logits.Skernel" in key for key in indices] == [True]
    with pytest.raises(InputError, match=r"no variable's path fits 'logit/\*'; the model's layers are: .*logits"):
        export_trained(workdir, tmp_path / "n", data_dir=str(data_dir), precision=parse_precision("logit/*:cluster"))


def command(name, cwd, **flags):
    arguments = [f"--{flag}={value}" for flag, value in flags.items()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", f"yt8m_tf.bin.{name}", *arguments]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow  # tests/bin runs the same commands, one process each
def test_commands(trained, tmp_path):
    workdir, data_dir, _ = trained
    done = command("export", tmp_path, workdir=workdir, output="model", data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    assert "GAP@20" in done.stdout

    done = command("infer", tmp_path, saved_model="model", input=f"{data_dir}/validate*.tfrecord", output="out.csv")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["VideoId", "LabelConfidencePairs"]
    assert [row[0] for row in rows[1:]] == [f"v{shard}{i:03d}" for shard in range(2) for i in range(40)]

    again = command("export", tmp_path, workdir=workdir, output="model", data_dir=data_dir)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "error: --output=model: contains a SavedModel already" in again.stderr


@pytest.mark.end_to_end
def test_real_records_score_as_the_model_does(rng, real_data_dir, tmp_path):
    shard = sorted((real_data_dir / "yt8m_2018" / "validate").glob("*.tfrecord"))[0]
    data = DataConfig()
    model = models.build_model({"name": "resnet_like", "inner_size": 256}, data.spec)
    model.get_layer("logits").kernel.assign(rng.normal(size=model.get_layer("logits").kernel.shape) * 0.5)
    for precision, close in (("float32", 1e-6), ("float16", 1e-3)):
        export_saved_model(model, data, tmp_path / precision, precision=parse_precision(precision))
        infer(str(tmp_path / precision), [str(shard)], tmp_path / "out.csv", progress=False)
        (serialized,) = tf.data.TFRecordDataset(str(shard)).batch(10_000)
        parsed = parse_records(serialized, data.records)
        ids = parsed.pop("id").numpy()
        scores = tf.sigmoid(model(parsed, training=False)).numpy()
        with open(tmp_path / "out.csv", newline="") as file:
            rows = dict(list(csv.reader(file))[1:])
        assert list(rows) == [video_id.decode() for video_id in ids]
        for row, expected in zip(rows.values(), scores, strict=True):
            numbers = row.split(" ")
            found = np.array(numbers[1::2], np.float64)
            np.testing.assert_allclose(found, expected[np.array(numbers[::2], int)], atol=close, rtol=0)
