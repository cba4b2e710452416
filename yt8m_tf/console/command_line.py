"""Commands of this package as text that can be pasted into a shell."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence


def command_line(command: str, *arguments: str, **values: object) -> str:
    """A command as one types it, whatever characters the values have.

    Args:
      command: without `yt8m-`.
      arguments: that are no flags.
      values: of its flags; several stand for a list separated by commas; a flag of value True stands alone, one of
        value None is left out.
    """
    texts = {name: comma_list(v) if isinstance(v, list | tuple) else v for name, v in values.items() if v is not None}
    named = (f"--{name}" if value is True else f"--{name}={shlex.quote(str(value))}" for name, value in texts.items())
    return " ".join([f"yt8m-{command}", *map(shlex.quote, arguments), *named])


def comma_list(values: Sequence[object]) -> str:
    """A list as flags take it: a value with a comma stands in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
