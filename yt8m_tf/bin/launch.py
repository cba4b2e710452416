"""Starts all commands: quiet start-up, help with an example, one-line errors."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags, logging

from yt8m_tf.bin import usage
from yt8m_tf.console.quiet import import_quietly
from yt8m_tf.errors import InputError, Interrupted, ended_by_sigterm
from yt8m_tf.regular import check_regular

_TRACEBACK = flags.DEFINE_bool("traceback", False, "Print the traceback of an error above its one-line message.")

# Parameters of glibc's mallopt.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_OF_THE_SHELL = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_HELP = ("--help", "-help", "-h", "-?", "--helpshort")


def launch(
    main: Callable[[Sequence[str]], int | None],
    *,
    lean: bool = False,
    framework: bool = True,
    positional: str | None = None,
    failure: int = 1,
) -> None:
    """Runs a command's `main`, and ends the process with its exit status.

    Args:
      main: the command, see `execute`.
      lean: return large blocks of memory to the system as soon as they are free, for a command that loads one model
        after another; otherwise TensorFlow keeps them.
      framework: import TensorFlow before `main`; otherwise a `main` that needs it calls `import_quietly` itself, after
        it has checked its flags.
      positional: what the positional arguments are, for messages; None if there are none.
      failure: the exit status of an error.
    """
    faulthandler.enable()
    if lean:
        _give_back_memory()
    try:
        status = execute(main, sys.argv, framework=framework, positional=positional, failure=failure)
        sys.stdout.flush()
    except BrokenPipeError:  # what reads the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the end
        status = 128 + signal.SIGPIPE
    sys.exit(status)


def execute(
    main: Callable[[Sequence[str]], int | None],
    arguments: Sequence[str],
    *,
    framework: bool = True,
    positional: str | None = None,
    failure: int = 1,
) -> int:
    """Parses the flags and calls `main`; an error becomes one line on standard error.

    The docstring of `main`'s module describes the command, with an example of every required flag; the module's key
    flags are the command's own.

    Args:
      main: the command; takes the program's name and the positional arguments, and returns an exit status or None.
      arguments: the program's name, then flags and positional arguments.
      framework, positional, failure: see `launch`.

    Returns:
      The exit status: `failure` after an error; after a signal that ended it, 128 plus its number (130 after Ctrl-C,
      143 after SIGTERM).
    """
    module = sys.modules[main.__module__]
    command, description = _name(str(module.__file__)), module.__doc__ or ""

    def fail(message: str) -> int:
        if flags.FLAGS.is_parsed() and _TRACEBACK.value and sys.exc_info()[0]:
            traceback.print_exc()
        print(f"{command}: error: {message}", file=sys.stderr)
        return failure

    if "--helpfull" in arguments or any(name in arguments for name in _HELP):
        print(usage.help_text(command, description, main.__module__, __name__, "--helpfull" in arguments))
        return 0
    try:
        rest = flags.FLAGS(list(arguments))
    except flags.Error as error:
        return fail(usage.explain(error, command, description))
    if empty := usage.empty_flag(command, description, main.__module__):
        return fail(empty)
    if len(rest) > 1 and positional is None:
        return fail(f"unexpected argument '{rest[1]}'; flags are written --name=value")
    if len(rest) == 1 and positional is not None:
        return fail(f"no arguments; give {positional}; '{command} --help' has an example")
    logging.use_absl_handler()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # TensorFlow's own notices; ours are printed
    try:
        with ended_by_sigterm():
            _check_files(main.__module__, rest[1:])
            if framework:
                import_quietly()
            return main(rest) or 0
    except InputError as error:
        return fail(str(error))
    except KeyboardInterrupt as error:
        fail(
            str(error)
            or "interrupted; run the same command again to continue from the last checkpoint or finished part"
        )
        return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
    except BrokenPipeError:
        raise  # see `launch`
    except OSError as error:
        return fail(f"'{error.filename}': {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if not _is_of_the_machine(error):
            raise
        return fail(" ".join(str(getattr(error, "message", error)).split()))


def _check_files(module: str, positional: Sequence[str]) -> None:
    """Checks that no flag of a command names a pipe, socket or device, which could keep it waiting for ever.

    Standard input and the descriptors of the shell are allowed: whoever gives them also writes to them.
    """
    given: list[tuple[str, str]] = [("", value) for value in positional]
    for flag in flags.FLAGS.get_key_flags_for_module(module):
        if flag.present and not isinstance(flag, flags.EnumFlag):
            values = flag.value if isinstance(flag.value, list) else [flag.value]
            given += [(f"--{flag.name}: ", value) for value in values if isinstance(value, str)]
    for where, value in given:
        if not value.startswith(_OF_THE_SHELL):
            check_regular(value, where)


def _name(file: str) -> str:
    """Returns the command's name, however it was started."""
    path = Path(file).resolve()
    return f"yt8m-{path.stem.replace('_', '-')}" if path.parent == Path(__file__).resolve().parent else path.stem


def _is_of_the_machine(error: Exception) -> bool:
    """Returns whether TensorFlow ran out of memory or disk, or was denied access to a file."""
    if "tensorflow" not in sys.modules:
        return False
    import tensorflow as tf

    return isinstance(error, tf.errors.ResourceExhaustedError | tf.errors.PermissionDeniedError)


def _give_back_memory() -> None:
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 2**20)
        libc.mallopt(_M_ARENA_MAX, 2)
