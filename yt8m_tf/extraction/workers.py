"""Processes that make the features of one video after another, each with one thread.

What a video does to its process it does to no other: one that makes FFmpeg crash costs a process, and is a row of the
report. Numbers do not depend on how many processes there are, since each computes with one thread.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf import files
from yt8m_tf.console.quiet import import_quietly
from yt8m_tf.errors import InputError
from yt8m_tf.extraction.backbones import Backbones, Recipe, load_backbones
from yt8m_tf.processes import follow

_ABOUT = "_"  # in front of the names of arrays that are no features


@dataclasses.dataclass(frozen=True)
class Task:
    """A video, and where its features go.

    Attributes:
      path: of the video.
      part: the `.npz` file to write.
    """

    path: str
    part: Path


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a video.

    Attributes:
      problem: why there are no features; None where there are.
      num_frames: T.
      seconds: the length that the file states.
      has_sound: whether it has any; None where that is not known.
      notes: what a person should know.
    """

    problem: str | None = None
    num_frames: int = 0
    seconds: float | None = None
    has_sound: bool | None = None
    notes: tuple[str, ...] = ()


def run_tasks(tasks: Iterable[Task], recipe: Recipe, jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Makes the features of videos, and yields what became of each, in the order in which they end.

    Args:
      tasks: what to do.
      recipe: for all.
      jobs: processes; 0: in this one.

    Raises:
      InputError: a backbone cannot be loaded, or PyAV is not installed.
    """
    if not jobs:
        yield from ((task, run_task(task, recipe)) for task in tasks)
        return
    waiting = iter(tasks)
    idle = [_Worker() for _ in range(jobs)]
    running: dict[concurrent.futures.Future[Outcome], tuple[_Worker, Task]] = {}
    workers = list(idle)
    try:
        while True:
            while idle and (task := next(waiting, None)) is not None:
                worker = idle.pop()
                running[worker.submit(task, recipe)] = worker, task
            if not running:
                return
            for future in concurrent.futures.wait(running, return_when="FIRST_COMPLETED").done:
                worker, task = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    outcome = Outcome("the process that decoded it was killed, or crashed")
                    worker.end()
                idle.append(worker)
                yield task, outcome
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that is started with its first task, and again after it has died."""

    def __init__(self) -> None:
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def submit(self, task: Task, recipe: Recipe) -> concurrent.futures.Future[Outcome]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
            self._pool = concurrent.futures.ProcessPoolExecutor(1, context, _start, (os.getpid(),))
        return self._pool.submit(run_task, task, recipe)

    def end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _start(parent: int) -> None:
    follow(parent)
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    import_quietly()
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):  # it is shared
        tf.config.experimental.set_memory_growth(gpu, True)


def run_task(task: Task, recipe: Recipe) -> Outcome:
    """Makes the features of a video and writes its part; whatever is wrong with the video is in what it returns.

    Raises:
      InputError: a backbone cannot be loaded, or PyAV is not installed.
    """
    from yt8m_tf.extraction.features import extract_features

    backbones = _loaded(recipe.to_json())
    try:
        found = extract_features(task.path, backbones, recipe)
    except InputError:
        raise
    except Exception as error:  # whatever FFmpeg or a model makes of this file, the others are still to come
        own = type(error).__name__ == "DecodingError"
        return Outcome(" ".join((str(error) if own else f"{type(error).__name__}: {error}").split())[:300])
    if wrong := [name for name, values in found.frames.items() if not np.isfinite(values).all()]:
        return Outcome(f"features that are not finite: {', '.join(wrong)}")
    about = {
        "seconds": np.array(np.nan if found.seconds is None else found.seconds),
        "has_sound": np.array(found.has_sound),
        "notes": np.array(found.notes, np.str_),
    }
    outcome = _outcome(about, found.frames)
    with files.whole_file(task.part) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {**{_ABOUT + name: array for name, array in about.items()}, **found.frames}
        np.savez(file, **arrays)
    return outcome


def read_part(path: Path) -> tuple[Outcome, dict[str, np.ndarray]]:
    """What became of a video, and its features {name: [T, D] float32}.

    Raises:
      OSError: the part cannot be read.
      ValueError: it is damaged.
    """
    with path.open("rb") as file:
        arrays = files.read_arrays(file)
    about = {name.removeprefix(_ABOUT): array for name, array in arrays.items() if name.startswith(_ABOUT)}
    frames = {name: array for name, array in arrays.items() if not name.startswith(_ABOUT)}
    return _outcome(about, frames), frames


def _outcome(about: dict[str, np.ndarray], frames: dict[str, np.ndarray]) -> Outcome:
    seconds = float(about["seconds"])
    return Outcome(
        num_frames=len(next(iter(frames.values()))),
        seconds=None if np.isnan(seconds) else seconds,
        has_sound=bool(about["has_sound"]),
        notes=tuple(map(str, about["notes"])),
    )


@functools.lru_cache(1)
def _loaded(recipe: str) -> Backbones:
    return load_backbones(Recipe.from_json(recipe))
