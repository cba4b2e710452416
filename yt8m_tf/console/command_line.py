"""Command lines of this package, ready to paste into a shell."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence


def command_line(command: str, *arguments: str, **values: object) -> str:
    """Returns a command line with its values quoted for the shell.

    Args:
      command: name without `yt8m-`.
      arguments: positional arguments.
      values: values of flags. A list becomes values separated by commas, True a flag without value; flags with value
        None are left out.
    """
    texts = {name: comma_list(v) if isinstance(v, list | tuple) else v for name, v in values.items() if v is not None}
    named = (f"--{name}" if value is True else f"--{name}={shlex.quote(str(value))}" for name, value in texts.items())
    return " ".join([f"yt8m-{command}", *map(shlex.quote, arguments), *named])


def comma_list(values: Sequence[object]) -> str:
    """Returns a list as flags take it: separated by commas, with values that contain a comma in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
