"""Out-of-fold teachers: which ones score a video, what their student learns, and which are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from killed import killed_at

from yt8m_tf import files, run_dir
from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data import pipeline
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.shards import assign_folds, list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints, loop, mixup
from yt8m_tf.training.fold_runs import ShardFolds, check, find
from yt8m_tf.training.loop import RunOptions
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep
from yt8m_tf.training.teacher import fingerprint, load_teacher

_SIZES = {"rgb": 8, "audio": 4}
_SHARDS = [f"train{number:04d}.tfrecord" for number in range(4)]
_BASE: dict[str, Any] = {
    "model": {"name": "logistic"},
    "data": {"features": _SIZES, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
    "optimizer": {"learning_rate": 0.05},
    "train": {"batch_size": 16, "steps_per_epoch": 2, "epochs": 2, "prior_bias": "none"},
}


def _make_run(directory: Path, fold: int, rng: np.random.Generator, num_folds: int = 3, shift: float = 0.0) -> None:
    """Writes a run of a logistic regression with random weights that held out a fold of `_SHARDS`."""
    experiment = parse_experiment(merge(_BASE, {"data": {"num_folds": num_folds, "fold": fold}}))
    model = loop.build_for_training(experiment)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape) + shift)
    checkpoints.save_run(directory, experiment, {variable.path: variable for variable in model.weights})
    files.write_json(directory / run_dir.FOLDS, assign_folds(_SHARDS, num_folds))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each of three folds, and another of fold 1; read-only."""
    root, rng = tmp_path_factory.mktemp("folds"), np.random.default_rng(0)
    for name, fold in (("a/fold_0", 0), ("a/fold_1", 1), ("a/fold_2", 2), ("b/fold_1", 1)):
        _make_run(root / name, fold, rng)
    return root


@pytest.fixture(scope="module")
def data_dir(make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_learnable_shards(tmp_path_factory.mktemp("shards"))


def _taught(pattern: Path, **changes: Any) -> dict[str, Any]:
    return merge(_BASE, merge({"labels": {"teacher_folds": str(pattern)}}, changes))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("weight", "alpha"), [(1.0, 0.0), (0.75, 1.0)])
