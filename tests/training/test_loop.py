"""The training loop: it learns, resumes exactly, and gives the same result on several replicas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cluster import start_workers
from shards import write_shard

from yt8m_tf import run_dir
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.statistics import class_prior
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.training import checkpoints, loop
from yt8m_tf.training.loop import RunOptions, TrainResult
from yt8m_tf.training.step import TrainStep

_BASE = {
    "model": {"name": "resnet_like", "inner_size": 8, "dropout": 0.0},
    "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "schedule": {"name": "cosine", "warmup_steps": 5},
    "train": {"batch_size": 32, "steps_per_epoch": 10, "epochs": 3, "seed": 3},
}
_RANDOM = {"model": {"name": "resnet_like", "inner_size": 8, "dropout": 0.3}, "train": {"mixup_alpha": 0.4}}


def _experiment(**changes: Any) -> ExperimentConfig:
    return parse_experiment(merge(_BASE, changes))


def _train(
    experiment: ExperimentConfig, data_dir: Path, workdir: Path, strategy: Any = None, **options: Any
) -> TrainResult:
    options = {"steps_per_call": 5, "xla": False, "evaluation_batch_size": 64} | options
    run_options = RunOptions(str(data_dir), workdir, progress=False, **options)
    return loop.train(experiment, run_options, strategy or tf.distribute.get_strategy(), Faults())


def _weights(workdir: Path, which: str = "last") -> dict[str, np.ndarray]:
    state = checkpoints.latest_state(workdir)
    assert state is not None
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"step_{state['step']:08d}" / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys() and one
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=0, atol=tolerance, err_msg=name)


class _KilledError(Exception):
    pass


def _kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = TrainStep.train

    def train(self: TrainStep, batches: Any, at: int, rates: Any) -> Any:
        if at >= step:
            raise _KilledError
        return original(self, batches, at, rates)

    monkeypatch.setattr(TrainStep, "train", train)


def _train_whole_and_killed(
    experiment: ExperimentConfig, data_dir: Path, parent: Path, strategy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs `whole`, and `killed`, which is killed at step 15 and goes on."""
    _train(experiment, data_dir, parent / "whole", strategy)
    with monkeypatch.context() as patch:
        _kill_at(patch, 15)
        with pytest.raises(_KilledError):
            _train(experiment, data_dir, parent / "killed", strategy)
    _train(experiment, data_dir, parent / "killed", strategy)


@pytest.mark.parametrize("level", ["video", "frame"])
def test_learns_and_writes_what_it_promises(level: str, learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir = learnable_shards(level)
    model = {"name": "mean_fcn", "hidden_sizes": [32], "dropout": 0.0} if level == "frame" else {"name": "logistic"}
    data = {"level": level, "max_frames": 8}
    train = {"epochs": 6, "validation_examples": 64}
    changed = merge(_BASE, {"data": data, "optimizer": {"learning_rate": 0.1}, "train": train})
    experiment = parse_experiment(changed | {"model": model})
    result = _train(experiment, data_dir, tmp_path / "run", histograms=True)
    history = run_dir.read_history(tmp_path / "run")
    assert {line["num_videos"] for line in history} == {64}
    assert [line["step"] for line in history] == [10, 20, 30, 40, 50, 60]
    assert result.best_gap > 0.85 and result.best_gap > history[0]["gap_at_20"] + 0.05
    assert run_dir.read_experiment(tmp_path / "run") == experiment
    tags = _event_tags(tmp_path / "run" / "tensorboard")
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "train/examples_per_second"} <= tags
    assert {"train/data_wait_share", "validation/gap_at_20", "validation/hit_at_1", "validation/perr"} <= tags
    assert {"validation/bce", "validation/map", "configuration"} <= tags
    assert any(tag.endswith("logits/kernel") for tag in tags)
    trained = checkpoints.load_trained(tmp_path / "run")
    assert trained.step == result.best_step


