"""Orderly shutdown of training on a signal."""

from __future__ import annotations

import signal
import threading
from typing import Any

from yt8m_tf.errors import Interrupted


class Interruption:
    """A context that records SIGINT and SIGTERM, so that the current step can finish; a second signal raises at once.

    Only the main thread receives signals: in other threads the context has no effect. A signal that the process ignores
    stays ignored.

    Attributes:
      number: the number of the signal that was received; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # With several workers TensorFlow installs its own handler for SIGTERM; this one replaces it.
            numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, _: object) -> None:
        if self.number is not None:
            raise Interrupted(number=number)
        self.number = number
