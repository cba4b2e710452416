"""Errors that a user can act on."""

from __future__ import annotations

import signal


class InputError(ValueError):
    """Something the user gave (a flag, a configuration key, a file) cannot be used.

    The message is one line that names the file, flag or key, the value received, and the remedy. The commands
    print it without a traceback and exit with a non-zero status.
    """


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes:
      number: of the signal; the exit status of a command is 128 more, as a shell has it.
    """

    def __init__(self, message: str = "", number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number
