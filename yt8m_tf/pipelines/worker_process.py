"""The start of a worker process. Imports nothing of TensorFlow, which would print its notices then."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

_WATCH_SECONDS = 0.5


def start(parent: int, turns: Any, num_threads: int) -> None:
    """Before a worker's first stage.

    Args:
      parent: the process that takes its results; it ends when that one does, killed or not.
      turns: a queue of ids of GPUs; None stands for all that there are.
      num_threads: of TensorFlow for one operation, unless the environment says; 0: as many as there are cores.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, to all of its processes: the parent passes it on
    gpu = turns.get()
    turns.put(gpu)  # for the worker that comes after
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if num_threads:  # workers that each take all cores get in each other's way
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(num_threads))
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    from yt8m_tf.console.quiet import import_quietly

    import_quietly()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
