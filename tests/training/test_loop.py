"""The training loop: it learns, resumes exactly, and gives the same result on several replicas."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cluster import start_workers
from killed import killed_at
from shards import video_record, write_shard

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
from yt8m_tf.training import checkpoints, loop, resume, state
from yt8m_tf.training.loop import RunOptions, TrainResult

# Short runs spend most of their time on tracing, which grows with the number of variables: keep it small.
_SMALL = {"name": "resnet_like", "inner_size": 8, "av_blocks": 0, "concat_blocks": 0}
_BASE = {
    "model": _SMALL | {"dropout": 0.0},
    "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "schedule": {"name": "cosine", "warmup_steps": 5},
    "train": {"batch_size": 32, "steps_per_epoch": 10, "epochs": 3, "seed": 3},
}
_SHORT = {"steps_per_epoch": 4, "epochs": 2}
_RANDOM = {"model": _SMALL | {"dropout": 0.3}, "train": {"mixup_alpha": 0.4}}


def _experiment(**changes: Any) -> ExperimentConfig:
    return parse_experiment(merge(_BASE, changes))


def _train(
    experiment: ExperimentConfig, data_dir: Path, workdir: Path, strategy: Any = None, **options: Any
) -> TrainResult:
    options = {"steps_per_call": 2, "xla": False, "evaluation_batch_size": 64, "progress": False} | options
    run_options = RunOptions(str(data_dir), workdir, **options)
    return loop.train(experiment, run_options, strategy or tf.distribute.get_strategy(), Faults())


@pytest.fixture(scope="module")
def data_dir(make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Video-level shards; read-only."""
    return make_learnable_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def exact_run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A short run of `_exact` on one replica; read-only."""
    workdir = tmp_path_factory.mktemp("exact") / "one"
    return workdir, _train(_exact(**_SHORT), data_dir, workdir)


def _weights(workdir: Path, which: str = "last") -> dict[str, np.ndarray]:
    state = checkpoints.latest_state(workdir)
    assert state is not None
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"step_{state.step:08d}" / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys() and one
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=0, atol=tolerance, err_msg=name)


def _train_whole_and_killed(experiment: ExperimentConfig, data_dir: Path, parent: Path, strategy: Any) -> None:
    """Trains a run `whole`, and a run `killed` that is killed at step 15 and resumed."""
    _train(experiment, data_dir, parent / "whole", strategy)
    with killed_at(15):
        _train(experiment, data_dir, parent / "killed", strategy)
    _train(experiment, data_dir, parent / "killed", strategy)


@pytest.mark.parametrize("level", ["video", pytest.param("frame", marks=pytest.mark.slow)])
def test_learns_and_writes_its_files(level: str, learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir = learnable_shards(level)
    model = {"name": "mean_fcn", "hidden_sizes": [32], "dropout": 0.0} if level == "frame" else {"name": "logistic"}
    data = {"level": level, "max_frames": 8}
    train = {"epochs": 6, "validation_examples": 59}  # not a multiple of the batch size
    changed = merge(_BASE, {"data": data, "optimizer": {"learning_rate": 0.1}, "train": train})
    experiment = parse_experiment(changed | {"model": model})
    result = _train(experiment, data_dir, tmp_path / "run", histograms=True)
    history = run_dir.read_history(tmp_path / "run")
    assert {line["num_videos"] for line in history} == {59}
    assert [line["step"] for line in history] == [10, 20, 30, 40, 50, 60]
    assert result.best_gap > 0.85 and result.best_gap > history[0]["gap_at_20"] + 0.05
    assert run_dir.read_experiment(tmp_path / "run") == experiment
    tags = _event_tags(tmp_path / "run")
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


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("changes", "kills", "steps_per_call", "xla"),
    [
        (
            {"schedule": {"name": "plateau", "patience": 0}, "train": _SHORT | {"ema_decay": 0.9}},
            (0, 6),
            2,
            False,
        ),
        pytest.param({"schedule": {"name": "plateau", "patience": 0}}, (5, 15), 5, True, marks=pytest.mark.slow),
        pytest.param({"train": {"accumulation": 4, "ema_decay": 0.9}}, (5, 15), 5, False, marks=pytest.mark.slow),
    ],
    ids=["short", "plateau", "accumulation and ema"],
)
def test_killed_run_ends_with_equal_weights(
    changes: dict[str, Any],
    kills: tuple[int, int],
    steps_per_call: int,
    xla: bool,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    """The run is killed before the first evaluation, when nothing is saved yet, and within a later epoch."""
    experiment = _experiment(**merge(_RANDOM, changes))
    options: dict[str, Any] = {"steps_per_call": steps_per_call, "xla": xla}
    whole = _train(experiment, data_dir, tmp_path / "whole", **options)
    for step, minutes in zip(kills, (10.0, 0.0), strict=True):
        with killed_at(step):
            # Saving after every call leaves checkpoints in the middle of an epoch.
            _train(experiment, data_dir, tmp_path / "killed", checkpoint_minutes=minutes, **options)
    resumed = _train(experiment, data_dir, tmp_path / "killed", **options)
    _assert_equal(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))
    assert resumed == whole
    drop = {"seconds"}
    one, other = (
        [{k: v for k, v in line.items() if k not in drop} for line in run_dir.read_history(tmp_path / name)]
        for name in ("whole", "killed")
    )
    assert one == other


@pytest.mark.end_to_end
def test_xla_and_calls_of_several_steps_change_rounding_only(data_dir: Path, tmp_path: Path) -> None:
    """The runs have no dropout, as XLA has its own random numbers; those of mixup are drawn outside XLA."""
    experiment = _experiment(train=_SHORT | {"mixup_alpha": 0.4, "epochs": 1})
    _train(experiment, data_dir, tmp_path / "a", xla=True)
    _train(experiment, data_dir, tmp_path / "b", steps_per_call=1)
    _assert_equal(_weights(tmp_path / "a"), _weights(tmp_path / "b"), 1e-4)


@pytest.mark.end_to_end
def test_accumulation_equals_the_whole_batch(data_dir: Path, tmp_path: Path) -> None:
    """Without batch normalisation, whose statistics are those of a part, the gradients of the parts add up exactly."""
    for parts in (1, 4):
        changed = merge(_BASE, {"train": {"accumulation": parts, "epochs": 1}})
        _train(parse_experiment(changed | {"model": {"name": "logistic"}}), data_dir, tmp_path / str(parts))
    _assert_equal(_weights(tmp_path / "1"), _weights(tmp_path / "4"), 1e-5)


def _exact(**train: int) -> ExperimentConfig:
    """A configuration that makes N replicas equal to one: no random draws, statistics over all replicas."""
    train = {"epochs": 20, "sync_batch_norm": True} | train
    return _experiment(train=train, data={"split": "record"}, optimizer={"learning_rate": 1e-3})


@pytest.mark.slow  # test_teacher.py trains on two replicas in the fast set
def test_two_replicas_equal_one(
    data_dir: Path,
    exact_run: tuple[Path, TrainResult],
    tmp_path: Path,
    two_replicas: tf.distribute.Strategy,
) -> None:
    one_dir, one = exact_run
    two = _train(_exact(**_SHORT), data_dir, tmp_path / "two", two_replicas)
    assert one.step == two.step == 8
    _assert_equal(_weights(one_dir), _weights(tmp_path / "two"), 1e-5)
    assert two.best_gap == pytest.approx(one.best_gap, abs=1e-4)


@pytest.mark.slow
def test_two_replicas_equal_one_after_200_steps(
    learnable_shards: Callable[..., Path], tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    data_dir, experiment = learnable_shards(), _exact()
    one = _train(experiment, data_dir, tmp_path / "one")
    two = _train(experiment, data_dir, tmp_path / "two", two_replicas)
    assert one.step == two.step == 200
    _assert_equal(_weights(tmp_path / "one"), _weights(tmp_path / "two"), 1e-5)
    assert two.best_gap == pytest.approx(one.best_gap, abs=1e-4)


@pytest.mark.slow
def test_two_replicas_accumulate_and_resume(
    learnable_shards: Callable[..., Path],
    tmp_path: Path,
    two_replicas: tf.distribute.Strategy,
) -> None:
    changes = {"train": {"accumulation": 2, "mixup_alpha": 0.4, "ema_decay": 0.9, "precision": "mixed_float16"}}
    data_dir, experiment = learnable_shards(), _experiment(**changes)
    _train_whole_and_killed(experiment, data_dir, tmp_path, two_replicas)
    _assert_equal(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))


@pytest.mark.slow
def test_an_optimizer_with_one_slot_accumulates_and_resumes(
    learnable_shards: Callable[..., Path],
    tmp_path: Path,
    two_replicas: tf.distribute.Strategy,
) -> None:
    """RMSprop, a ranking loss and reweighted targets, whose weights are recomputed when a run resumes."""
    train = {"accumulation": 2, "ema_decay": 0.9, "precision": "mixed_float16", "target_reweighting": 0.5, "epochs": 2}
    changes = {"train": train, "optimizer": {"name": "rmsprop"}, "loss": {"name": "soft_ranking", "negatives": 3}}
    data_dir, experiment = learnable_shards(), _experiment(**changes)
    _train_whole_and_killed(experiment, data_dir, tmp_path, two_replicas)
    weights = _weights(tmp_path / "whole")
    _assert_equal(weights, _weights(tmp_path / "killed"))
    assert {name.split("/")[1] for name in weights if name.startswith("slots/")} == {"v"}
    history = run_dir.read_history(tmp_path / "whole")
    assert history[-1]["gap_at_20"] > history[0]["gap_at_20"]


@pytest.mark.end_to_end
def test_reweighted_targets_teach_reweighted_shares(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    """With constant inputs, each score becomes the mean target of its class: p_c * (p_min / p_c) ** 4."""
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
    """Writes score shards that contain the true labels; returns the configuration that reads them."""
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


@pytest.mark.end_to_end
def test_soft_labels_equal_to_hard_ones_change_nothing(data_dir: Path, tmp_path: Path) -> None:
    """The runs use mixup and accumulation. All targets are exactly 0 or 1: 0.25 * 1 + 0.75 * 1."""
    labels = _soft_labels(data_dir, tmp_path / "soft")
    train = _SHORT | {"mixup_alpha": 0.4, "accumulation": 2}
    _train(_experiment(train=train), data_dir, tmp_path / "hard")
    _train(_experiment(train=train, labels=labels | {"weight": 0.25}), data_dir, tmp_path / "both")
    _assert_equal(_weights(tmp_path / "hard"), _weights(tmp_path / "both"))


@pytest.mark.slow
def test_soft_labels_make_up_for_wrong_hard_ones(
    learnable_shards: Callable[..., Path], tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    data_dir = learnable_shards()
    labels = _soft_labels(data_dir, tmp_path / "soft")
    for shard in data_dir.glob("train*"):  # every label becomes another class
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


def _assert_two_processes_equal(one_dir: Path, data_dir: Path, workdir: Path, steps_per_call: int) -> None:
    """Repeats the one-process run of `one_dir` in two processes, and compares the results."""
    flags = (
        "--noxla",
        f"--steps_per_call={steps_per_call}",
        "--evaluation_batch_size=64",
        f"--config={one_dir / run_dir.CONFIG}",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
    )
    processes = start_workers(2, *flags)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    _assert_equal(_weights(one_dir), _weights(workdir), 1e-5)
    gap = run_dir.read_history(workdir)[-1]["gap_at_20"]
    assert gap == pytest.approx(run_dir.read_history(one_dir)[-1]["gap_at_20"], abs=1e-4)


@pytest.mark.end_to_end
def test_two_processes_equal_one(data_dir: Path, exact_run: tuple[Path, TrainResult], tmp_path: Path) -> None:
    one_dir, one = exact_run
    _assert_two_processes_equal(one_dir, data_dir, tmp_path / "two", steps_per_call=2)
    assert one.step == 8


@pytest.mark.slow
def test_two_processes_equal_one_after_200_steps(data_dir: Path, tmp_path: Path) -> None:
    one = _train(_exact(), data_dir, tmp_path / "one", steps_per_call=5)
    _assert_two_processes_equal(tmp_path / "one", data_dir, tmp_path / "two", steps_per_call=5)
    assert one.step == 200


@pytest.mark.end_to_end
def test_init_from_starts_with_another_runs_weights(
    data_dir: Path, exact_run: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    first_dir, _ = exact_run
    frozen = {"optimizer": {"learning_rate": 1e-30}, "train": {"epochs": 1, "steps_per_epoch": 1}}
    second = _experiment(**frozen)
    _train(second, data_dir, tmp_path / "second", init_from=(first_dir,), init_exclude=("logits/*",))
    first, started = checkpoints.load_trained(first_dir), _weights(tmp_path / "second")
    for variable in first.model.trainable_variables:
        same = np.allclose(started[f"model/{variable.path}"], variable.numpy(), atol=1e-6)
        assert same == (not variable.path.startswith("logits/")), variable.path
    other = _experiment(model={"name": "resnet_like", "inner_size": 4, "dropout": 0.0})
    with pytest.raises(InputError, match="is of another model"):
        _train(other, data_dir, tmp_path / "third", init_from=(first_dir,))
    with pytest.raises(InputError, match="neither a run directory"):
        _train(other, data_dir, tmp_path / "fourth", init_from=(tmp_path,))


def test_another_configuration_is_refused(data_dir: Path, exact_run: tuple[Path, TrainResult], tmp_path: Path) -> None:
    shutil.copytree(exact_run[0], tmp_path / "run")
    with pytest.raises(InputError, match=r"train\.batch_size: 32 -> 16"):
        _train(_exact(**_SHORT, batch_size=16), data_dir, tmp_path / "run")


def test_a_diverging_loss_gives_a_one_line_error(data_dir: Path, tmp_path: Path) -> None:
    changes = {
        "optimizer": {"name": "adam", "learning_rate": 1e38, "clip_norm": None},
        "schedule": {"warmup_steps": 0},
    }
    wild = parse_experiment(merge(_BASE, changes) | {"model": {"name": "logistic"}})
    with pytest.raises(InputError, match=r"loss is .* lower optimizer\.learning_rate"):
        _train(wild, data_dir, tmp_path / "run")


def test_a_run_in_float16_that_is_always_nan_ends(
    learnable_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With features beyond the range of float16, every update is skipped at any loss scale."""
    monkeypatch.setattr(state, "_FIRST_LOSS_SCALE", 2.0)
    data_dir = learnable_shards(train=0, validate=1)
    sizes = {name: np.full(size, 1e30, np.float32) for name, size in (("rgb", 8), ("audio", 4))}
    huge = [video_record(b"v%03d" % i, [i % 10], **sizes) for i in range(64)]
    write_shard(data_dir / "train0000.tfrecord", huge)
    changes = {"train": {"precision": "mixed_float16", "batch_size": 2, "steps_per_epoch": 1000}}
    experiment = parse_experiment(merge(_BASE, changes) | {"model": {"name": "logistic"}})
    with pytest.raises(InputError, match=r"updates up to step 2\d were skipped: .*train\.precision") as error:
        _train(experiment, data_dir, tmp_path / "run")
    assert "\n" not in str(error.value)


