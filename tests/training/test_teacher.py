"""A teacher in the training step: its targets, that nothing else changes, and which teachers are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from killed import killed_at

from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import build_model, parse_experiment
from yt8m_tf.run_dir import read_history
from yt8m_tf.training import checkpoints, loop, mixup
from yt8m_tf.training.loop import RunOptions, TrainResult
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep
from yt8m_tf.training.teacher import Teacher, load_teacher

_BASE: dict[str, Any] = {
    "model": {"name": "logistic"},
    "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
    "optimizer": {"learning_rate": 0.05},
    "schedule": {"name": "cosine"},
    "train": {"batch_size": 32, "steps_per_epoch": 10, "epochs": 2},
}


def _train(values: dict[str, Any], data_dir: Path, workdir: Path, strategy: Any = None, **more: Any) -> TrainResult:
    options = RunOptions(str(data_dir), workdir, progress=False, steps_per_call=2, xla=False, **more)
    return loop.train(parse_experiment(values), options, strategy or tf.distribute.get_strategy(), Faults())


@pytest.fixture(scope="module")
def data_dir(make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_learnable_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def teacher(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run; read-only."""
    workdir = tmp_path_factory.mktemp("runs") / "teacher"
    _train(merge(_BASE, {"train": {"epochs": 3}}), data_dir, workdir)
    return workdir


def _taught(teacher: Path, **changes: Any) -> dict[str, Any]:
    return merge(_BASE, merge({"labels": {"teacher": str(teacher)}, "train": {"mixup_alpha": 1.0}}, changes))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("weight", "alpha"), [(1.0, 0.0), (0.75, 0.0), (0.75, 1.0)])
