"""Command lines of this package, ready to paste into a shell."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence

# The flags of each command that take lists. The command that prints a line has not loaded another command's flags.
LISTS = {
    "convert": ("input", "features", "levels", "range"),
    "download": ("files", "shard"),
    "ensemble": ("members",),
    "evaluate": ("input",),
    "export": ("candidates", "scores", "precisions"),
    "extract": ("input", "features", "levels", "range"),
    "infer": ("input", "mean_with", "extract", "range"),
    "kmeans": ("input", "features"),
    "pipeline": ("gpus",),
    "sample-data": ("levels",),
    "score": ("model", "input"),
    "stack": ("scores", "input"),
    "timeline": ("input", "ids", "labels"),
    "train": ("init_from", "init_exclude"),
}


def command_line(command: str, *arguments: str, **values: object) -> str:
    """Returns a command line with its values quoted for the shell.

    Args:
      command: name without `yt8m-`.
      arguments: positional arguments.
      values: values of flags. A list, or the only value of a flag that takes a list, becomes values separated by
        commas, True a flag without value; flags with value None are left out.
    """

    def text(name: str, value: object) -> str:
        if value is True:
            return f"--{name}"
        if name in LISTS.get(command, ()) and not isinstance(value, list | tuple):
            value = [value]
        return f"--{name}={shlex.quote(comma_list(value) if isinstance(value, list | tuple) else str(value))}"

    named = (text(name, value) for name, value in values.items() if value is not None)
    return " ".join([f"yt8m-{command}", *map(shlex.quote, arguments), *named])


def list_flag(name: str, path: object) -> str:
    """Returns a flag that takes a list with one path as its value, for messages."""
    return f"--{name}={shlex.quote(comma_list([path]))}"


def comma_list(values: Sequence[object]) -> str:
    """Returns a list as flags take it: separated by commas, with values that contain a comma in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
