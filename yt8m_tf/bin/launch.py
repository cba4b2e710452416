"""What all commands share: quiet start-up, help with an example, errors as one line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from yt8m_tf.console.quiet import import_quietly
from yt8m_tf.errors import InputError

# Of glibc's mallopt.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def launch(main: Callable[[Sequence[str]], int | None], lean: bool = False) -> None:
    """Runs a command's `main`: absl parses the flags, errors become one line on standard error and exit status 1.

    The module docstring of `main` is what `--help` and `--helpfull` show above the flags.

    Args:
      main: the command.
      lean: large pieces of memory are given back as soon as they are free, for a command that holds one model after
        another; else TensorFlow keeps them for later.
    """
    module = sys.modules[main.__module__]
    sys.modules["__main__"].__doc__ = module.__doc__

    def guarded(arguments: Sequence[str]) -> int | None:
        if len(arguments) > 1:
            return _fail(f"unexpected argument '{arguments[1]}'; flags are written --name=value")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # TensorFlow's own notices; ours are printed
        if lean:
            _give_back_memory()
        import_quietly()
        import tensorflow as tf

        try:
            return main(arguments)
        except InputError as error:
            return _fail(str(error))
        except KeyboardInterrupt:
            return _fail("interrupted; the same command goes on from the last checkpoint or finished part")
        except OSError as error:
            return _fail(f"'{error.filename}': {error.strerror}" if error.filename else str(error))
        except tf.errors.OpError as error:
            if not isinstance(error, tf.errors.ResourceExhaustedError | tf.errors.PermissionDeniedError):
                raise
            return _fail(" ".join(error.message.split()))

    app.run(guarded)


def _give_back_memory() -> None:
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 2**20)
        libc.mallopt(_M_ARENA_MAX, 2)


def _fail(message: str) -> int:
    command = os.path.basename(sys.argv[0]).removesuffix(".py")
    print(f"{command}: error: {message}", file=sys.stderr)
    return 1
