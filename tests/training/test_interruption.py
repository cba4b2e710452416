"""Signals, and several workers: all save and end together, saved runs resume exactly, and no worker hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cluster import start_workers

from yt8m_tf import run_dir
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError, Interrupted
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints, distribution, loop, resume
from yt8m_tf.training.evaluation_step import EvaluationStep
from yt8m_tf.training.interruption import Interruption
from yt8m_tf.training.step import TrainStep


def _experiment(**train: Any) -> ExperimentConfig:
    return parse_experiment(
        {
            "model": {"name": "logistic"},
            "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
            "train": {"batch_size": 32, "steps_per_epoch": 4, "epochs": 2} | train,
        }
    )


def _train(data_dir: Path, workdir: Path, strategy: Any = None, **options: Any) -> loop.TrainResult:
    options = {"steps_per_call": 1, "xla": False, "evaluation_batch_size": 64, "progress": False} | options
    strategy = strategy or tf.distribute.get_strategy()
    return loop.train(_experiment(), loop.RunOptions(str(data_dir), workdir, **options), strategy, Faults())


@pytest.fixture(scope="module")
def data_dir(make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Video-level shards; read-only."""
    return make_learnable_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    _train(data_dir, workdir)
    return workdir


def _send_at(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: int) -> None:
    """Sends signals to this process at a step."""
    original = TrainStep.train

    def train(self: TrainStep, batches: Any, at: int, *more: Any) -> Any:
        if at == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        return original(self, batches, at, *more)

    monkeypatch.setattr(TrainStep, "train", train)


def _saved(workdir: Path) -> checkpoints.State:
    state = checkpoints.latest_state(workdir)
    assert state is not None
    return state


