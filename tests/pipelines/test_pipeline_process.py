"""A pipeline as a process: killed at random moments, it ends with the same scores."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_pipeline import TINY

_KILLS = 10


def _start(config: str | Path, data_dir: Path, workdir: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "yt8m_tf.bin.pipeline",
            f"--config={config}",
            f"--data_dir={data_dir}",
            f"--workdir={workdir}",
            *flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _num_done(workdir: Path) -> int:
    return len(list((workdir / "stages").glob("*.done.json")))


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    """Kills the pipeline of `make demo`."""
    command = [sys.executable, "-m", "yt8m_tf.bin.sample_data", f"--output_dir={tmp_path / 'data'}"]
    subprocess.run(command, check=True, capture_output=True)
    flags = ("pipelines/demo.yaml", tmp_path / "data")
    whole = _start(*flags, tmp_path / "whole", "--jobs=2")
    output, _ = whole.communicate(timeout=1800)
    assert whole.returncode == 0, output
    total = _num_done(tmp_path / "whole")
    killed = tmp_path / "killed"
    for wanted in sorted(random.sample(range(total - 1), k=_KILLS)):
        process = _start(*flags, killed, "--jobs=2")
        while process.poll() is None and _num_done(killed) <= wanted:
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 5.0))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = _start(*flags, killed, "--jobs=2")
    output, _ = last.communicate(timeout=1800)
    assert last.returncode == 0, output
    shards = list((tmp_path / "whole").rglob("*.tfrecord"))
    assert len(shards) >= 30
    for path in shards:
        assert (killed / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes(), path
    assert (killed / "submission.csv").read_bytes() == (tmp_path / "whole" / "submission.csv").read_bytes()


@pytest.mark.slow
def test_workers_end_with_their_parent(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    """Killing the pipeline with SIGKILL also ends its workers."""
    data_dir, config = learnable_shards(), tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY | {"splits": ["validation"], "train": TINY["train"] | {"epochs": 200}}))
    process = _start(config, data_dir, tmp_path / "run")
    while process.poll() is None and not list((tmp_path / "run").glob("runs/*/*/history.jsonl")):
        time.sleep(0.05)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert process.poll() is None and children
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 60
    while any(_is_running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_is_running(pid) for pid in children)


@pytest.mark.slow
def test_sigterm_ends_all_processes_with_one_line_and_loses_nothing(
    learnable_shards: Callable[..., Path], tmp_path: Path
) -> None:
    data_dir, config, run = learnable_shards(), tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(TINY | {"splits": ["validation"], "train": TINY["train"] | {"epochs": 5000}}))
    process = _start(config, data_dir, run)
    while process.poll() is None and not list(run.glob("runs/*/*/history.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in output, output
    assert output.splitlines()[-1].startswith(
        "yt8m-pipeline: error: interrupted; run the same command again to continue"
    ), output
    (history,) = run.glob("runs/*/*/history.jsonl")
    saved = sorted(history.parent.glob("checkpoints/step_*"))[-1]
    evaluated = [json.loads(line)["step"] for line in history.read_text().splitlines()]
    assert int(saved.name.removeprefix("step_")) >= evaluated[-1]
    assert not list(run.rglob("*.tmp")) and not list(run.rglob(".lock"))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
