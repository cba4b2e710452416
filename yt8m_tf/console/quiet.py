"""Keeps what native code writes on standard error away from people."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Nothing reaches standard error (of the process, not of Python alone); after an exception, all of it does."""
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


def import_quietly() -> None:
    """Imports TensorFlow without its notices of look-ups for CUDA and the like; if the import fails, they are shown."""
    if "tensorflow" in sys.modules:
        return
    with without_stderr():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        tf.config.list_physical_devices()
