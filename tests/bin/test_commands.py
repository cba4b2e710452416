"""The commands as processes: help, errors as one line, nothing lost, and one run through them."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

_COMMANDS = (
    "train",
    "evaluate",
    "export",
    "infer",
    "score",
    "stack",
    "ensemble",
    "pipeline",
    "models",
    "kmeans",
    "strip",
    "report",
)
_SMALL = (
    "--set=data.features={rgb: 8, audio: 4}",
    "--set=data.num_classes=10",
    "--set=train={batch_size: 32, steps_per_epoch: 2, epochs: 2}",
)


def _run(command: str, *flags: str, **options: object) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", f"yt8m_tf.bin.{command}", *flags]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_has_an_example_and_imports_no_framework(command: str) -> None:
    result = _run(command, "--helpfull")
    assert f"  yt8m-{command} --" in result.stdout
    assert any(flag in result.stdout for flag in ("--workdir", "--output", "--markdown", "--num_clusters"))
    code = f"import sys, yt8m_tf.bin.{command}; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_way_from_shards_to_a_submission_file(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, run, model = learnable_shards(), tmp_path / "run", tmp_path / "exported" / "1"
    bundle = tmp_path / "model.tgz"
    shards = f"--input={data_dir}/validate*.tfrecord"
    written = {
        "train": run / "history.jsonl",
        "evaluate": run / "evaluation" / "classes.csv",
        "export": model / "saved_model.pb",
        "infer": tmp_path / "submission.csv",
        "score": tmp_path / "scores" / "scores.json",
        "ensemble": tmp_path / "twice" / "config.yaml",
        "strip": tmp_path / "stripped" / "config.yaml",
    }
    flags = {
        "train": ["--config=first_level/logistic.yaml", *_SMALL, f"--data_dir={data_dir}", f"--workdir={run}"],
        "evaluate": [f"--workdir={run}", f"--data_dir={data_dir}"],
        "export": [f"--workdir={run}", f"--data_dir={data_dir}", f"--output={model}", f"--bundle={bundle}"],
        "infer": [f"--bundle={bundle}", shards, f"--output={written['infer']}"],
        "score": [f"--model={model}", shards, f"--output={tmp_path / 'scores'}"],
        "ensemble": [f"--members={run},{run}", f"--workdir={tmp_path / 'twice'}"],
        "strip": [f"--input={run}", f"--output={tmp_path / 'stripped'}"],
    }
    for command, file in written.items():
        result = _run(command, *flags[command])
        assert result.returncode == 0 and file.is_file(), result.stderr
        assert str(file.parent) in result.stdout or str(file) in result.stdout


def _assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.strip() and "\r" not in line][-1:]
    assert "Traceback" not in result.stderr
    assert ": error: " in line and all(part in line for part in parts), line


def test_a_misspelt_key_is_one_line(tmp_path: Path) -> None:
    flags = ("--config=first_level/logistic.yaml", f"--workdir={tmp_path / 'run'}", "--set=optimizer.learning_rat=1")
    result = _run("train", *flags)
    _assert_one_line(result, "optimizer.learning_rat", "did you mean 'optimizer.learning_rate'?")
    assert result.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line_and_loses_nothing(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, run = learnable_shards(), tmp_path / "run"
    flags = ("--config=first_level/logistic.yaml", *_SMALL, f"--data_dir={data_dir}", f"--workdir={run}")

    def limit() -> None:  # no file of more than 1,500 bytes: the configuration fits, a checkpoint does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    result = _run("train", *flags, preexec_fn=limit)
    _assert_one_line(result, str(run), "cannot be written", "same command")
    assert not list(run.glob("checkpoints/*")) and not list(run.rglob("*.tmp"))
    again = _run("train", *flags)
    assert again.returncode == 0, again.stderr
    assert "finished at step 4" in again.stdout and "GAP@20" in again.stdout
    assert tf.train.load_checkpoint(str(run / "checkpoints" / "step_00000004" / "variables"))


def test_a_place_that_cannot_be_written_is_one_line(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    flags = (f"--data_dir={learnable_shards()}", f"--workdir={tmp_path / 'file' / 'run'}")
    _assert_one_line(_run("train", "--config=first_level/logistic.yaml", *flags), "--workdir=", "cannot be written")
