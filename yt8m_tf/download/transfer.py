"""Fetches several files at once, and shows progress."""

from __future__ import annotations

import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf import files
from yt8m_tf.console.progress import Progress
from yt8m_tf.download.client import Client, FetchError, Listener, Stopped

_ENDING = 0.5  # seconds to wait for each thread; the end of the process ends the others


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to fetch.

    Attributes:
      url: its address.
      path: its final path, once it is complete.
      part: the path of its incomplete contents.
      md5: MD5 of its contents.
    """

    url: str
    path: Path
    part: Path
    md5: str


@dataclasses.dataclass(frozen=True)
class _Event:
    """Something that happened to a job: the name of a method of `_Totals`, or "end" with the error or None."""

    kind: str
    job: Job
    value: Any


def transfer(
    jobs: Sequence[Job], connections: int, make_client: Callable[[threading.Event], Client], num_bytes: int | None
) -> Generator[tuple[Job, FetchError | None], None, None]:
    """Fetches files, and yields each job once its file is complete (with None) or has failed (with the error).

    Worker threads fetch; the thread that iterates shows progress and receives signals. When it stops iterating, the
    workers end, and the parts that they wrote stay.

    Args:
      jobs: the files.
      connections: number of files that are fetched at once.
      make_client: makes the client of a thread, which stops when the event is set.
      num_bytes: approximate size of all files; None if unknown.

    Raises:
      OSError: a file cannot be written.
    """
    stop, events = threading.Event(), queue.SimpleQueue[_Event]()
    waiting = queue.SimpleQueue[Job]()
    for job in jobs:
        waiting.put(job)
    work = functools.partial(_work, waiting, events, stop, make_client)
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(connections, len(jobs)))]
    totals = _Totals(jobs, num_bytes)
    try:
        for thread in threads:
            thread.start()
        while totals.num_ended < len(jobs):
            event = events.get()
            getattr(totals, event.kind)(event.job, event.value)
            if event.kind == "end":
                if event.value is not None and not isinstance(event.value, FetchError):
                    raise event.value
                yield event.job, event.value
    finally:
        stop.set()
        for thread in threads:
            thread.join(_ENDING)
        totals.close()


def _work(
    waiting: queue.SimpleQueue[Job],
    events: queue.SimpleQueue[_Event],
    stop: threading.Event,
    make_client: Callable[[threading.Event], Client],
) -> None:
    """Runs in each thread: does one job after the other until none is left."""
    with make_client(stop) as client:
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            error: Exception | None = None
            try:
                _fetch(client, job, events)
            except Stopped:
                return
            except Exception as raised:
                error = raised
            events.put(_Event("end", job, error))


def _fetch(client: Client, job: Job, events: queue.SimpleQueue[_Event]) -> None:
    def tell(kind: str, value: Any) -> None:
        events.put(_Event(kind, job, value))

    listener = Listener(*(functools.partial(tell, kind) for kind in ("received", "sized", "waiting")))
    client.fetch(job.url, job.part, job.md5, listener)
    files.give_name(job.part, job.path)


class _Totals:
    """The progress of all files in bytes; their total is estimated from the sizes known so far.

    Args:
      jobs: the files.
      num_bytes: approximate size of all files; None if unknown.
    """

    def __init__(self, jobs: Sequence[Job], num_bytes: int | None):
        self._num_jobs, self._sizes = len(jobs), dict[Path, int]()
        self.num_ended = self._num_whole = 0
        there = sum(job.part.stat().st_size for job in jobs if job.part.exists())
        self._bar = Progress(
            total=num_bytes, initial=there, unit="B", unit_scale=True, desc=self._title(), disable=not jobs
        )

    def received(self, _: Job, count: int) -> None:
        """Counts bytes that were written or, if negative, discarded."""
        if self._bar.postfix:
            self._bar.set_postfix_str("", refresh=False)
        self._bar.update(count)

    def sized(self, job: Job, size: int) -> None:
        """Updates the total with the size of one more file."""
        self._sizes[job.path] = size
        self._bar.total = int(sum(self._sizes.values()) / len(self._sizes) * self._num_jobs)

    def waiting(self, _: Job, why: str) -> None:
        """Shows why a connection waits."""
        self._bar.set_postfix_str(why)

    def end(self, _: Job, error: Exception | None) -> None:
        """Counts a file that is complete or has failed."""
        self.num_ended += 1
        self._num_whole += error is None
        self._bar.set_description_str(self._title(), refresh=error is not None)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def _title(self) -> str:
        return f"{self._num_whole:,} of {self._num_jobs:,} files"
