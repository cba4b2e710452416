"""The display of a running pipeline: a line for each stage that ends, and one bar for the running stages."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from yt8m_tf.console import tables
from yt8m_tf.console.progress import Progress
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.stacking.settings import OUT_OF_FOLD

WriteLine = Callable[[str], None]

_BAR = "{n_fmt} of {total_fmt}|{bar:12}| {desc}"
_LOG_LINE = "{desc}"
_TAIL = 4096  # bytes at the end of a log that are searched for its last line


class Screen:
    """A context manager of the display; its bar shows the elapsed time and the last log line of each running stage.

    Args:
      workdir: the pipeline's directory.
      total: number of stages of the pipeline.
      done: number of these that are already done.
      write_line: receives the lines; None: they go to standard output, above the bar.
      file: file that the bar is written to; standard error by default.
    """

    def __init__(
        self, workdir: Path, total: int, done: int, write_line: WriteLine | None = None, file: TextIO | None = None
    ):
        self._workdir, self._write_line = workdir, write_line or _print
        self._start, self._total, self._done = time.monotonic(), total, done
        self._bar = Progress(
            total=total,
            initial=done,
            bar_format=_BAR,
            line_format=_LOG_LINE,
            leave=False,
            dynamic_ncols=True,
            file=file or sys.stderr,
        )

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def line(self, text: str) -> None:
        """Writes a line."""
        self._write_line(text)

    def ended(self, stage: Stage, result: Mapping[str, Any]) -> None:
        """Writes the line of a stage that has ended: its figures, its time, and the time left for the others."""
        self._bar.n += 1
        total, ended = self._total, int(self._bar.n)
        found = "".join(f"{text}, " for text in findings(result))
        seconds = (time.monotonic() - self._start) / (ended - self._done) * (total - ended)
        left = f"; about {tables.duration(seconds)} left" if ended < total else ""
        took = Progress.format_interval(result["seconds"])
        self.line(f"[{ended} of {total}] {stage.name}: {found}{took}{left}")

    def under_way(self, stages: Iterable[tuple[Stage, float]]) -> None:
        """Redraws the bar; `stages` are the running ones, each with its `time.monotonic` start."""
        now = time.monotonic()
        texts = []
        for stage, begun in stages:
            last = last_line(self._workdir / stage.log)
            texts.append(f"{stage.name}, {Progress.format_interval(now - begun)}{f': {last}' if last else ''}")
        self._bar.set_description_str("; ".join(texts))


def findings(result: Mapping[str, Any]) -> list[str]:
    """Returns the figures of a stage's result, each in a few words."""
    found = []
    if "gap_at_20" in result:
        found.append(f"GAP@20 {result['gap_at_20']:.4f}")
    if "map" in result:
        found.append(f"MAP {result['map']:.4f}")
    for split, gaps in result.get("gaps", {}).items():
        name = max(gaps, key=gaps.__getitem__)
        found.append(f"{'out of fold' if split == OUT_OF_FOLD else split} GAP@20 {gaps[name]:.4f} ({name})")
    if "loss" in result:
        found.append(f"loss {result['loss']:.5f}")
    if "videos" in result:
        found.append(f"{result['videos']:,} videos")
    if "bytes" in result:
        found.append(tables.size(result["bytes"]))
    return found


def last_line(log: Path) -> str:
    """Returns the last line of a log; empty if there is none, or only the heading of an attempt."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:  # does not exist yet, or the stage runs on a cluster, where it has no log
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "" if last.startswith("== ") else last


def _print(text: str) -> None:
    Progress.write(text)
    sys.stdout.flush()