def _event_tags(directory: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return {tag for kind in ("tensors", "scalars") for tag in events.Tags()[kind]}


_PLATEAU = _RANDOM | {"schedule": {"name": "plateau", "patience": 0}}
_ACCUMULATION = _RANDOM | {"train": {"mixup_alpha": 0.4, "accumulation": 4, "ema_decay": 0.9}}


@pytest.mark.parametrize(
    ("changes", "xla", "kills"),
    [
        # Before the first evaluation, when nothing is saved yet, and within a later epoch.
        pytest.param(_PLATEAU, True, (5, 15), marks=pytest.mark.slow),
        pytest.param(_ACCUMULATION, False, (5, 15), marks=pytest.mark.slow),
        (merge(_PLATEAU, {"train": {"epochs": 2}}), False, (15,)),
    ],
    ids=["plateau", "accumulation and ema", "once"],
)
def test_killed_run_ends_with_equal_weights(
    changes: dict[str, Any],
    xla: bool,
    kills: tuple[int, ...],
    learnable_shards: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data_dir, experiment = learnable_shards(), _experiment(**changes)
    whole = _train(experiment, data_dir, tmp_path / "whole", xla=xla)
    for step in kills:
        with monkeypatch.context() as patch:
            _kill_at(patch, step)
            with pytest.raises(_KilledError):
                # Saving after every call leaves checkpoints in the middle of an epoch.
                _train(experiment, data_dir, tmp_path / "killed", checkpoint_minutes=0.0 if step > 5 else 10.0, xla=xla)
    resumed = _train(experiment, data_dir, tmp_path / "killed", xla=xla)
    _assert_equal(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))
    assert resumed == whole
    drop = {"seconds"}
    one, other = (
        [{k: v for k, v in line.items() if k not in drop} for line in run_dir.read_history(tmp_path / name)]
        for name in ("whole", "killed")
    )
    assert one == other


def test_xla_and_calls_of_several_steps_change_rounding_only(
    learnable_shards: Callable[..., Path], tmp_path: Path
) -> None:
    """Without dropout: XLA has random numbers of its own. Mixup's are drawn outside of it."""
    data_dir, experiment = learnable_shards(), _experiment(train={"mixup_alpha": 0.4, "epochs": 1})
    _train(experiment, data_dir, tmp_path / "a", xla=True)
    _train(experiment, data_dir, tmp_path / "b", steps_per_call=1)
    _assert_equal(_weights(tmp_path / "a"), _weights(tmp_path / "b"), 1e-4)


def test_accumulation_equals_the_whole_batch(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    """Without batch normalisation, whose statistics are those of a part, the sum of the parts is the whole."""
    data_dir, model = learnable_shards(), {"name": "logistic"}
    for parts in (1, 4):
        experiment = parse_experiment(merge(_BASE, {"train": {"accumulation": parts, "epochs": 1}}) | {"model": model})
        _train(experiment, data_dir, tmp_path / str(parts))
    _assert_equal(_weights(tmp_path / "1"), _weights(tmp_path / "4"), 1e-5)


def _exact(epochs: int) -> ExperimentConfig:
    """Where the arithmetic allows N replicas to equal one: no random draws, statistics over all replicas."""
    train = {"epochs": epochs, "sync_batch_norm": True}
    return _experiment(train=train, data={"split": "record"}, optimizer={"learning_rate": 1e-3})


# BUILD.md promises it after 200 steps.
_steps = pytest.mark.parametrize("steps", [10, pytest.param(200, marks=pytest.mark.slow)])


@_steps
def test_two_replicas_equal_one(
    steps: int, learnable_shards: Callable[..., Path], tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    data_dir, experiment = learnable_shards(), _exact(steps // 10)
    one = _train(experiment, data_dir, tmp_path / "one")
    two = _train(experiment, data_dir, tmp_path / "two", two_replicas)
    assert one.step == two.step == steps
    _assert_equal(_weights(tmp_path / "one"), _weights(tmp_path / "two"), 1e-5)
    assert two.best_gap == pytest.approx(one.best_gap, abs=1e-4)


@pytest.mark.slow
def test_two_replicas_accumulate_and_resume(
    learnable_shards: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    two_replicas: tf.distribute.Strategy,
) -> None:
    changes = {"train": {"accumulation": 2, "mixup_alpha": 0.4, "ema_decay": 0.9, "precision": "mixed_float16"}}
    data_dir, experiment = learnable_shards(), _experiment(**changes)
    _train_whole_and_killed(experiment, data_dir, tmp_path, two_replicas, monkeypatch)
    _assert_equal(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))


@pytest.mark.slow
def test_one_slot_with_everything_else_accumulates_and_resumes(
    learnable_shards: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    two_replicas: tf.distribute.Strategy,
) -> None:
    """RMSprop, a ranking loss and reweighted targets, whose weights are counted again when a run goes on."""
    train = {"accumulation": 2, "ema_decay": 0.9, "precision": "mixed_float16", "target_reweighting": 0.5, "epochs": 2}
    changes = {"train": train, "optimizer": {"name": "rmsprop"}, "loss": {"name": "soft_ranking", "negatives": 3}}
    data_dir, experiment = learnable_shards(), _experiment(**changes)
    _train_whole_and_killed(experiment, data_dir, tmp_path, two_replicas, monkeypatch)
    weights = _weights(tmp_path / "whole")
    _assert_equal(weights, _weights(tmp_path / "killed"))
    assert {name.split("/")[1] for name in weights if name.startswith("slots/")} == {"v"}
    history = run_dir.read_history(tmp_path / "whole")
    assert history[-1]["gap_at_20"] > history[0]["gap_at_20"]


def test_reweighted_targets_teach_reweighted_shares(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    """With inputs that say nothing, each score becomes the mean of its class's targets: p_c * (p_min / p_c) ** 4."""
    data_dir = learnable_shards(each=256, train=1)
    shares = class_prior([str(data_dir / "train0000.tfrecord")], DataConfig(num_classes=10), 1000, Faults())
    expected = shares * (shares.min() / shares) ** 4
    assert np.abs(expected - shares).max() > 0.1
    experiment = parse_experiment(
        merge(
            _BASE,
            {
                "optimizer": {"name": "rmsprop", "rho": 0.9, "learning_rate": 0.1},
                "train": {"batch_size": 256, "target_reweighting": 4, "ema_decay": 0.5, "epochs": 10},
            },
        )
        | {"model": {"name": "logistic", "l2": 1e4}}
    )
    _train(experiment, data_dir, tmp_path / "run")
    weights = _weights(tmp_path / "run")
    assert {name for name in weights if name.startswith("slots/")} == {"slots/v/logits/kernel", "slots/v/logits/bias"}
    bias = weights["ema/logits/bias"]
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), expected, atol=0.01)


def _soft_labels(data_dir: Path, directory: Path) -> dict[str, Any]:
    """Score shards that say what the true labels are, and the configuration that reads them."""
    start(directory, Manifest(("truth",), "f", 10, 3, "video"))
    counts = {}
    for shard in sorted(data_dir.glob("train*")):
        rows = []
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            labels = np.array(feature["labels"].int64_list.value)
            rows.append((feature["id"].bytes_list.value[0], labels, np.ones(len(labels))))
        counts[shard.name] = score_records.write_shard(directory / shard.name, rows)
    finish(directory, Manifest(("truth",), "f", 10, 3, "video", shards=counts))
    return {"soft": str(directory)}


def test_soft_labels_that_say_the_same_change_nothing(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    """With mixup and accumulation. All targets are 0 or 1 exactly: 0.25 * 1 + 0.75 * 1."""
    data_dir = learnable_shards()
    labels = _soft_labels(data_dir, tmp_path / "soft")
    train = {"mixup_alpha": 0.4, "accumulation": 2, "epochs": 1}
    _train(_experiment(train=train), data_dir, tmp_path / "hard")
    _train(_experiment(train=train, labels=labels | {"weight": 0.25}), data_dir, tmp_path / "both")
    _assert_equal(_weights(tmp_path / "hard"), _weights(tmp_path / "both"))


@pytest.mark.slow
def test_soft_labels_make_up_for_wrong_hard_ones(
    learnable_shards: Callable[..., Path], tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    data_dir = learnable_shards()
    labels = _soft_labels(data_dir, tmp_path / "soft")
    for shard in data_dir.glob("train*"):  # every label is another class
        wrong = []
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            values = example.features.feature["labels"].int64_list.value
            values[:] = [(value + 5) % 10 for value in values]
            wrong.append(example.SerializeToString())
        write_shard(shard, wrong)
    gaps = {}
    for weight in (0.5, 1.0):
        experiment = _experiment(labels=labels | {"weight": weight}, train={"epochs": 10})
        gaps[weight] = _train(experiment, data_dir, tmp_path / str(weight), two_replicas).best_gap
    hard = _train(_experiment(train={"epochs": 10}), data_dir, tmp_path / "hard").best_gap
    assert gaps[1.0] > 0.7 and gaps[1.0] > gaps[0.5] > hard + 0.1


@pytest.mark.slow
def test_random_draws_of_replicas_differ_but_not_the_result(
    learnable_shards: Callable[..., Path], tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    model = {"name": "resnet_like", "inner_size": 64, "dropout": 0.2}
    data_dir, experiment = learnable_shards(), _experiment(model=model, train={"epochs": 10, "mixup_alpha": 0.3})
    one = _train(experiment, data_dir, tmp_path / "one")
    two = _train(experiment, data_dir, tmp_path / "two", two_replicas)
    assert two.best_gap == pytest.approx(one.best_gap, abs=0.03) and one.best_gap > 0.8
    weights = _weights(tmp_path / "one")["model/logits/kernel"], _weights(tmp_path / "two")["model/logits/kernel"]
    assert np.abs(weights[0] - weights[1]).max() > 1e-4


@_steps
def test_two_processes_equal_one(steps: int, learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, experiment = learnable_shards(), _exact(steps // 10)
    one = _train(experiment, data_dir, tmp_path / "one")
    flags = ("--noxla", "--steps_per_call=5", "--evaluation_batch_size=64", f"--data_dir={data_dir}")
    config = f"--config={tmp_path / 'one' / run_dir.CONFIG}"
    processes = start_workers(2, config, f"--workdir={tmp_path / 'two'}", *flags)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    _assert_equal(_weights(tmp_path / "one"), _weights(tmp_path / "two"), 1e-5)
    gap = run_dir.read_history(tmp_path / "two")[-1]["gap_at_20"]
    assert gap == pytest.approx(run_dir.read_history(tmp_path / "one")[-1]["gap_at_20"], abs=1e-4)
    assert one.step == steps


def test_init_from_starts_with_another_runs_weights(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir = learnable_shards()
    _train(_experiment(train={"epochs": 1}), data_dir, tmp_path / "first")
    frozen = {"optimizer": {"learning_rate": 1e-30}, "train": {"epochs": 1, "steps_per_epoch": 1}}
    second = _experiment(**frozen)
    _train(second, data_dir, tmp_path / "second", init_from=(tmp_path / "first",), init_exclude=("logits/*",))
    first, started = checkpoints.load_trained(tmp_path / "first"), _weights(tmp_path / "second")
    for variable in first.model.trainable_variables:
        same = np.allclose(started[f"model/{variable.path}"], variable.numpy(), atol=1e-6)
        assert same == (not variable.path.startswith("logits/")), variable.path
    other = _experiment(model={"name": "resnet_like", "inner_size": 4, "dropout": 0.0})
    with pytest.raises(InputError, match="is of another model"):
        _train(other, data_dir, tmp_path / "third", init_from=(tmp_path / "first",))
    with pytest.raises(InputError, match="neither a run directory"):
        _train(other, data_dir, tmp_path / "fourth", init_from=(tmp_path,))


def test_another_configuration_is_refused(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir = learnable_shards()
    short = {"train": {"epochs": 1, "steps_per_epoch": 2}}
    _train(_experiment(**short), data_dir, tmp_path / "run")
    with pytest.raises(InputError, match=r"train\.batch_size: 32 -> 16"):
        _train(_experiment(train={"epochs": 1, "steps_per_epoch": 2, "batch_size": 16}), data_dir, tmp_path / "run")


def test_diverging_loss_is_one_clear_line(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    wild = _experiment(
        optimizer={"name": "adam", "learning_rate": 1e38, "clip_norm": None}, schedule={"warmup_steps": 0}
    )
    with pytest.raises(InputError, match=r"loss is .* lower optimizer\.learning_rate"):
        _train(wild, learnable_shards(), tmp_path / "run")


def test_early_stopping(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    still = _experiment(
        optimizer={"learning_rate": 1e-30}, train={"early_stopping_patience": 1, "epochs": 9, "steps_per_epoch": 1}
    )
    result = _train(still, learnable_shards(), tmp_path / "run")
    assert result.stopped_early and result.step < 9