def _assert_same(one: Path, other: Path) -> None:
    """Checks that two runs have the same weights and evaluations."""
    readers = [tf.train.load_checkpoint(str(checkpoints.find_checkpoint(path, "last")[0])) for path in (one, other)]
    for name in readers[0].get_variable_to_shape_map():
        np.testing.assert_array_equal(readers[0].get_tensor(name), readers[1].get_tensor(name), err_msg=name)
    histories = [[{**line, "seconds": 0} for line in run_dir.read_history(path)] for path in (one, other)]
    assert histories[0] == histories[1]


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGTERM, 1), pytest.param(signal.SIGINT, 3, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_step_and_ends(
    number: int, step: int, whole: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
        _send_at(patch, step, number)
        _train(data_dir, tmp_path / "run")
    # The signal came after this step's `wishes` were collected, so the next step ends the run.
    assert caught.value.number == number
    saved = step + 1 if step + 1 == 4 else step + 2
    assert f"step {saved} is saved in {tmp_path / 'run'}" in str(caught.value)
    assert _saved(tmp_path / "run").step == saved and signal.getsignal(number) is before
    assert not (tmp_path / "run" / ".lock").exists()
    _train(data_dir, tmp_path / "run")
    _assert_same(whole, tmp_path / "run")


@pytest.mark.end_to_end
def test_a_signal_during_an_evaluation_loses_nothing(
    whole: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = EvaluationStep.__call__

    def evaluate(self: EvaluationStep, batch: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="step 4 is saved"):
        patch.setattr(EvaluationStep, "__call__", evaluate)
        _train(data_dir, tmp_path / "run")
    assert _saved(tmp_path / "run").evaluation_due and not run_dir.read_history(tmp_path / "run")
    _train(data_dir, tmp_path / "run")
    _assert_same(whole, tmp_path / "run")


@pytest.mark.slow
def test_an_evaluation_that_fails_loses_no_step(
    whole: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(InputError, match="bad validation data"):
        patch.setattr(EvaluationStep, "__call__", lambda *_: (_ for _ in ()).throw(InputError("bad validation data")))
        _train(data_dir, tmp_path / "run")
    assert _saved(tmp_path / "run").step == 4
    _train(data_dir, tmp_path / "run")
    _assert_same(whole, tmp_path / "run")


def test_a_second_signal_ends_at_once() -> None:
    with pytest.raises(Interrupted), Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the process continued")


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.number is None
    finally:
        signal.signal(signal.SIGINT, before)


def _with_wishes(monkeypatch: pytest.MonkeyPatch, agreed: dict[int, tuple[float, float]]) -> list[tuple[float, ...]]:
    """Simulates `wishes` of other workers at some steps; returns this worker's own ones, step by step."""
    original, own = TrainStep.train, []

    def train(self: TrainStep, batches: Any, at: int, rates: Any, wishes: Any) -> Any:
        own.append(tuple(wishes))
        return {**original(self, batches, at, rates, wishes), "wishes": agreed.get(at, (0.0, 0.0))}

    monkeypatch.setattr(TrainStep, "train", train)
    return own


def test_only_decisions_of_all_workers_are_carried_out(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With separate clocks, workers would enter the collective that starts a save at different steps, and hang."""
    saved: list[int] = []
    original = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *call: (saved.append(call[1]), original(*call)))
    own = _with_wishes(monkeypatch, {1: (0.5, 0.0), 5: (0.0, 0.5)})
    with pytest.raises(Interrupted, match="another worker was interrupted; step 6 is saved") as caught:
        _train(data_dir, tmp_path / "run", checkpoint_minutes=-1.0)
    assert caught.value.number == signal.SIGTERM
    assert own == [(1.0, 0.0)] * 6  # its own clock requests a save at every step
    assert saved == [2, 4, 4, 6]  # before and after the evaluation


def test_requests_of_any_replica_reach_all(data_dir: Path, two_replicas: tf.distribute.Strategy) -> None:
    from yt8m_tf.training.loop import build_for_training
    from yt8m_tf.training.state import TrainState

    batch = {"rgb": tf.ones([2, 8]), "audio": tf.ones([2, 4]), "labels": tf.constant([[0], [2]])}
    for accumulation in (1, 2):
        experiment = _experiment(accumulation=accumulation)
        with two_replicas.scope():
            state = TrainState(build_for_training(experiment), experiment)
        step = TrainStep(state, experiment, two_replicas, xla=False)
        parts = [two_replicas.experimental_distribute_values_from_function(lambda _: batch)] * accumulation
        wishes = step.train(parts, 0, [0.1], (0.0, 1.0))["wishes"]
        assert float(wishes[0]) == 0 < float(wishes[1])


def test_the_loss_of_another_worker_gives_a_one_line_error(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted by: failed to connect\n" * 9)

    monkeypatch.setattr(TrainStep, "train", fail)
    with pytest.raises(tf.errors.UnavailableError):  # in a single process, the cause would be something else
        _train(data_dir, tmp_path / "run")
    monkeypatch.setattr(distribution, "num_workers", lambda _: 2)
    monkeypatch.setattr(distribution, "worker_index", lambda _: 0)
    monkeypatch.setattr(distribution, "gather_texts", fail)
    with pytest.raises(InputError, match="another worker has ended, and its own message says why") as caught:
        _train(data_dir, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_directory_that_workers_do_not_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "num_workers", lambda _: 2)
    monkeypatch.setattr(distribution, "worker_index", lambda _: 1)
    monkeypatch.setattr(distribution, "gather_texts", lambda *_: ["process 1 on chief", ""])
    monkeypatch.setattr(resume, "_SHARED_SECONDS", 0.0)
    with pytest.raises(InputError, match=r"does not see there what the chief \(process 1 on chief\) writes"):
        _train(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # only the chief writes


def test_losses_of_all_workers_are_reported_once(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = '{"damaged": {"x": {"path": "x", "record": 3, "offset": 9, "reason": "cut"}}, "num_empty": 2}'
    monkeypatch.setattr(
        distribution, "gather_texts", lambda _, text: [text, other, other] if "damaged" in text else [text]
    )
    assert _train(data_dir, tmp_path / "run").skipped == (
        "skipped the rest of a damaged shard: x: damaged at byte 9, record 3 (cut)",
        "left out 4 clips without frames",
    )


_FLAGS = (
    "--config=first_level/logistic.yaml",
    "--set=data={features: {rgb: 8, audio: 4}, num_classes: 10, shuffle_shards: 2}",
    "--noxla",
)


@pytest.mark.slow
def test_two_workers_save_all_the_time(data_dir: Path, tmp_path: Path) -> None:
    flags = (*_FLAGS, "--set=train={batch_size: 32, steps_per_epoch: 100, epochs: 2}", f"--data_dir={data_dir}")
    processes = start_workers(2, *flags, "--checkpoint_minutes=0.0001", f"--workdir={tmp_path / 'run'}")
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_error_in_one_of_two_workers_ends_both(number: int, who: int, data_dir: Path, tmp_path: Path) -> None:
    flags = (*_FLAGS, "--set=train={batch_size: 32, steps_per_epoch: 100, epochs: 10000}", f"--data_dir={data_dir}")
    processes = start_workers(2, *flags, f"--workdir={tmp_path / 'run'}")
    while not list(tmp_path.glob("run/checkpoints/step_*")) and processes[0].poll() is None:
        time.sleep(0.1)
    processes[who].send_signal(number)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for worker, (process, output) in enumerate(zip(processes, outputs, strict=True)):
        lines = [line for line in output.splitlines() if "error" in line]
        if number == signal.SIGTERM:
            told = "error: interrupted; step" if worker == who else "error: another worker was interrupted; step"
            assert process.returncode == 143 and len(lines) == 1 and told in lines[0], output
        elif worker != who:
            assert process.returncode == 1 and len(lines) == 1 and "another worker has ended" in lines[0], output
