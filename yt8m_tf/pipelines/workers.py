"""Where stages run: processes on this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from yt8m_tf.errors import InputError, ended_by_sigterm
from yt8m_tf.locks import Claims
from yt8m_tf.pipelines import worker_process
from yt8m_tf.pipelines.execution import Where, execute
from yt8m_tf.pipelines.stages import Stage

# From a stage to its future result.
Submit = Callable[[Stage], "concurrent.futures.Future[dict[str, Any]]"]

# A worker makes way for a new one after so many stages: TensorFlow keeps some memory of every model.
_STAGES_OF_A_WORKER = 12


@contextlib.contextmanager
def local_workers(jobs: int, where: Where, gpus: Sequence[str] = ()) -> Iterator[Submit]:
    """Processes that run stages, and end with this one however it ends.

    Args:
      jobs: how many.
      where: for all stages.
      gpus: ids of GPUs; each worker sees one of them, in turn. None: every worker sees what this process does.
    """
    context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
    turns = context.Queue()
    for number in range(max(jobs, len(gpus))):
        turns.put(gpus[number % len(gpus)] if gpus else None)
    with concurrent.futures.ProcessPoolExecutor(
        jobs,
        context,
        worker_process.start,
        (os.getpid(), turns, where.num_threads),
        max_tasks_per_child=_STAGES_OF_A_WORKER,
    ) as pool:
        try:
            yield lambda stage: pool.submit(run_claimed, stage, where)
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():  # they save what they can, and end
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def cluster_workers(client: Any, where: Where) -> Iterator[Submit]:
    """The workers of a Dask cluster (`stacking.cluster.connect`), one stage at a time each.

    A worker that was started with `--resources GPU=1` takes one training or scoring at a time.
    """
    resources = [worker["resources"] for worker in client.scheduler_info()["workers"].values()]
    wanted = {"GPU": 1} if any("GPU" in own for own in resources) else None

    def submit(stage: Stage) -> Any:
        heavy = stage.kind in ("train", "score")
        return client.submit(run_claimed, stage, where, pure=False, resources=wanted if heavy else None)

    yield submit


def run_claimed(stage: Stage, where: Where) -> dict[str, Any]:
    """`execute`, once no other process is at the same stage: one of a run that was killed a moment ago, perhaps.

    Raises:
      InputError: in one line, whatever is wrong: it travels between processes.
    """
    folder = where.workdir / "stages"
    folder.mkdir(parents=True, exist_ok=True)
    with Claims(folder) as claims:
        claims.take(stage.name.replace(" ", "_"), wait=True)
        try:
            with ended_by_sigterm():
                return execute(stage, where)
        except InputError:
            raise
        except Exception as error:  # of TensorFlow, some of whose errors cannot be sent
            raise RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}") from None
        finally:
            _free_memory()


def _free_memory() -> None:
    """Of the models of a stage, for the next one in this process."""
    import keras

    keras.backend.clear_session()
    gc.collect()
