"""A run directory: a different configuration is refused, and the history is continued."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from yt8m_tf import run_dir
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment


def _experiment(**train: Any) -> ExperimentConfig:
    return parse_experiment({"model": {"name": "logistic"}, "train": train})


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_prepare_and_read_back(tmp_path: Path) -> None:
    workdir, experiment = tmp_path / "deep" / "run", _experiment(batch_size=8)
    run_dir.prepare(workdir, experiment)
    assert _names(workdir) == ["config.yaml"]
    before = (workdir / "config.yaml").stat().st_mtime_ns
    run_dir.prepare(workdir, experiment)  # the same again
    assert (workdir / "config.yaml").stat().st_mtime_ns == before
    assert run_dir.read_experiment(workdir) == experiment


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    run_dir.prepare(tmp_path, _experiment(batch_size=16, seed=1))
    run_dir.prepare(tmp_path, _experiment(batch_size=8, seed=1))  # there is no checkpoint yet that could be lost
    assert run_dir.read_experiment(tmp_path).train.batch_size == 8
    (tmp_path / run_dir.CHECKPOINTS / "step_00000010").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        run_dir.prepare(tmp_path, _experiment(batch_size=16, seed=2))
    assert str(caught.value) == (
        f"--workdir={tmp_path} contains a run of another configuration; name another directory, where"
        f" --init_from={tmp_path} starts with its weights, or restore:"
        " train.batch_size: 8 -> 16; train.seed: 1 -> 2"
    )
    assert run_dir.read_experiment(tmp_path).train.batch_size == 8


def test_a_configuration_that_leaves_out_defaults_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {name: logistic}\n")
    run_dir.prepare(tmp_path, _experiment())


def test_a_directory_that_cannot_be_made_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--workdir=.*run: cannot be written \(Not a directory\)"):
        run_dir.prepare(tmp_path / "file" / "run", _experiment())

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); name another"):
        run_dir.prepare(tmp_path / "run", _experiment())
    assert _names(tmp_path / "run") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        run_dir.prepare(tmp_path / "run", _experiment())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: {name: logistic}\ntrain: {batch: 3}\n", r"unknown key 'train\.batch'"),
        (b"", "'model' is missing"),
        (b"a: [", "cannot be read"),
        (b"\xff\xfe\x81", "cannot be read"),
        (b"text", "'text' is not a mapping"),
    ],
)
def test_a_configuration_that_cannot_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        run_dir.read_experiment(tmp_path)
    assert str(tmp_path / "config.yaml") in str(caught.value) and "\n" not in str(caught.value)


def test_soft_labels_may_move(tmp_path: Path) -> None:
    """Soft labels are compared by fingerprint; adding or removing them is still a difference."""

    def experiment(soft: str | None) -> ExperimentConfig:
        return parse_experiment({"model": {"name": "logistic"}, "labels": {"soft": soft}})

    run_dir.prepare(tmp_path, experiment("/before/stacked/train"))
    (tmp_path / run_dir.CHECKPOINTS / "step_00000010").mkdir(parents=True)
    run_dir.prepare(tmp_path, experiment("/after/stacked/train"))
    assert run_dir.read_experiment(tmp_path).labels.soft == "/after/stacked/train"
    with pytest.raises(InputError, match=r"labels\.soft: /after/stacked/train -> None"):
        run_dir.prepare(tmp_path, experiment(None))


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run there \(config.yaml is missing\)"):
        run_dir.read_experiment(tmp_path)


def test_the_written_configuration_is_complete(tmp_path: Path) -> None:
    run_dir.prepare(tmp_path, _experiment())
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert values["optimizer"]["learning_rate"] == 1e-3 and values["data"]["features"] == {"rgb": 1024, "audio": 128}


def test_history_appends_and_replaces_the_same_and_later_steps(tmp_path: Path) -> None:
    assert run_dir.read_history(tmp_path) == []
    for step, gap in ((10, 0.1), (20, 0.2), (30, 0.3)):
        run_dir.append_history(tmp_path, {"step": step, "gap": gap})
    assert [line["step"] for line in run_dir.read_history(tmp_path)] == [10, 20, 30]
    run_dir.append_history(tmp_path, {"step": 20, "gap": 0.25})  # a run that was killed and resumed from step 10
    assert run_dir.read_history(tmp_path) == [{"step": 10, "gap": 0.1}, {"step": 20, "gap": 0.25}]
    assert _names(tmp_path) == ["history.jsonl"]


@pytest.mark.parametrize(
    "line", ['{"step": 20, "gap', "", "[20]", '{"gap": 0.2}', '{"step": "20"}', "\x00\x00", "9" * 5000]
)
def test_an_invalid_line_of_the_history_is_named(line: str, tmp_path: Path) -> None:
    run_dir.append_history(tmp_path, {"step": 10, "gap": 0.1})
    path = tmp_path / run_dir.HISTORY
    whole = path.read_bytes()
    path.write_bytes(whole + line.encode() + b"\n")
    with pytest.raises(InputError) as caught:
        run_dir.read_history(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}: line 2 is not a valid evaluation of a run (") and "\n" not in message
    assert message.endswith("; remove the line")
    path.write_bytes(whole)  # as the message says
    assert len(run_dir.read_history(tmp_path)) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": "x"}', '{"a": 1.5}', "null", "[" * 100_000])
def test_folds_that_cannot_be_read_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / run_dir.FOLDS).write_text(content)
    with pytest.raises(InputError) as caught:
        run_dir.keep_folds(tmp_path, {"a": 0})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / run_dir.FOLDS}: cannot be read (") and "\n" not in message
    assert message.endswith("; remove it, and yt8m-train with the same flags writes it")
    (tmp_path / run_dir.FOLDS).unlink()
    run_dir.keep_folds(tmp_path, {"a": 0})
    assert run_dir.read_folds(tmp_path) == {"a": 0}