def test_targets_are_the_scores_of_the_models_that_have_not_seen_a_video(
    weight: float, alpha: float, runs: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares the loss of a step with logistic regressions in NumPy; fold 1 has two models, which are averaged."""
    share = rng.uniform(size=6).astype(np.float32)
    monkeypatch.setattr(mixup, "draw_weights", lambda *_: tf.constant(share))
    values = _taught(runs / "*/fold_*", labels={"weight": weight}, train={"mixup_alpha": alpha})
    experiment = parse_experiment(values)
    state = TrainState(loop.build_for_training(experiment), experiment)
    teacher = load_teacher(experiment, "/nowhere", _SHARDS)
    step = TrainStep(state, experiment, tf.distribute.get_strategy(), xla=bool(alpha), teacher=teacher)
    features = {name: rng.normal(size=(6, size)).astype(np.float32) for name, size in _SIZES.items()}
    labels, folds = rng.integers(0, 10, (6, 1)).astype(np.int32), np.array([0, 1, 2, 2, 1, 0], np.int32)
    own = {path.removeprefix("model/"): np.asarray(value) for path, value in state.named().items()}
    batch = {**features, "labels": labels, "teacher_fold": folds}
    found = step.train([{name: tf.constant(value) for name, value in batch.items()}], 0, [1e-3])["loss"]

    share = share[:, None] if alpha else np.ones((6, 1), np.float32)
    x = np.concatenate([features["rgb"], features["audio"]], axis=1)
    hard, other = np.eye(10)[labels[:, 0]], np.roll(folds, 1)
    x, hard = (share * value + (1 - share) * np.roll(value, 1, axis=0) for value in (x, hard))
    scores = {}
    for name in ("a/fold_0", "a/fold_1", "a/fold_2", "b/fold_1"):
        trained = {variable.path: variable.numpy() for variable in checkpoints.load_trained(runs / name).model.weights}
        scores[name] = _sigmoid(x @ trained["logits/kernel"] + trained["logits/bias"])
    by_fold = [scores["a/fold_0"], (scores["a/fold_1"] + scores["b/fold_1"]) / 2, scores["a/fold_2"]]
    taught = [share[i] * by_fold[folds[i]][i] + (1 - share[i]) * by_fold[other[i]][i] for i in range(6)]
    target = weight * np.array(taught) + (1 - weight) * hard
    score = _sigmoid(x @ own["logits/kernel"] + own["logits/bias"])
    expected = -(target * np.log(score) + (1 - target) * np.log(1 - score)).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("level", ["video", "frame"])
def test_the_fold_of_a_video_is_that_of_its_shard(
    level: str, make_learnable_shards: Callable[..., Path], tmp_path: Path
) -> None:
    directory = make_learnable_shards(tmp_path, level, train=5, each=12)
    data = parse_experiment(
        merge(_BASE, {"model": {"name": "logistic"}, "data": {"level": level, "max_frames": 8}})
    ).data
    shards = list_shards(data.train, str(directory))
    folds = assign_folds(shards, 3)
    shard_of = {}
    for shard in shards:
        for batch in pipeline.evaluation_stream([shard], data, 12, faults=Faults()):
            shard_of |= {row.tobytes(): Path(shard).name for row in np.asarray(batch["rgb"])[:, :3]}
    stream = pipeline.training_stream(
        shards, data, 10, seed=3, faults=Faults(), beside=lambda own: ShardFolds(folds, own)
    )
    seen = set()
    for _, batch in zip(range(12), stream, strict=False):
        for row, fold in zip(np.asarray(batch["rgb"])[:, :3], batch["teacher_fold"].numpy(), strict=True):
            assert folds[shard_of[row.tobytes()]] == fold
            seen.add(shard_of[row.tobytes()])
    assert len(seen) == 5


def _train(
    values: dict[str, Any], data_dir: Path, workdir: Path, strategy: tf.distribute.Strategy | None = None
) -> list[np.ndarray]:
    options = RunOptions(str(data_dir), workdir, progress=False, steps_per_call=2, xla=False)
    loop.train(parse_experiment(values), options, strategy or tf.distribute.get_strategy(), Faults())
    return [variable.numpy() for variable in checkpoints.load_trained(workdir, "last").model.weights]


@pytest.mark.slow
def test_replicas_equal_one(runs: Path, data_dir: Path, tmp_path: Path, two_replicas: tf.distribute.Strategy) -> None:
    values = _taught(runs / "a/fold_*", data={"split": "record"}, train={"mixup_alpha": 0.0})
    two = _train(values, data_dir, tmp_path / "two", two_replicas)
    for one, other in zip(_train(values, data_dir, tmp_path / "one"), two, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


@pytest.mark.end_to_end
def test_a_killed_run_resumes_exactly_with_the_same_teachers(runs: Path, data_dir: Path, tmp_path: Path) -> None:
    values = _taught(runs / "a/fold_*", train={"mixup_alpha": 1.0})
    whole = _train(values, data_dir, tmp_path / "whole")
    with killed_at(2):
        _train(values, data_dir, tmp_path / "killed")
    shutil.copytree(runs / "a", tmp_path / "moved")  # the location does not matter
    moved = _taught(tmp_path / "moved/fold_*", train={"mixup_alpha": 1.0})
    for one, two in zip(whole, _train(moved, data_dir, tmp_path / "killed"), strict=True):
        np.testing.assert_array_equal(one, two)
    known = fingerprint(parse_experiment(moved).labels, "")
    config = tmp_path / "moved" / "fold_2" / run_dir.CONFIG
    config.write_text(config.read_text() + "\n")
    assert fingerprint(parse_experiment(moved).labels, "") != known


def test_unusable_out_of_fold_teachers(runs: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    def refused(pattern: str, message: str, shards: list[str] | None = None, **data: Any) -> None:
        with pytest.raises(InputError, match=r"^labels\.teacher_folds" + message):
            load_teacher(parse_experiment(_taught(Path(pattern), data=data)), str(tmp_path), shards or _SHARDS)

    folds = assign_folds(_SHARDS, 3)
    mine = next(name for name in _SHARDS if folds[name] == 2)
    refused("none/fold_*", r"=.*/none/fold_\*: no run there; name the runs of all folds, such as")
    refused(f"{runs}/a/fold_[01]", rf": no run holds out fold 2, which has '{mine}' of data\.train; name the runs of a")
    refused(
        f"{runs}/a/fold_*", r": 'train0009.tfrecord' of data\.train is in no fold of .*fold_0", ["train0009.tfrecord"]
    )
    refused(f"{runs}/a/fold_*", r": .*/fold_0: was trained with data\.num_classes 10, this run has 9", num_classes=9)
    shutil.copytree(runs / "a", tmp_path / "a")
    (tmp_path / "a" / "fold_1" / run_dir.FOLDS).unlink()
    refused("a/fold_*", r"=.*: .*/a/fold_1 sees all shards, and holds out no fold; name runs of yt8m-train --num_folds")
    shutil.rmtree(tmp_path / "a" / "fold_1")
    _make_run(tmp_path / "a" / "fold_1", 1, rng, num_folds=2)
    refused("a/fold_*", r"=.*: .*/a/fold_1 and .*/a/fold_0 are runs of different folds; train all on the same shards")
    with pytest.raises(InputError, match=r"labels\.teacher and labels\.teacher_folds are two sources of one target"):
        parse_experiment(_taught(runs, labels={"teacher": "run"}))


def test_no_teacher_has_seen_its_students_validation_data(runs: Path, data_dir: Path, tmp_path: Path) -> None:
    """The run is refused for any folds of the student; a refused new run leaves no directory."""
    for num_folds, fold in ((3, 1), (2, 0)):
        own = assign_folds(_SHARDS, num_folds)
        held_out = {name for name in _SHARDS if own[name] == fold}
        with pytest.raises(
            InputError, match=r"^labels\.teacher_folds: .*/fold_\d was trained on '(.*)', which"
        ) as told:
            _train(
                _taught(runs / "a/fold_*", data={"num_folds": num_folds, "fold": fold}),
                data_dir,
                tmp_path / "x" / "run",
            )
        assert any(f"'{name}'" in str(told.value) for name in held_out)
        assert list(tmp_path.iterdir()) == []
    # The models that hold out a fold have not seen it, and no teacher has seen shards that it does not list.
    folds, teachers = assign_folds(_SHARDS, 3), find(str(runs / "a/fold_*"), "")
    for validation in ([name for name in _SHARDS if folds[name] == 0][:1], ["validate0000.tfrecord"]):
        check(teachers, [name for name in _SHARDS if folds[name] == 0][-1:], validation)