def test_targets_are_the_teachers_scores_of_the_mixed_inputs(
    weight: float, alpha: float, teacher: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares the loss of a step with a logistic regression in NumPy."""
    share = rng.uniform(size=6).astype(np.float32)
    monkeypatch.setattr(mixup, "draw_weights", lambda *_: tf.constant(share))
    experiment = parse_experiment(_taught(teacher, labels={"weight": weight}, train={"mixup_alpha": alpha}))
    state = TrainState(loop.build_for_training(experiment), experiment)
    step = TrainStep(
        state, experiment, tf.distribute.get_strategy(), xla=False, teacher=load_teacher(experiment, "/nowhere")
    )
    features = {name: rng.normal(size=(6, size)).astype(np.float32) for name, size in (("rgb", 8), ("audio", 4))}
    labels = rng.integers(0, 10, (6, 1)).astype(np.int32)
    own = {path.removeprefix("model/"): np.asarray(value) for path, value in state.named().items()}
    trained = {variable.path: variable.numpy() for variable in checkpoints.load_trained(teacher).model.weights}
    found = step.train([{**features, "labels": labels}], 0, [1e-3])["loss"]

    share = share[:, None] if alpha else np.ones((6, 1), np.float32)
    x = np.concatenate([features["rgb"], features["audio"]], axis=1)
    hard = np.eye(10)[labels[:, 0]]
    x, hard = (share * value + (1 - share) * np.roll(value, 1, axis=0) for value in (x, hard))
    target = weight * _sigmoid(x @ trained["logits/kernel"] + trained["logits/bias"]) + (1 - weight) * hard
    score = _sigmoid(x @ own["logits/kernel"] + own["logits/bias"])
    expected = -(target * np.log(score) + (1 - target) * np.log(1 - score)).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.end_to_end
def test_a_student_learns_only_from_the_teacher_also_on_replicas(
    teacher: Path, data_dir: Path, tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    """The teacher never predicts class 0, nor does its student, although the data's own labels include the class."""
    other = Path(shutil.copytree(teacher, tmp_path / "other"))
    trained = checkpoints.load_trained(other)
    bias = trained.model.get_layer("logits").bias
    bias.assign(bias.numpy() - 30.0 * np.eye(10)[0])
    values = {variable.path: variable for variable in trained.model.weights}
    checkpoints.save_run(tmp_path / "changed", trained.experiment, values)
    students = {}
    for name, strategy in (("one", None), ("two", two_replicas)):
        values = _taught(tmp_path / "changed", data={"split": "record"}, train={"mixup_alpha": 0.0, "epochs": 1})
        values = merge(values, {"optimizer": {"learning_rate": 0.3}})
        _train(values, data_dir, tmp_path / name, strategy)
        weights = checkpoints.load_trained(tmp_path / name).model.weights
        students[name] = {variable.path: variable.numpy() for variable in weights}
    for path, value in students["one"].items():
        np.testing.assert_allclose(students["two"][path], value, atol=1e-4, err_msg=path)
    assert students["one"]["logits/bias"][0] < students["one"]["logits/bias"][1:].min() - 0.5
    assert read_history(tmp_path / "one")[-1]["gap_at_20"] > 0.4


@pytest.mark.slow  # test_fold_runs.py kills a run with several teachers in the fast set
def test_a_run_resumes_exactly_and_only_with_the_same_teacher(teacher: Path, data_dir: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    values = _taught(own, train={"steps_per_epoch": 4})
    _train(values, data_dir, tmp_path / "whole")
    with killed_at(4):
        _train(values, data_dir, tmp_path / "killed")
    shutil.move(own, tmp_path / "moved")  # the location does not matter
    moved = _taught(tmp_path / "moved", train={"steps_per_epoch": 4})
    shutil.copytree(tmp_path / "killed", tmp_path / "again")
    _train(moved, data_dir, tmp_path / "killed")
    whole, killed = (checkpoints.load_trained(tmp_path / name, "last").model for name in ("whole", "killed"))
    for one, two in zip(whole.weights, killed.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)
    config = tmp_path / "moved" / "config.yaml"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(InputError, match=r"other data \(a teacher with different weights or folds \(labels\.teacher, "):
        _train(moved, data_dir, tmp_path / "again")


def test_a_teacher_runs_in_inference_mode(rng: np.random.Generator) -> None:
    """The teacher uses neither dropout nor batch statistics."""
    spec = parse_experiment(_BASE).data.spec
    model = build_model({"name": "fcn", "hidden_sizes": [8], "dropout": 0.5}, spec)
    inputs = {name: rng.normal(size=(5, size)).astype(np.float32) for name, size in (("rgb", 8), ("audio", 4))}
    expected = _sigmoid(model(inputs, training=False).numpy())
    np.testing.assert_allclose(Teacher([model]).scores(inputs | {"text": np.ones((5, 2))}), expected, atol=1e-6)


def test_clips_are_scored_as_the_student_sees_them(rng: np.random.Generator, tmp_path: Path) -> None:
    """The model averages over frames: its loss is that of the mean frame, computed in NumPy."""
    data = {"level": "frame", "max_frames": 6}
    values = merge(_BASE, {"data": data})
    experiment = parse_experiment(values)
    model = loop.build_for_training(experiment)
    kernel, bias = model.get_layer("logits").kernel, model.get_layer("logits").bias
    kernel.assign(rng.normal(size=kernel.shape))
    checkpoints.save_run(tmp_path / "teacher", experiment, {variable.path: variable for variable in model.weights})
    trained = kernel.numpy(), bias.numpy()
    taught = parse_experiment(merge(values, {"labels": {"teacher": "teacher"}}))
    state = TrainState(loop.build_for_training(taught), taught)
    own = {path.removeprefix("model/"): np.asarray(value) for path, value in state.named().items()}
    step = TrainStep(state, taught, tf.distribute.get_strategy(), xla=True, teacher=load_teacher(taught, str(tmp_path)))
    codes = {name: rng.integers(0, 256, (3, 6, size)).astype(np.uint8) for name, size in (("rgb", 8), ("audio", 4))}
    lengths = np.array([6, 1, 3], np.int32)
    batch = {**codes, "num_frames": lengths, "labels": np.full((3, 1), -1, np.int32)}
    found = step.train([{name: tf.constant(value) for name, value in batch.items()}], 0, [1e-3])["loss"]
    x = np.concatenate([codes[name] * (4 / 255) + (4 / 512 - 2) for name in ("rgb", "audio")], axis=2)
    mean = np.stack([clip[:length].mean(axis=0) for clip, length in zip(x, lengths, strict=True)])
    target = _sigmoid(mean @ trained[0] + trained[1])
    score = _sigmoid(mean @ own["logits/kernel"] + own["logits/bias"])
    expected = -(target * np.log(score) + (1 - target) * np.log(1 - score)).mean()
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_teacher_sees_the_noise_that_the_student_sees(
    teacher: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher and the student get the same features: those of the batch, with noise, and some of them dropped."""
    train = {"feature_noise": 0.5, "feature_dropout": 0.25}
    experiment = parse_experiment(_taught(teacher, train={**train, "mixup_alpha": 0.0}))
    state = TrainState(loop.build_for_training(experiment), experiment)
    taught = load_teacher(experiment, "/nowhere")
    assert taught is not None
    seen: dict[str, Any] = {}

    def keep(who: str, call: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
        def recorded(*arguments: Any, **more: Any) -> Any:
            seen[who] = {name: tf.identity(values) for name, values in arguments[inputs].items()}
            return call(*arguments, **more)

        return recorded

    monkeypatch.setattr(taught, "scores", keep("teacher", taught.scores, 0))
    monkeypatch.setattr(state.model, "stateless_call", keep("student", state.model.stateless_call, 2))
    step = TrainStep(state, experiment, tf.distribute.get_strategy(), xla=False, teacher=taught)
    features = {name: rng.normal(size=(400, size)).astype(np.float32) for name, size in (("rgb", 8), ("audio", 4))}
    batch = {name: tf.constant(value) for name, value in features.items()}
    with_labels = batch | {"labels": tf.zeros([400, 1], tf.int32)}
    step._compute(with_labels, tf.zeros([0]), tf.constant([1, 2]))
    for name, value in features.items():
        student = seen["student"][name].numpy()
        np.testing.assert_array_equal(student, seen["teacher"][name])
        assert (student == 0).mean() == pytest.approx(0.25, abs=0.03)
        noise = (student * 0.75 - value)[student != 0]
        assert noise.mean() == pytest.approx(0, abs=0.05) and noise.std() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"num_classes": 9},
            r"was trained with data\.num_classes 10, this run has 9; name a teacher with the same value",
        ),
        (
            {"level": "frame"},
            r"was trained with data\.level video, this run has frame; name a teacher with the same value",
        ),
        ({"features": {"audio": None}}, r"needs feature 'audio' of 4 values, but data\.features lacks it; name"),
        ({"features": {"rgb": 9}}, r"needs feature 'rgb' of 8 values, but data\.features gives it 9; name"),
    ],
)
def test_unusable_teachers(data: dict[str, Any], message: str, teacher: Path) -> None:
    values = _taught(teacher, data=data)
    values["data"]["features"] = {k: v for k, v in values["data"]["features"].items() if v is not None}
    with pytest.raises(InputError, match=r"^labels\.teacher=.*teacher: " + message):
        load_teacher(parse_experiment(values), "/nowhere")


def test_a_missing_teacher_is_reported_before_training(teacher: Path, data_dir: Path, tmp_path: Path) -> None:
    """No run directory is left behind if there was none before."""
    other = _taught(teacher)
    other["data"] = other["data"] | {"features": {"audio": 4}}
    refused = {
        r"labels\.teacher=.*/none: .*no run": _taught(tmp_path / "none"),
        r"labels\.teacher=.*/teacher: needs feature 'rgb'": other,
        # It has seen the fold that the student would be validated on.
        r"labels\.teacher=.*/teacher: was trained on 'train0000\.tfrecord', which this run is validated on": _taught(
            teacher, data={"num_folds": 2, "fold": 0}
        ),
        r"labels\.soft": merge(_BASE, {"labels": {"soft": "none"}}),
    }
    for message, values in refused.items():
        with pytest.raises(InputError, match=message):
            _train(values, data_dir, tmp_path / "run")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"labels\.soft and labels\.teacher are two sources of one target"):
        parse_experiment(_taught(tmp_path, labels={"soft": "scores"}))
    with pytest.raises(InputError, match=r"labels\.teacher are of whole videos"):
        parse_experiment(_taught(tmp_path, data={"level": "frame", "segments": {"size": 5}}, train={"mixup_alpha": 0}))
