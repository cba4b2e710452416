"""Checkpoints: which ones are kept, that saving is atomic, and messages about unusable ones."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf import files, run_dir
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints, initial_weights, resume
from yt8m_tf.training.checkpoints import State
from yt8m_tf.training.schedule import Plateau
from yt8m_tf.training.state import TrainState


def _experiment(ema_decay: float | None = None, **model: Any) -> ExperimentConfig:
    return parse_experiment(
        {
            "model": {"name": "resnet_like", "inner_size": 4, "av_blocks": 0, "concat_blocks": 0, "dropout": 0.5}
            | model,
            "data": {"features": {"rgb": 3, "audio": 2}, "num_classes": 5},
            "train": {"ema_decay": ema_decay},
        }
    )


def _state(experiment: ExperimentConfig) -> TrainState:
    return TrainState(build_model(experiment.model, experiment.data.spec), experiment)


def _fill(variables: dict[str, Any], value: float) -> dict[str, Any]:
    for number, variable in enumerate(variables.values()):
        variable.assign(tf.fill(variable.shape, value + number))
    return variables


def _values(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: variable.numpy().copy() for name, variable in variables.items()}


def _steps(workdir: Path) -> list[str]:
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def _save(workdir: Path, step: int, best_step: int = 0, value: float | None = None) -> None:
    variable = tf.Variable([float(step) if value is None else value])
    checkpoints.save(workdir, step, {"model/x": variable}, {"best_step": best_step})


def _restored(workdir: Path, step: int) -> float:
    variable = tf.Variable([0.0])
    checkpoints.restore(workdir, step, {"model/x": variable})
    return float(variable[0])


@pytest.mark.parametrize(
    ("best_steps", "kept"),
    [
        ([1, 2, 3, 4, 5], [4, 5]),
        ([1, 2, 2, 2, 2], [2, 4, 5]),
        ([1, 1, 1, 1, 5], [4, 5]),  # the old best is no longer needed
        ([0, 0, 0, 0, 0], [4, 5]),  # saved before the first evaluation
    ],
)
def test_the_last_two_and_the_best_are_kept(best_steps: list[int], kept: list[int], tmp_path: Path) -> None:
    for step, best_step in enumerate(best_steps, 1):
        _save(tmp_path, step, best_step)
        state = checkpoints.latest_state(tmp_path)
        assert state is not None and state.step == step and state.best_step == best_step
        assert best_step == 0 or f"step_{best_step:08d}" in _steps(tmp_path)
    assert _steps(tmp_path) == [f"step_{step:08d}" for step in kept]
    assert [_restored(tmp_path, step) for step in kept] == kept


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert checkpoints.latest_state(tmp_path) is None
    run_dir.prepare(tmp_path, _experiment())
    with pytest.raises(InputError, match="no checkpoint yet; run yt8m-train up"):
        checkpoints.load_trained(tmp_path)


def test_saving_a_step_again_keeps_its_variables_and_writes_its_state(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 1, best_step=1, value=9.0)
    assert _restored(tmp_path, 1) == 1.0
    assert checkpoints.latest_state(tmp_path) == State(1, 1)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001", "state.json"])
@pytest.mark.parametrize("size", [None, 0, 3])
def test_an_incomplete_checkpoint_is_moved_aside_when_its_step_is_saved_again(
    name: str, size: int | None, tmp_path: Path
) -> None:
    for attempt in range(2):
        _save(tmp_path, 1)
        path = tmp_path / "checkpoints" / "step_00000001" / name
        if size is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:size])
        assert checkpoints.fault(path.parent)
        _save(tmp_path, 1, value=7.0)
        assert _restored(tmp_path, 1) == 7.0 and checkpoints.fault(path.parent) is None
        aside = path.parent.with_name(f"step_00000001.broken{attempt or ''}")
        assert len(list(aside.iterdir())) == (2 if size is None else 3)  # no file is lost
    assert checkpoints.latest_state(tmp_path) == State(1)


def test_an_incomplete_checkpoint_is_neither_removed_nor_counted_as_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _save(tmp_path, step, best_step=3)
    (tmp_path / "checkpoints" / "step_00000002" / "state.json").unlink()
    for step in (4, 5):
        _save(tmp_path, step, best_step=3)
    assert _steps(tmp_path) == [f"step_{step:08d}" for step in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"step": 1}',
        '{"step": "2"}',
        '{"step": 2, "positions": "x"}',
        '{"step": 2, "plateau": []}',
        "[" * 99999,
    ],
)
def test_an_invalid_state_is_named(content: str, run: Path) -> None:
    state = run / "checkpoints" / "step_00000002" / "state.json"
    state.write_text(content)
    with pytest.raises(InputError) as caught:
        checkpoints.latest_state(run)
    message = str(caught.value)
    assert message.startswith(f"checkpoint '{state.parent}' is damaged (") and "\n" not in message
    assert message.endswith("); move it away to continue from the checkpoint before it")


def test_a_state_from_before_the_first_evaluation(run: Path) -> None:
    """Python writes Infinity, which is not valid JSON."""
    state = run / "checkpoints" / "step_00000002" / "state.json"
    state.write_text('{"step": 2, "best_step": 0, "positions": [7], "plateau": {"best": Infinity, "best_gap": -1.0}}')
    assert checkpoints.latest_state(run) == State(2, 0, (7,), Plateau())


def test_the_best_checkpoint_is_missing_or_incomplete(run: Path) -> None:
    checkpoints.save(run, 3, _state(_experiment()).named(), {"best_step": 1})
    best = run / "checkpoints" / "step_00000001"
    (best / "variables.index").unlink()
    with pytest.raises(InputError, match=r"step_00000001' is incomplete.*take the newest one with --checkpoint=last"):
        checkpoints.load_trained(run)
    best.rename(run / "away")
    with pytest.raises(InputError, match=r"its best checkpoint, that of step 1, is missing;.*with --checkpoint=last"):
        checkpoints.load_trained(run)
    assert checkpoints.load_trained(run, "last").step == 3
    with pytest.raises(
        InputError, match=f"--init_from={run}: its best.*with --init_from={run}/checkpoints/step_00000003"
    ):
        initial_weights.init_from([run], _state(_experiment()).named())


def test_the_only_checkpoint_is_incomplete(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    (tmp_path / "checkpoints" / "step_00000001" / "state.json").unlink()
    with pytest.raises(InputError, match="the run has no other checkpoint: fetch it again, or start over in another"):
        checkpoints.latest_state(tmp_path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), InputError)],
    ids=["killed", "full disk"],
)
@pytest.mark.parametrize("where", ["variables", "state", "rename"])
def test_an_interrupted_save_keeps_the_previous_checkpoint(
    where: str,
    error: BaseException,
    expected: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _save(tmp_path, 1)

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise error

    owner, name = {
        "variables": (tf.raw_ops, "SaveV2"),
        "state": (checkpoints.json, "dumps"),
        "rename": (files.os, "replace"),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        with pytest.raises(expected) as caught:
            _save(tmp_path, 2)
    assert expected is KeyboardInterrupt or "cannot be written (No space left on device)" in str(caught.value)
    assert _steps(tmp_path) == ["step_00000001"]
    state = checkpoints.latest_state(tmp_path)
    assert state is not None and state.step == 1 and _restored(tmp_path, 1) == 1.0


def test_the_holder_of_the_lock_removes_files_of_a_killed_process(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    left = tmp_path / "checkpoints" / ".step_00000002.1a2b3c4d.tmp"
    left.mkdir()
    (left / "state.json").write_text("{}")
    state = checkpoints.latest_state(tmp_path)
    assert state is not None and state.step == 1
    _save(tmp_path, 3)
    assert left.is_dir()  # its process might still run
    checkpoints.remove_unfinished(tmp_path)
    assert _steps(tmp_path) == ["step_00000001", "step_00000003"]


def test_all_variables_are_restored_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    experiment = _experiment(ema_decay=0.9)
    variables = _state(experiment).named()
    for variable in variables.values():
        variable.assign(rng.normal(size=variable.shape))
    before = _values(variables)
    assert {name.split("/")[0] for name in before} == {"model", "slots", "ema"}
    assert any("moving_variance" in name for name in before) and not any("seed" in name for name in before)
    checkpoints.save(tmp_path, 7, variables, {"best_step": 7, "positions": [2**40], "plateau": {"best": 0.1}})
    other = _state(experiment).named()
    checkpoints.restore(tmp_path, 7, other)
    for name, value in _values(other).items():
        np.testing.assert_array_equal(value, before[name])
    assert checkpoints.latest_state(tmp_path) == State(7, 7, (2**40,), Plateau(best=0.1))
    saved = dict(tf.train.list_variables(str(tmp_path / "checkpoints" / "step_00000007" / "variables")))
    assert saved.keys() == before.keys()  # plain names, without TensorFlow's suffix


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_load_trained_best_and_last(ema_decay: float | None, tmp_path: Path) -> None:
    experiment = _experiment(ema_decay)
    run_dir.prepare(tmp_path, experiment)
    variables, values = _state(experiment).named(), {}
    for step in (10, 20, 30, 40):
        checkpoints.save(tmp_path, step, _fill(variables, float(step)), {"best_step": min(step, 20)})
        values[step] = _values(variables)
    for which, step in (("best", 20), ("last", 40)):
        trained = checkpoints.load_trained(tmp_path, which)
        assert trained.step == step and trained.experiment == experiment
        assert trained.checkpoint == tmp_path / "checkpoints" / f"step_{step:08d}" / "variables"
        found = {v.path: v.numpy() for v in trained.model.variables if v.name != "seed_generator_state"}
        for path, value in found.items():
            average = f"ema/{path}"  # weights are averaged, batch statistics are not
            assert (average in values[step]) == (ema_decay is not None and "moving_" not in path)
            expected = values[step].get(average, values[step][f"model/{path}"])
            np.testing.assert_array_equal(value, expected, err_msg=path)
            assert value.dtype == np.float32


def test_load_trained_before_the_first_evaluation_takes_the_last(tmp_path: Path) -> None:
    experiment = _experiment()
    run_dir.prepare(tmp_path, experiment)
    checkpoints.save(tmp_path, 3, _state(experiment).named(), {"best_step": 0})
    assert checkpoints.load_trained(tmp_path).step == 3


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2."""
    experiment = _experiment()
    run_dir.prepare(tmp_path, experiment)
    variables = _state(experiment).named()
    for step in (1, 2):
        checkpoints.save(tmp_path, step, _fill(variables, float(step)), {"best_step": step})
    return tmp_path


