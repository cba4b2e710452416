"""Models of other kinds of features: trained, evaluated, exported, served and scored like those of YouTube-8M."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import feature_kinds
import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_options import OPTIONS

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.data.clips import model_inputs
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.integrity import good_records
from yt8m_tf.data.records import parse_records
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.export.lite import LITE_FILE, Runner, convert
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.export.trained import export_trained
from yt8m_tf.models import registry
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.scoring.score import score
from yt8m_tf.serving.inference import infer
from yt8m_tf.training import checkpoints, distribution, loop
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep

_KINDS = ("clip_floats", "clip_bytes", "mediapipe", "audioset", "rgb_only", "audio_only", "three")
_CLOSE = 2e-3  # for scores, relative to the trained model: exports round weights to float16
_DTYPES = {"uint8": "uint8", "float16": "float16", "float32": "float32", "float_list": "float32"}


def _experiment(kind: str, level: schema.Level, model: dict[str, Any], **train: Any) -> ExperimentConfig:
    values = {
        "model": model,
        "data": {**feature_kinds.section(kind, level), "shuffle_records": 16},
        "optimizer": {"learning_rate": 0.02},
        "schedule": {"name": "constant"},
        "train": {"batch_size": 16, "steps_per_epoch": 80, "epochs": 1, "mixup_alpha": 0.1, **train},
    }
    return registry.parse_experiment(values)


def _trained(experiment: ExperimentConfig, data_dir: Path, run: Path) -> keras.Model:
    options = loop.RunOptions(data_dir=str(data_dir), workdir=run, xla=False, progress=False)
    loop.train(experiment, options, distribution.make_strategy(""), Faults())
    return checkpoints.load_trained(run).model


def _check_exported(exported: Path, lite: bytes, model: keras.Model, data: DataConfig, shard: Path) -> None:
    """Checks the SavedModel's signatures, LiteRT model and submission: dtypes of the records, scores of the model."""
    batch = parse_records(tf.constant(list(good_records(str(shard)))), data)
    expected = tf.sigmoid(model(model_inputs(batch, data.spec), training=False)).numpy()
    features = tf.saved_model.load(str(exported)).signatures["features"]
    (_, specs) = features.structured_input_signature
    dtypes = {name: _DTYPES[str(feature.dtype)] for name, feature in data.stored.items()}
    assert {name: specs[name].dtype.name for name in dtypes} == dtypes
    given = {name: batch[name] for name in specs}
    np.testing.assert_allclose(features(**given)["predictions"], expected, atol=_CLOSE)
    found = Runner(lite)(**{name: values.numpy() for name, values in given.items()})
    np.testing.assert_allclose(found, expected, atol=_CLOSE)

    infer(str(exported), [str(shard)], exported / "submission.csv", progress=False)
    with open(exported / "submission.csv", newline="") as file:
        rows = {row["VideoId"]: row["LabelConfidencePairs"].split() for row in csv.DictReader(file)}
    assert [video.encode() for video in rows] == batch["id"].numpy().tolist()
    for pairs, scores in zip(rows.values(), expected, strict=True):
        np.testing.assert_allclose([float(s) for s in pairs[1::2]], scores[[int(c) for c in pairs[::2]]], atol=_CLOSE)


@pytest.mark.end_to_end
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")  # tf.data still builds graphs
def test_float16_frames_from_shards_to_submission(tmp_path: Path) -> None:
    """The short form of `test_every_kind_from_shards_to_submission`."""
    data_dir = feature_kinds.write_shards("clip_bytes", "frame", tmp_path / "data", np.random.default_rng(0))
    model = {"name": "mean_fcn", "hidden_sizes": [8]}
    experiment = _experiment("clip_bytes", "frame", model, steps_per_epoch=2)
    tf.config.run_functions_eagerly(True)  # building graphs takes longer than two steps
    try:
        trained = _trained(experiment, data_dir, tmp_path / "run")
    finally:
        tf.config.run_functions_eagerly(False)
    export_saved_model(trained, experiment.data, tmp_path / "model")
    _check_exported(
        tmp_path / "model", convert(trained, experiment.data), trained, experiment.data, data_dir / "test0.tfrecord"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "model"),
    [
        ("video", {"name": "resnet_like", "inner_size": 16, "dropout": 0.0}),
        ("frame", {"name": "logistic"}),
        ("frame", {"name": "attention_net", "hidden_size": 8, "num_layers": 2, "hidden_sizes": [16]}),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else value,
)
@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_from_shards_to_submission(
    kind: str, level: schema.Level, model: dict[str, Any], tmp_path: Path
) -> None:
    """Every stage is checked against the trained model."""
    data_dir = feature_kinds.write_shards(kind, level, tmp_path / "data", np.random.default_rng(0))
    experiment, run, exported = _experiment(kind, level, model), tmp_path / "run", tmp_path / "model"
    trained = _trained(experiment, data_dir, run)
    metrics = evaluate_trained(
        checkpoints.load_trained(run), ["validate*"], str(data_dir), faults=Faults(), xla=False, progress=False
    )
    assert metrics.scalars()["gap_at_20"] > 0.9  # one column determines the class
    report = export_trained(run, exported, data_dir=str(data_dir), tflite=True, progress=False)
    assert report.comparison.max_difference < _CLOSE and report.lite is not None and report.lite.max_difference < _CLOSE
    shard = data_dir / "test0.tfrecord"
    _check_exported(exported, (exported / LITE_FILE).read_bytes(), trained, experiment.data, shard)
    score([find_predictor(run, xla=False)], [str(shard)], tmp_path / "scores", progress=False)
    manifest = read_manifest(tmp_path / "scores", "scores")
    assert len(read_shard(tmp_path / "scores", shard.name, manifest).ids) == 24
    assert manifest.keys == {name: key for name, key in experiment.data.keys.items() if name in ("id", "labels")}


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Disables graphs: building them takes longer than a single step."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("name", [n for n in registry.model_names() if "frame" in registry.registration(n).levels])
def test_every_frame_level_family_trains_a_step(name: str, kind: str) -> None:
    experiment = _experiment(kind, "frame", {"name": name, **OPTIONS[name]})
    model = registry.build_model(experiment.model, experiment.data.spec)
    strategy = distribution.make_strategy("")
    step = TrainStep(TrainState(model, experiment), experiment, strategy, xla=False)
    before = [variable.numpy() for variable in model.trainable_variables]
    batch = parse_records(
        tf.constant(feature_kinds.records(kind, "frame", np.random.default_rng(0), 16)[0]), experiment.data
    )
    del batch["id"]
    assert np.isfinite(step.train([batch], 0, [0.1])["loss"])
    changed = [
        not np.array_equal(variable.numpy(), values)
        for variable, values in zip(model.trainable_variables, before, strict=True)
    ]
    assert any(changed) and all(np.isfinite(variable.numpy()).all() for variable in model.trainable_variables)
