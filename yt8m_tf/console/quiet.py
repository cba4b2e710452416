"""Redirects the output of this process: hides messages of native code, or sends all output to a file."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Holds back standard error of the whole process, native code included, and prints it only after an exception."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            os.write(kept, buffer.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Appends standard output and error of the process, including those of native code, to a file.

    Output of other threads goes there, too, so a process should run one task at a time.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # keeps the order of lines of standard output and error
        sys.stdout.reconfigure(line_buffering=True)
    kept = {number: os.dup(number) for number in (1, 2)}
    with path.open("ab") as log:
        _flush()
        for number in kept:
            os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def import_quietly() -> None:
    """Imports TensorFlow without its notices about CUDA and the like, which are shown only if the import fails."""
    if "tensorflow" in sys.modules:
        return
    with without_stderr():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        tf.config.list_physical_devices()
