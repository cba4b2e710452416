"""Training on rated segments: it learns, resumes exactly, gives the same on replicas, and starts from a video run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from killed import killed_at
from model_contract import FEATURES, FRAME_CASES, MAX_FRAMES, NUM_CLASSES, options_of
from segments import learnable_segments, random_records
from shards import write_shard

from yt8m_tf import run_dir
from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints, loop
from yt8m_tf.training.loop import RunOptions, TrainResult
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep

_BASE: dict[str, Any] = {
    "model": {"name": "mean_fcn", "hidden_sizes": [16], "dropout": 0.0},
    "data": {
        "level": "frame",
        "features": {"rgb": 8, "audio": 4},
        "num_classes": 10,
        "max_frames": 30,
        "max_labels": 6,
        "shuffle_shards": 2,
        "segments": {"size": 5},
    },
    "optimizer": {"name": "adamw", "learning_rate": 0.02},
    "schedule": {"name": "cosine"},
    "train": {"batch_size": 16, "steps_per_epoch": 4, "epochs": 2, "seed": 3},
}


def _train(
    values: dict[str, Any],
    data_dir: Path,
    workdir: Path,
    strategy: Any = None,
    faults: Faults | None = None,
    **more: Any,
) -> TrainResult:
    options = RunOptions(str(data_dir), workdir, progress=False, steps_per_call=2, xla=False, **more)
    return loop.train(parse_experiment(values), options, strategy or tf.distribute.get_strategy(), faults or Faults())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of segments; read-only."""
    return learnable_segments(tmp_path_factory.mktemp("segments"))


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `_BASE`; read-only."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    _train(_BASE, data_dir, workdir)
    return workdir


