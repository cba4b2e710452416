"""Processes that extract the features of one video after another, each with one thread.

A video that makes FFmpeg crash ends only its own process, and becomes a row of the report. Features do not depend on
the number of processes, since each computes with one thread.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.console.quiet import import_quietly
from yt8m_tf.conversion.encoding import Encoded, EncodingError, encode
from yt8m_tf.errors import InputError
from yt8m_tf.extraction.backbones import Backbones, Recipe, load_backbones
from yt8m_tf.processes import follow

# The names of arrays in a part; the last two are prefixes of a feature's name.
_OUTCOME, _FRAMES, _MEANS = "outcome", "frames:", "means:"


@dataclasses.dataclass(frozen=True)
class Task:
    """A video, and where its features go.

    Attributes:
      path: path of the video.
      part: the `.npz` file to write.
    """

    path: str
    part: Path


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of extraction for a video.

    Attributes:
      problem: why there are no features; None if there are.
      num_frames: T.
      seconds: the length that the file states.
      has_sound: whether the video has sound; None if that is not known.
      notes: remarks for the user.
      sizes: feature name to D.
      outside: feature name to the share of its values outside the range of the codes.
    """

    problem: str | None = None
    num_frames: int = 0
    seconds: float | None = None
    has_sound: bool | None = None
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    outside: Mapping[str, float] = dataclasses.field(default_factory=dict)


def run_tasks(tasks: Iterable[Task], recipe: Recipe, jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Extracts the features of videos, and yields the outcome of each, in order of completion.

    Args:
      tasks: the videos.
      recipe: the recipe of the features.
      jobs: number of processes; 0: run in this process.

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
        try:
            return self._started().submit(run_task, task, recipe)
        except BrokenProcessPool:  # it died between two tasks
            self.end()
            return self._started().submit(run_task, task, recipe)

    def _started(self) -> concurrent.futures.ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
            self._pool = concurrent.futures.ProcessPoolExecutor(1, context, _start, (os.getpid(),))
        return self._pool

    def end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _start(parent: int) -> None:
    follow(parent)
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    import_quietly()
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):  # the processes share it
        tf.config.experimental.set_memory_growth(gpu, True)


def run_task(task: Task, recipe: Recipe) -> Outcome:
    """Extracts the features of a video and writes its part; the outcome has any problem of the video.

    Raises:
      InputError: a backbone cannot be loaded, or PyAV is not installed.
    """
    from yt8m_tf.extraction.features import extract_features

    backbones = loaded(recipe)
    try:
        found = extract_features(task.path, backbones, recipe)
    except InputError:
        raise
    except Exception as error:  # whatever FFmpeg or a model raises, the other files must still be processed
        own = type(error).__name__ == "DecodingError"
        return Outcome(" ".join((str(error) if own else f"{type(error).__name__}: {error}").split())[:300])
    try:
        encoded = encode(found.frames, backbones.sizes, recipe.storage)
    except EncodingError as error:
        return Outcome(f"features that cannot be stored: {error}")
    shares = {name: count / encoded.num_values[name] for name, count in encoded.outside.items()}
    outcome = Outcome(
        None, encoded.num_frames, found.seconds, found.has_sound, found.notes, dict(backbones.sizes), shares
    )
    _write_part(task.part, outcome, encoded)
    return outcome


def _write_part(path: Path, outcome: Outcome, encoded: Encoded) -> None:
    arrays: dict[str, Any] = {_OUTCOME: np.array(json.dumps(strict_yaml.to_dict(outcome)))}
    arrays |= {_FRAMES + name: array for name, array in encoded.frames.items()}
    arrays |= {_MEANS + name: array for name, array in encoded.means.items()}
    with files.whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_part(path: Path) -> tuple[Outcome, Encoded]:
    """Reads the stored outcome and encoded features of a video.

    Raises:
      OSError: the part cannot be read.
      ValueError: it is damaged.
    """
    with path.open("rb") as file:
        arrays = files.read_arrays(file)
    outcome: Outcome = strict_yaml.parse(Outcome, json.loads(str(arrays.get(_OUTCOME))), "")
    frames, means = (
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for prefix in (_FRAMES, _MEANS)
    )
    shapes = {name: (outcome.num_frames, size) for name, size in outcome.sizes.items()}
    if {name: array.shape for name, array in frames.items()} != shapes or means.keys() != shapes.keys():
        raise ValueError("features are missing")
    return outcome, Encoded(frames, means)


def loaded(recipe: Recipe) -> Backbones:
    """`load_backbones`, cached in this process for the last recipe."""
    return _loaded(json.dumps(strict_yaml.to_dict(recipe)))


@functools.lru_cache(1)
def _loaded(recipe: str) -> Backbones:
    return load_backbones(strict_yaml.parse(Recipe, json.loads(recipe), ""))
