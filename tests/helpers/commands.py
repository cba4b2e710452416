"""Runs commands in this process, with flags, exit status and output, by the code that the console scripts run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from absl import flags, logging

_BIN = "yt8m_tf.bin"


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a command, like `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_command(command: str, *arguments: object) -> Result:
    """Runs `yt8m-<command>` as its console script does, and removes its flags afterwards.

    Unlike a separate process, it shares TensorFlow with the tests.
    """
    out, err = io.StringIO(), io.StringIO()
    argv = [f"yt8m-{command}", *map(str, arguments)]
    with fresh_flags(), mock.patch.object(sys, "argv", argv):
        module = importlib.import_module(f"{_BIN}.{command.replace('-', '_')}")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _kept_process():
            try:
                module.run()
            except SystemExit as end:
                status = end.code
    assert isinstance(status, int)
    return Result(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def fresh_flags() -> Iterator[None]:
    """A context that starts with only absl's flags, so that a command may define its own, and restores the others."""
    modules = _take_modules()
    own = [name for name in flags.FLAGS if not str(flags.FLAGS.find_module_defining_flag(name)).startswith("absl")]
    defined: dict[str, Any] = {name: flags.FLAGS[name] for name in own}
    for name in own:
        delattr(flags.FLAGS, name)
    before = set(flags.FLAGS)
    try:
        yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        _take_modules()
        for name, module in modules.items():
            sys.modules[name] = module
            setattr(sys.modules[_BIN], name.rpartition(".")[2], module)
        for name, flag in defined.items():
            flags.FLAGS[name] = flag


def _take_modules() -> dict[str, Any]:
    """Removes the modules of commands, so that they are imported again and define their flags again."""
    taken = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(f"{_BIN}.")}
    for name in taken:  # `from yt8m_tf.bin import x` looks here first
        vars(sys.modules[_BIN]).pop(name.rpartition(".")[2], None)
    return taken


@contextlib.contextmanager
def _kept_process() -> Iterator[None]:
    """Keeps a command from changing process-wide settings of the tests."""
    verbosity = logging.get_verbosity()
    with mock.patch("faulthandler.enable"), mock.patch(f"{_BIN}.launch._give_back_memory"):
        yield
    logging.set_verbosity(verbosity)
