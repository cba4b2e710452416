"""Errors that a user can act on."""


class InputError(ValueError):
    """Something the user gave (a flag, a configuration key, a file) cannot be used.

    The message is one line that names the file, flag or key, the value received, and the remedy. The commands
    print it without a traceback and exit with a non-zero status.
    """
