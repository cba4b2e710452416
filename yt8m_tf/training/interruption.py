"""An orderly end of training when a signal asks for it."""

from __future__ import annotations

import signal
import threading
from typing import Any

from yt8m_tf.errors import Interrupted


class Interruption:
    """A context in which SIGINT and SIGTERM are noted, so that a step can be finished; a second one ends at once.

    In another thread than the main one, which alone is told of signals, nothing changes; a signal that the process
    ignores stays ignored.

    Attributes:
      number: of the signal that came; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # TensorFlow takes SIGTERM for itself where several processes train together: this takes it back.
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
