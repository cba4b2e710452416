"""A training process killed with SIGKILL at random moments ends with the weights of an uninterrupted one."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from cluster import start_workers

_FLAGS = (
    "--config=first_level/resnet_like_mixup.yaml",
    "--set=model={inner_size: 64, av_blocks: 1, concat_blocks: 1}",
    "--set=data={features: {rgb: 8, audio: 4}, num_classes: 10, shuffle_shards: 2}",
    "--set=train={batch_size: 32, steps_per_epoch: 300, epochs: 6}",
    "--checkpoint_minutes=0.002",
)
_KILLS = 5


@pytest.mark.slow
def test_sigkill_at_random_moments(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir = learnable_shards(each=256)

    def start(workdir: str) -> subprocess.Popen[str]:
        arguments = [*_FLAGS, f"--data_dir={data_dir}", f"--workdir={tmp_path / workdir}"]
        return subprocess.Popen(
            [sys.executable, "-m", "yt8m_tf.bin.train", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    whole = start("whole")
    output, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, output
    kills = 0
    for step in sorted(random.sample(range(50, 1700), _KILLS)):
        process = start("killed")
        while process.poll() is None and _last_step(tmp_path / "killed") < step:
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 0.2))  # somewhere between two checkpoints, or while one is written
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills >= 2
    last = start("killed")
    output, _ = last.communicate(timeout=600)
    assert last.returncode == 0, output
    _assert_equal(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_sigkill_of_two_workers_that_split_the_shards(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir = learnable_shards(each=256)
    flags = (*_FLAGS[:3], "--set=train={batch_size: 32, steps_per_epoch: 50, epochs: 6}", f"--data_dir={data_dir}")
    for name in ("whole", "killed"):
        workdir = tmp_path / name
        if name == "killed":
            processes = start_workers(2, *flags, f"--workdir={workdir}")
            while len(list(workdir.glob("checkpoints/step_*"))) < 2 and processes[0].poll() is None:
                time.sleep(0.1)
            for process in processes:
                process.kill()
                process.communicate()
            assert _last_checkpoint(workdir).parent.name < "step_00000300"
        processes = start_workers(2, *flags, f"--workdir={workdir}")
        outputs = [process.communicate(timeout=300)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
        assert name == "whole" or "continuing the run" in outputs[0]
    _assert_equal(tmp_path / "whole", tmp_path / "killed")


def _assert_equal(workdir: Path, other_workdir: Path) -> None:
    one, other = (tf.train.load_checkpoint(str(_last_checkpoint(path))) for path in (workdir, other_workdir))
    shapes = one.get_variable_to_shape_map()
    assert shapes == other.get_variable_to_shape_map()
    for name in shapes:
        np.testing.assert_array_equal(one.get_tensor(name), other.get_tensor(name), err_msg=name)


def _last_step(workdir: Path) -> int:
    steps = [int(path.name.removeprefix("step_")) for path in workdir.glob("checkpoints/step_*")]
    return max(steps, default=0)


def _last_checkpoint(workdir: Path) -> Path:
    return sorted(workdir.glob("checkpoints/step_*"))[-1] / "variables"