def test_a_checkpoint_of_another_model_is_named(run: Path) -> None:
    wider = _state(_experiment(inner_size=6)).named()
    with pytest.raises(InputError) as caught:
        checkpoints.restore(run, 2, wider)
    message = str(caught.value)
    assert f"checkpoint '{run}/checkpoints/step_00000002' is of another model: 'model/" in message
    assert "6" in message and "the checkpoint has it as [" in message and "\n" not in message
    deeper = _state(_experiment(concat_blocks=4)).named()
    before = _values(deeper)
    with pytest.raises(InputError, match="is needed, the checkpoint does not have it"):
        checkpoints.restore(run, 2, deeper)
    for name, value in _values(deeper).items():  # nothing was restored in part
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(InputError, match="is of another model: 'ema/"):
        checkpoints.restore(run, 2, _state(_experiment(ema_decay=0.5)).named())


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("variables.index", 20),
        ("variables.index", 0),
        ("variables.index", None),
        ("variables.data-00000-of-00001", 30),
        ("variables.data-00000-of-00001", None),
        ("state.json", 10),
        ("state.json", 0),
        ("state.json", None),
    ],
)
def test_an_incomplete_checkpoint_is_named(name: str, size: int | None, run: Path) -> None:
    path = run / "checkpoints" / "step_00000002" / name
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError) as caught:
        checkpoints.load_trained(run)
    message = str(caught.value)
    assert message.startswith(f"checkpoint '{path.parent}' is ") and "\n" not in message
    assert message.endswith("move it away to continue from the checkpoint before it")
    with pytest.raises(InputError, match=r"is damaged|is incomplete"):
        checkpoints.latest_state(run)
        checkpoints.restore(run, 2, _state(_experiment()).named())
    # The remedy in the message works.
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    assert checkpoints.load_trained(run).step == 1


