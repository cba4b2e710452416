"""Errors on which a user can act."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


def plain(text: str) -> str:
    """Returns text as one line that is safe to print: line breaks and control characters are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class InputError(ValueError):
    """A user's input (a flag, a configuration key, a file) cannot be used.

    The message is one line that names the file, flag or key, the value received, and the remedy. Commands print it
    without a traceback, and exit with a non-zero status. Line breaks and control characters are escaped, because the
    message may quote ids, keys and names from files.

    Example:
      >>> import yt8m_tf
      >>> try:
      ...     yt8m_tf.build_model("netvald", yt8m_tf.InputSpec(level="frame"))
      ... except yt8m_tf.InputError as error:
      ...     print(error)
      configuration key 'model.name': unknown model 'netvald'; did you mean 'netvlad'? (known: ...)
    """

    def __init__(self, message: str = ""):
        super().__init__(plain(message))


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes:
      number: the number of the signal; the exit status of a command is 128 more, as in a shell.
    """

    def __init__(self, message: str = "", number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number

    @classmethod
    def like(cls, other: KeyboardInterrupt, message: str) -> Interrupted:
        """Returns the same error with another message."""
        return cls(message, getattr(other, "number", signal.SIGINT))


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """A context in which SIGTERM raises `Interrupted`, as Ctrl-C does, so that nothing half-written is left.

    Only the main thread receives signals: in other threads the context has no effect.
    """

    def end(number: int, _: object) -> None:
        raise Interrupted(number=number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
