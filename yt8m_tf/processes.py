"""Makes a process end together with its parent."""

from __future__ import annotations

import os
import signal
import threading
import time

_WATCH_SECONDS = 0.5


def follow(parent: int) -> None:
    """Makes this process end when its parent does, killed or not, and leaves Ctrl-C to the parent.

    Args:
      parent: the id of the process that started this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all its processes; the parent handles it
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