def test_a_flipped_bit_is_found(run: Path) -> None:
    path = run / "checkpoints" / "step_00000002" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"step_00000002' is damaged \("):
        checkpoints.restore(run, 2, _state(_experiment()).named())


def _resumed(run: Path) -> State:
    strategy = tf.distribute.get_strategy()
    saved = resume.saved_state(run, _experiment(), strategy, show=False)
    assert saved is not None and saved == checkpoints.latest_state(run)  # what is stored is what training goes on from
    return saved


@pytest.mark.parametrize("how", ["missing", "incomplete"])
def test_another_checkpoint_takes_the_place_of_the_best(how: str, run: Path) -> None:
    """The state is repaired, too, so that evaluation finds the checkpoint that training calls the best."""
    state = {"best_step": 1, "positions": [7], "plateau": {"best_gap": 0.75, "since_best": 2}}
    checkpoints.save(run, 3, _state(_experiment()).named(), state)
    for step, gap in ((1, 0.75), (2, 0.5), (3, 0.25)):
        run_dir.append_history(run, {"step": step, "gap_at_20": gap})
    assert _resumed(run).best_step == 1
    best = run / "checkpoints" / "step_00000001"
    if how == "missing":
        best.rename(run / "away")
    else:
        (best / "variables.index").unlink()
    saved = _resumed(run)
    assert (saved.step, saved.best_step, saved.positions) == (3, 2, (7,))
    assert (saved.plateau.best_gap, saved.plateau.since_best) == (0.5, 2)
    assert checkpoints.load_trained(run).step == 2