def _weights(workdir: Path) -> dict[str, np.ndarray]:
    prefix, _ = checkpoints.find_checkpoint(workdir, "last")
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _assert_equal(one: Path, other: Path, tolerance: float = 0.0) -> None:
    mine, theirs = _weights(one), _weights(other)
    assert mine.keys() == theirs.keys() and mine
    for name, value in mine.items():
        np.testing.assert_allclose(theirs[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.end_to_end
def test_it_learns_and_is_evaluated_over_rated_pairs(data_dir: Path, tmp_path: Path) -> None:
    values = merge(_BASE, {"train": {"steps_per_epoch": 20, "epochs": 3, "batch_size": 32}})
    result = _train(values, data_dir, tmp_path / "run")
    history = run_dir.read_history(tmp_path / "run")
    assert result.metric == "map" and result.best_gap == max(line["map"] for line in history) > 0.9
    assert history[-1]["bce"] < 0.4 and history[0]["num_segments"] == history[0]["num_ratings"] == 2 * 24 * 3
    shown = run_command("evaluate", f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}", "--noxla")
    assert shown.returncode == 0, shown.stderr
    found = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    best = next(line for line in history if line["step"] == result.best_step)
    assert found["metrics"] == pytest.approx({"map": best["map"], "bce": best["bce"]}, abs=1e-6)
    assert "Segments" in shown.stdout and "Ratings" in shown.stdout and "GAP" not in shown.stdout
    with open(tmp_path / "run" / "evaluation" / "classes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["num_rated"]) for row in rows) == found["num_ratings"] and len(rows) == 10


@pytest.mark.slow  # tests/data resumes streams of segments, test_loop.py resumes runs
def test_a_killed_run_resumes_exactly(data_dir: Path, whole: Path, tmp_path: Path) -> None:
    with killed_at(6):
        _train(_BASE, data_dir, tmp_path / "killed")
    _train(_BASE, data_dir, tmp_path / "killed")
    _assert_equal(whole, tmp_path / "killed")


@pytest.mark.slow  # tests/data tests the split of segments between workers
def test_two_replicas_make_the_steps_of_one(
    data_dir: Path, whole: Path, two_replicas: tf.distribute.Strategy, tmp_path: Path
) -> None:
    _train(_BASE, data_dir, tmp_path / "two", two_replicas)
    _assert_equal(whole, tmp_path / "two", 1e-5)
    one, two = (run_dir.read_history(path)[-1] for path in (whole, tmp_path / "two"))
    assert one["map"] == pytest.approx(two["map"], abs=1e-3) and one["num_ratings"] == two["num_ratings"]


@pytest.mark.slow
def test_accumulation_makes_the_steps_of_whole_batches(data_dir: Path, whole: Path, tmp_path: Path) -> None:
    _train(merge(_BASE, {"train": {"accumulation": 4}}), data_dir, tmp_path / "parts")
    steps = [_weights(path) for path in (whole, tmp_path / "parts")]
    for name in (name for name in steps[0] if name.startswith("model/")):
        np.testing.assert_allclose(steps[1][name], steps[0][name], atol=1e-5, err_msg=name)


@pytest.mark.end_to_end
def test_unrated_classes_are_not_learned(data_dir: Path, tmp_path: Path) -> None:
    """Twenty more classes without ratings keep their initial weights, here those of a run on whole videos."""
    values = merge(_BASE, {"data": {"num_classes": 30, "segments": None}, "optimizer": {"weight_decay": 0.0}})
    values = merge(values, {"train": {"epochs": 1}})
    _train(values, data_dir, tmp_path / "videos")
    tuned = merge(values, {"data": {"segments": {"size": 5, "context": 2}}})
    _train(tuned, data_dir, tmp_path / "tuned", init_from=(tmp_path / "videos",))
    before, after = _weights(tmp_path / "videos"), _weights(tmp_path / "tuned")
    for name in ("model/logits/kernel", "model/logits/bias"):
        np.testing.assert_array_equal(after[name][..., 10:], before[name][..., 10:])
        assert np.abs(after[name][..., :10] - before[name][..., :10]).max() > 1e-3


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "netvlad")) for n in FRAME_CASES])
def test_every_frame_level_model_trains_on_segments(name: str, rng: np.random.Generator) -> None:
    """A step changes the outputs of rated classes; segments have 1 to 5 frames, the model is built for clips of 9."""
    data = {"level": "frame", "features": FEATURES, "num_classes": NUM_CLASSES, "max_frames": MAX_FRAMES}
    values = merge(_BASE, {"data": data, "optimizer": {"learning_rate": 0.01}}) | {"model": options_of(name, "frame")}
    values["data"] = values["data"] | {"features": FEATURES}
    experiment = parse_experiment(values)
    state = TrainState(loop.build_for_training(experiment), experiment)
    codes = {key: rng.integers(0, 256, (4, 5, size)).astype(np.uint8) for key, size in FEATURES.items()}
    batch = {key: tf.constant(value) for key, value in codes.items()} | {
        "num_frames": tf.constant([5, 1, 3, 2]),
        "rated_classes": tf.constant([[1, 4], [1, -1], [4, -1], [4, 1]]),
        "ratings": tf.constant([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
    }
    before = [np.asarray(variable) for variable in state.trainable]
    step = TrainStep(state, experiment, tf.distribute.get_strategy(), xla=False)
    assert np.isfinite(step.train([batch], 0, [0.01])["loss"])
    changes = [np.abs(np.asarray(now) - old).max() for now, old in zip(state.trainable, before, strict=True)]
    assert np.isfinite(changes).all() and max(changes) > 1e-3


@pytest.mark.slow
def test_segments_beyond_their_clips_are_reported(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("train", "validate"):
        write_shard(tmp_path / f"{name}.tfrecord", random_records(rng, 30))
    faults = Faults()
    result = _train(merge(_BASE, {"train": {"epochs": 1}}), tmp_path, tmp_path / "run", faults=faults)
    assert faults.num_beyond > 0
    assert result.skipped == (f"left out {faults.num_beyond:,} rated segments that start beyond their clips",)


@pytest.mark.slow
def test_a_run_on_segments_is_exported_and_reported(data_dir: Path, whole: Path, tmp_path: Path) -> None:
    """Both commands use whole clips and their labels, or omit what only these have."""
    for command, *flags in (
        ("export", f"--output={tmp_path / 'exported'}", f"--data_dir={data_dir}"),
        ("evaluate", f"--output={tmp_path / 'evaluation'}", f"--data_dir={data_dir}"),
        ("report", f"--output={tmp_path / 'report.html'}"),
    ):
        done = run_command(command, f"--workdir={whole}", *flags)
        assert done.returncode == 0, done.stderr
    metadata = json.loads((tmp_path / "exported" / "assets" / "metadata.json").read_text())
    assert metadata["metrics"]["num_videos"] == 2 * 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"mixup_alpha": 0.4}}, "train.mixup_alpha: hardly any class is rated in both of two mixed segments"),
        ({"labels": {"soft": "scores"}}, "labels.soft are of whole videos"),
    ],
)
def test_options_that_segments_exclude_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_experiment(merge(_BASE, changes))


def test_validation_shards_without_ratings_are_refused_at_the_start(
    data_dir: Path, learnable_shards: Any, tmp_path: Path
) -> None:
    whole_videos = learnable_shards("frame")
    values = merge(_BASE, {"data": {"train": str(data_dir / "train*"), "validation": str(whole_videos / "validate*")}})
    with pytest.raises(InputError, match=r"no clip of 2 shards has a rated segment inside it .*validate0000\.tfrecord"):
        _train(values, data_dir, tmp_path / "run")
