"""Quick stand-ins for stages, without TensorFlow, for tests of worker processes."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from yt8m_tf.errors import InputError
from yt8m_tf.pipelines import worker_process
from yt8m_tf.pipelines.execution import Where
from yt8m_tf.pipelines.stage import Stage

LONG = "long"
GATE = "gate"  # a file that ends the stage `LONG`
PATIENCE = 60


def tell_where(stage: Stage, where: Where) -> dict[str, Any]:
    """Returns the stage's name, its process, and the GPUs that it saw."""
    start = time.monotonic()
    (where.workdir / f"{stage.name} begun").touch()
    while stage.name == LONG and not (where.workdir / GATE).exists() and time.monotonic() - start < PATIENCE:
        time.sleep(0.01)
    (where.workdir / stage.output).write_text(stage.name)
    return {
        "seconds": 0,
        "stage": stage.name,
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "process": os.getpid(),
        "framework": "tensorflow" in sys.modules,
    }


def talk(stage: Stage, where: Where) -> dict[str, Any]:
    """Prints to the stage's log from Python and native code; the stage "bad" fails."""
    worker_process.run_claimed = _print
    return worker_process.run_logged(stage, where)


def _print(stage: Stage, where: Where) -> dict[str, Any]:
    print(f"{stage.name} begins")
    os.write(2, b"native code says something\n")
    print(f"{stage.name} at work")
    if stage.name == "bad":
        raise InputError("no such shard")
    (where.workdir / stage.output).touch()
    return {"seconds": 72.4, "gap_at_20": 0.61234}


def vanish(stage: Stage, where: Where) -> dict[str, Any]:
    """Ends the process as if it were killed."""
    os._exit(9)