def test_without_a_history_the_last_checkpoint_is_evaluated_again(run: Path) -> None:
    steps = _experiment().train.steps_per_epoch
    state = {"best_step": 1, "plateau": {"best_gap": 0.75}}
    (run / "checkpoints" / "step_00000001").rename(run / "away")
    for step, due in ((steps + 1, False), (2 * steps, True)):
        checkpoints.save(run, step, _state(_experiment()).named(), state)
        saved = _resumed(run)
        assert (saved.best_step, saved.plateau.best_gap, saved.evaluation_due) == (0, -1.0, due)
        assert checkpoints.load_trained(run).step == step


def _started(source: Path, ema_decay: float | None = None, exclude: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    variables = _fill(_state(_experiment(ema_decay)).named(), -100.0)
    initial_weights.init_from([source], variables, exclude)
    return _values(variables)


def test_init_from_reads_only_the_best_weights(tmp_path: Path) -> None:
    variables, saved = _state(_experiment()).named(), {}
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, _fill(variables, 100.0 * step), {"best_step": min(2, step)})
        saved[step] = _values(variables)
    untouched = _values(_fill(_state(_experiment()).named(), -100.0))
    for source, step in ((tmp_path, 2), (tmp_path / "checkpoints" / "step_00000003", 3)):
        for name, value in _started(source, exclude=("logits/*",)).items():
            read = name.startswith("model/") and "/logits/" not in name
            np.testing.assert_array_equal(value, saved[step][name] if read else untouched[name], err_msg=name)
    started = _started(tmp_path, ema_decay=0.9)  # the averages start from the weights
    for name, value in started.items():
        if name.startswith("ema/"):
            np.testing.assert_array_equal(value, saved[2][name.replace("ema/", "model/", 1)])


def test_init_from_a_model_of_other_classes(tmp_path: Path) -> None:
    """The message lists the mismatched variables in the flag's format; with that flag, all others are read."""
    variables = _fill(_state(_experiment()).named(), 1.0)
    checkpoints.save(tmp_path, 1, variables, {"best_step": 1})
    saved = _values(variables)
    other = _experiment()
    other = dataclasses.replace(other, data=dataclasses.replace(other.data, num_classes=other.data.num_classes + 2))
    with pytest.raises(InputError) as error:
        initial_weights.init_from([tmp_path], _state(other).named())
    exclude = re.search(r"give --init_exclude=(\S+)$", str(error.value))
    assert exclude and set(exclude[1].split(",")) == {"logits/kernel", "logits/bias"}
    started = _fill(_state(other).named(), -100.0)
    initial_weights.init_from([tmp_path], started, exclude[1].split(","))
    taken = {name for name in started if name.startswith("model/") and "/logits/" not in name}
    assert taken
    for name in taken:
        np.testing.assert_array_equal(_values(started)[name], saved[name], err_msg=name)


def test_init_from_prefers_the_averages(tmp_path: Path) -> None:
    variables = _fill(_state(_experiment(ema_decay=0.9)).named(), 1.0)
    checkpoints.save(tmp_path, 1, variables, {"best_step": 1})
    saved = _values(variables)
    for name, value in _started(tmp_path).items():
        if name.startswith("model/"):
            expected = saved.get(name.replace("model/", "ema/", 1), saved[name])
            np.testing.assert_array_equal(value, expected, err_msg=name)


def test_init_from_nothing(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=rf"--init_from={source}: neither a run directory with checkpoints nor"):
            initial_weights.init_from([source], {})


def test_init_from_a_saved_model_of_something_else(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(InputError, match=rf"--init_from={tmp_path}: a SavedModel whose weights have no names"):
        initial_weights.init_from([tmp_path], {})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_init_from_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    variables = _fill(_state(_experiment()).named(), 1.0)
    variables["model/logits/bias"].assign([1.0, value, 2.0, value, 3.0])
    checkpoints.save(tmp_path, 1, variables, {"best_step": 1})
    with pytest.raises(InputError) as caught:
        _started(tmp_path)
    assert str(caught.value) == (
        f"--init_from={tmp_path}: 2 of 5 values of variable 'logits/bias' there are not finite; take an earlier"
        " checkpoint, or leave the variable out with --init_exclude='logits/bias'"
    )
    _started(tmp_path, exclude=("logits/bias",))
