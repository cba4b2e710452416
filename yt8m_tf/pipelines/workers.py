"""Workers that run stages: processes on this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from yt8m_tf.errors import InputError
from yt8m_tf.pipelines import worker_process
from yt8m_tf.pipelines.execution import Where
from yt8m_tf.pipelines.stage import Stage

# A worker process is replaced after this many stages, because TensorFlow keeps some memory of every model.
_STAGES_OF_A_WORKER = 12

Work = Callable[[Stage, Where], dict[str, Any]]


class Future(Protocol):
    """The future of a stage that was given to a worker."""

    def done(self) -> bool:
        """Returns whether the stage has ended."""

    def result(self) -> dict[str, Any]:
        """Returns the result of the stage, or raises the error that ended it."""


Submit = Callable[[Stage], Future]


class _LocalWorker:
    """A process that runs one stage at a time; after several stages a new process takes over its GPU."""

    def __init__(self, gpu: str | None, num_threads: int):
        self._start = (os.getpid(), gpu, num_threads)
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        self._left = 0

    def submit(self, work: Work, stage: Stage, where: Where) -> concurrent.futures.Future[dict[str, Any]]:
        # The pool's own `max_tasks_per_child` sometimes fails to start the next process, and then waits forever
        # (https://github.com/python/cpython/issues/115634).
        if self._pool is None or not self._left:
            self.end()
            context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
            self._pool = concurrent.futures.ProcessPoolExecutor(1, context, worker_process.start, self._start)
            self._left = _STAGES_OF_A_WORKER
        self._left -= 1
        return self._pool.submit(work, stage, where)

    def end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def local_workers(
    jobs: int, where: Where, gpus: Sequence[str] = (), work: Work = worker_process.run_logged
) -> Iterator[Submit]:
    """Yields a function that submits stages to local processes, which end when this process ends for any reason.

    Args:
      jobs: the number of processes. If all of them are busy, `submit` waits until one has finished its stage.
      where: the environment of all stages.
      gpus: ids of GPUs, which are assigned to the workers round-robin; each worker sees only its own. Empty: every
        worker sees the same GPUs as this process.
      work: the function that runs a stage.
    """
    workers = [_LocalWorker(gpus[number % len(gpus)] if gpus else None, where.num_threads) for number in range(jobs)]
    idle: queue.SimpleQueue[_LocalWorker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def submit(stage: Stage) -> Future:
        worker = idle.get()
        future = worker.submit(work, stage, where)
        future.add_done_callback(lambda _: idle.put(worker))
        return future

    try:
        yield submit
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():  # they save their progress, and end
            process.terminate()
        raise
    finally:
        for worker in workers:
            worker.end()


@contextlib.contextmanager
def cluster_workers(client: Any, where: Where) -> Iterator[Submit]:
    """Yields a function that submits stages to a Dask cluster (`stacking.cluster.connect`).

    A worker that was started with `--resources GPU=1` runs one stage at a time that trains, scores or fits.

    Raises:
      InputError: the scheduler does not answer; `submit` and its futures raise it, too.
    """
    resources = [worker["resources"] for worker in _workers_of(client).values()]
    wanted = {"GPU": 1} if any("GPU" in own for own in resources) else None

    def submit(stage: Stage) -> Future:
        heavy = stage.kind in ("train", "score", "fit")
        with _answering():
            return _OnCluster(
                client.submit(worker_process.run_claimed, stage, where, pure=False, resources=wanted if heavy else None)
            )

    yield submit


def num_cluster_workers(client: Any) -> int:
    """Counts the workers of a Dask cluster.

    Raises:
      InputError: the scheduler does not answer.
    """
    return len(_workers_of(client))


def _workers_of(client: Any) -> dict[str, Any]:
    with _answering():
        return client.scheduler_info()["workers"]


class _OnCluster:
    """A future of Dask that distinguishes Dask's errors from those of the stage."""

    def __init__(self, future: Any):
        self._future = future

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> dict[str, Any]:
        with _answering():
            return self._future.result()


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """Turns Dask's connection errors into InputError; stages raise other types (`worker_process.run_claimed`)."""
    try:
        yield
    except (OSError, concurrent.futures.CancelledError) as error:  # a time-out is an OSError
        what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise InputError(f"--scheduler: Dask does not answer ({what}); check the scheduler and its workers") from error
