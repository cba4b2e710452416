"""Traces of steps for TensorBoard's profiler."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from yt8m_tf.errors import InputError


def parse_steps(text: str) -> range:
    """Parses "START:STOP", a range of steps from START, counted from 0, up to but not including STOP.

    Raises:
      InputError: the text is not two integers, or the range is empty.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    steps = range(int(match[1]), int(match[2])) if match else range(0)
    if not steps:
        raise InputError(f"--profile={text}: must be START:STOP with 0 <= START < STOP, such as 100:110")
    return steps


class Profile:
    """A context that traces a range of a run's steps, in whole calls of the compiled function.

    The trace begins with the first call that includes a step of the range, and ends after the call with its last step.

    Args:
      directory: the parent of `plugins/profile/`; None traces nothing (in all processes except the chief).
      steps: the range; None traces nothing.
      total_steps: number of steps of the run.

    Raises:
      InputError: the run ends before the range begins.
    """

    def __init__(self, directory: Path | None, steps: range | None, total_steps: int):
        if steps is not None and steps.start >= total_steps:
            raise InputError(
                f"--profile={steps.start}:{steps.stop}: the run has {total_steps} steps, 0 to {total_steps - 1};"
                " begin with an earlier one"
            )
        self._directory = directory
        self._steps = steps if directory is not None and steps is not None else range(0)
        self._running = False

    @contextlib.contextmanager
    def call(self, step: int, count: int) -> Iterator[None]:
        """A context for a call that makes the steps from `step` to `step + count`, including their data.

        Raises:
          InputError: the trace cannot be started or written.
        """
        if not self._running and step < self._steps.stop and step + count > self._steps.start:
            with self._reporting():
                tf.profiler.experimental.start(str(self._directory))
            self._running = True
        with tf.profiler.experimental.Trace("train", step_num=step, _r=1):  # marks the step for the profiler
            yield
        if step + count >= self._steps.stop:
            self._stop()

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the trace of a run that ends within the range, unless it ends with an error."""
        if kind is None:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            with self._reporting():
                tf.profiler.experimental.stop()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise InputError(
                f"--profile: no trace in '{self._directory}' ({' '.join(error.message.split())});"
                " repair the directory, or continue with the same command without --profile"
            ) from error
