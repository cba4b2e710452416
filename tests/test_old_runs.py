"""Run directories that release 0.1.0 wrote open, evaluate, export and resume with the same results.

`old_runs/LEVEL/run` is half a run on the records in `old_runs/LEVEL/data`. `old_runs/LEVEL/expected.json` has what that
release computed: the metrics of the last checkpoint, and all evaluations after the run was resumed to its end.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml

from yt8m_tf import run_dir
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.shards import list_shards
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.evaluation.saved_models import evaluate_scorer
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.trained import export_trained
from yt8m_tf.models.registry import build_model, parse_experiment
from yt8m_tf.serving.scorer import load_scorer
from yt8m_tf.training import checkpoints, loop
from yt8m_tf.training.checkpoints import load_trained

_OLD = Path(__file__).resolve().parent / "old_runs"
_LEVELS = ("video", "frame")


def _expected(level: str) -> dict[str, Any]:
    return json.loads((_OLD / level / "expected.json").read_text(encoding="utf-8"))


def _metrics(workdir: Path, level: str) -> dict[str, float]:
    trained = load_trained(workdir, "last")
    data_dir = str(_OLD / level / "data")
    metrics = evaluate_trained(trained, ["validate*.tfrecord"], data_dir, faults=Faults(), xla=False, progress=False)
    return metrics.scalars()


@pytest.mark.parametrize("level", _LEVELS)
def test_it_evaluates(level: str) -> None:
    found, expected = _metrics(_OLD / level / "run", level), _expected(level)["metrics"]
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


@pytest.mark.end_to_end
@pytest.mark.parametrize("level", [pytest.param("video", marks=pytest.mark.slow), "frame"])
def test_it_exports(level: str, tmp_path: Path) -> None:
    data_dir = _OLD / level / "data"
    export_trained(
        _OLD / level / "run",
        tmp_path / "model",
        data_dir=str(data_dir),
        which="last",
        precision=FLOAT32,
        progress=False,
    )
    shards = list_shards(["validate*.tfrecord"], str(data_dir))
    metrics = evaluate_scorer(load_scorer(str(tmp_path / "model"), 6), shards, faults=Faults(), progress=False)
    assert metrics.gap == pytest.approx(_expected(level)["metrics"]["gap_at_20"], rel=1e-5)


@pytest.mark.end_to_end
@pytest.mark.parametrize("level", ["video", pytest.param("frame", marks=pytest.mark.slow)])
def test_it_continues(level: str, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(_OLD / level / "run", workdir)
    experiment = run_dir.read_experiment(workdir, parse_experiment)
    options = loop.RunOptions(
        data_dir=str(_OLD / level / "data"), workdir=workdir, xla=False, steps_per_call=1, progress=False
    )
    loop.train(experiment, options, tf.distribute.get_strategy(), Faults())
    found, expected = run_dir.read_history(workdir), _expected(level)["history"]
    assert [entry["step"] for entry in found] == [entry["step"] for entry in expected] == [5, 10, 15, 20]
    # Rounding on another processor can change ranks, but hardly changes these metrics.
    for name in ("bce", "calibration_error"):
        np.testing.assert_allclose([e[name] for e in found], [e[name] for e in expected], rtol=1e-3)


def test_a_missing_key_has_the_behaviour_from_before_the_key_existed(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(_OLD / "video" / "run", workdir)
    whole = run_dir.read_experiment(workdir, parse_experiment)
    values = yaml.safe_load((workdir / run_dir.CONFIG).read_text(encoding="utf-8"))
    for section, key in (
        ("data", "frames"),
        ("optimizer", "rho"),
        ("optimizer", "epsilon"),
        ("train", "target_reweighting"),
        ("model", "statistics"),
    ):
        values[section].pop(key, None)
    del values["labels"], values["loss"]
    (workdir / run_dir.CONFIG).write_text(yaml.safe_dump(values), encoding="utf-8")
    assert run_dir.read_experiment(workdir, parse_experiment) == whole
    run_dir.prepare(workdir, whole, parse_experiment)  # no difference, so the run resumes
    assert _metrics(workdir, "video") == _metrics(_OLD / "video" / "run", "video")


def _without_biases_key(workdir: Path) -> None:
    """Turns the configuration into that of a release without the key."""
    text = (workdir / run_dir.CONFIG).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    (workdir / run_dir.CONFIG).write_text("".join(line for line in lines if "biases:" not in line), encoding="utf-8")
    assert "biases" in text


@pytest.mark.parametrize("in_a_mean", [False, True], ids=["alone", "in a mean"])
def test_a_transformer_of_an_earlier_release_has_its_biases(
    in_a_mean: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A new transformer has no biases; old weights still load, and compute the same."""
    model: dict[str, Any] = {"name": "transformer", "inner_size": 4, "biases": True}
    if in_a_mean:
        model = {"name": "weighted_mean", "members": [model, {"name": "logistic"}]}
    data = {"level": "frame", "features": {"rgb": 3}, "num_classes": 5}
    experiment = parse_experiment({"model": model, "data": data})
    trained = build_model(experiment.model, experiment.data.spec)
    for variable in trained.weights:
        variable.assign(rng.normal(size=variable.shape))
    checkpoints.save_run(tmp_path, experiment, {variable.path: variable for variable in trained.weights})
    _without_biases_key(tmp_path)
    found = checkpoints.load_trained(tmp_path).model
    clips = {"rgb": rng.normal(size=(2, 6, 3)).astype("float32"), "num_frames": np.array([6, 2], np.int32)}
    np.testing.assert_array_equal(found(clips), trained(clips))
