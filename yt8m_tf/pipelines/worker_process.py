"""Runs stages in a worker process, which imports TensorFlow, quietly, for its first stage."""

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
      parent: the process that receives the results; the worker ends with it, even if it is killed.
      gpu: id of the only GPU that the worker sees; None: all GPUs.
      num_threads: TensorFlow's threads per operation, unless the environment sets them; 0: one per core.
    """
    follow(parent)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if num_threads:  # workers that each use all cores slow each other down
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(num_threads))


def run_logged(stage: Stage, where: Where) -> dict[str, Any]:
    """Runs `run_claimed` with its output in the stage's log; for a process with a single working thread.

    Raises:
      InputError, RuntimeError: as `run_claimed`.
    """
    log = where.workdir / stage.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with output_to(log):
        print(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {stage.name}", flush=True)
        return run_claimed(stage, where)


def run_claimed(stage: Stage, where: Where) -> dict[str, Any]:
    """Executes a stage as soon as no other process runs it, such as one of a pipeline that was just killed.

    Raises:
      InputError: an expected error, in one line.
      RuntimeError: any other error, in one line, because not every exception can be sent to another process.
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
    """Frees the memory of a stage's models for the next stage in this process."""
    import keras

    keras.backend.clear_session()
    gc.collect()
