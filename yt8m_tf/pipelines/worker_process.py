"""Runs stages in a worker process. Imports TensorFlow, quietly, with the first one."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

from yt8m_tf.console.quiet import import_quietly, output_to
from yt8m_tf.errors import InputError, ended_by_sigterm
from yt8m_tf.locks import Claims
from yt8m_tf.pipelines.execution import Where, execute
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.processes import follow


def start(parent: int, gpu: str | None, num_threads: int) -> None:
    """Sets a worker process up before its first stage.

    Args:
      parent: the process that takes its results; it ends when that one does, killed or not.
      gpu: the id of the only GPU that it sees; None: all that there are.
      num_threads: of TensorFlow for one operation, unless the environment says; 0: as many as there are cores.
    """
    follow(parent)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if num_threads:  # workers that each take all cores get in each other's way
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(num_threads))


def run_logged(stage: Stage, where: Where) -> dict[str, Any]:
    """`run_claimed`, whose output goes to the stage's log instead of the screen. For a process with one thread of work.

    Raises:
      InputError, RuntimeError: as `run_claimed`.
    """
    log = where.workdir / stage.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with output_to(log):
        print(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {stage.name}", flush=True)
        return run_claimed(stage, where)


def run_claimed(stage: Stage, where: Where) -> dict[str, Any]:
    """`execute`, once no other process is at the same stage: one of a run that was killed a moment ago, perhaps.

    Raises:
      InputError: in one line, whatever is wrong: it travels between processes.
      RuntimeError: anything else, some of which could not travel, in one line.
    """
    import_quietly()
    try:
        folder = where.workdir / "stages"
        folder.mkdir(parents=True, exist_ok=True)
        with Claims(folder) as claims:
            claims.take(stage.file_name, wait=True)
            with ended_by_sigterm():
                return execute(stage, where)
    except InputError:
        raise
    except Exception as error:
        raise RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}") from None
    finally:
        _free_memory()


def _free_memory() -> None:
    """Of the models of a stage, for the next one in this process."""
    import keras

    keras.backend.clear_session()
    gc.collect()