def test_early_stopping(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without batch normalisation, whose statistics move, nothing changes after the first evaluation.

    The progress bar shows the loss of the last update.
    """
    losses: list[float] = []
    real = loop.TrainStep.train

    def spy(*arguments: Any) -> Any:
        outputs = real(*arguments)
        losses.append(float(outputs["loss"]))
        return outputs

    monkeypatch.setattr(loop.TrainStep, "train", spy)
    train = {"early_stopping_patience": 1, "epochs": 9, "steps_per_epoch": 2}
    changed = merge(_BASE, {"optimizer": {"learning_rate": 1e-30}, "train": train})
    still = parse_experiment(changed | {"model": {"name": "logistic"}})
    result = _train(still, data_dir, tmp_path / "run", steps_per_call=1, progress=True)
    assert result.stopped_early and result.step == 6  # two evaluations without improvement exceed the patience of one
    last = capsys.readouterr().err.splitlines()[-1]
    assert len({f"{loss:.5f}" for loss in losses[-2:]}) == 2  # of the same window
    assert "100%, 6 of 6" in last and f"loss {losses[-1]:.5f}, " in last and last.endswith(" examples/s")


def test_trunks_of_other_inputs_are_refused(tmp_path: Path) -> None:
    """Their weights would fit the final network, but were trained on differently scaled inputs."""
    net = {"name": "small_net", "variant": "a", "width": 8}
    for name, unit in (("unit", True), ("raw", False)):
        run_dir.prepare(tmp_path / name, parse_experiment(_BASE | {"model": {**net, "unit_inputs": unit}}))
    final = parse_experiment(_BASE | {"model": {"name": "final_network", "width": 8, "unit_inputs": True}})
    resume.check_same_inputs(final, [tmp_path / "unit"])
    with pytest.raises(InputError, match=r"raw: was trained with model\.unit_inputs False, this run has True; set"):
        resume.check_same_inputs(final, [tmp_path / "unit", tmp_path / "raw"])
