"""Progress of long work: bars on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

_SECONDS = 10.0
_COUNTED = "{percentage:.0f}%, {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left, {rate_fmt}{postfix}"


class Progress(tqdm):
    """tqdm's bar on a terminal; elsewhere (a log, CI) a line at most every ten seconds, and one at the end.

    Takes tqdm's arguments, and `line_format`, the `bar_format` for lines of a log. In a log, a bar with `leave=False`
    that ends within ten seconds leaves no line.
    """

    def __init__(self, *arguments: Any, **options: Any):
        file = options.get("file") or sys.stderr
        self._in_lines = not (hasattr(file, "isatty") and file.isatty())
        self._last_line, self._last_text = time.monotonic(), ""
        line_format = options.pop("line_format", None)
        if self._in_lines:
            options |= {"mininterval": _SECONDS, "miniters": 1}
        super().__init__(*arguments, **options)
        if self._in_lines and not self.disable:
            if line_format is not None:
                self.bar_format = line_format
            elif options.get("total") is not None:
                self.bar_format = ("{desc}: " if self.desc else "") + _COUNTED

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows the bar; in a log only if the last line is old enough."""
        if not self._in_lines:
            super().display(msg, pos)
        elif time.monotonic() - self._last_line >= _SECONDS:
            self._write_line()

    def clear(self, nolock: bool = False) -> None:
        """Removes the bar from the screen; a line in a log stays."""
        if not self._in_lines:
            super().clear(nolock)

    def close(self) -> None:
        """Ends the bar."""
        if not self._in_lines:
            super().close()
            return
        if self.disable:
            return
        self.disable = True
        self._decr_instances(self)  # type: ignore[attr-defined]  # no longer one of the bars on the screen
        if self.leave:
            self._write_line()

    def _write_line(self) -> None:
        text = str(self).strip()
        if self.total == 0 or text == self._last_text:  # nothing to do, or nothing new
            return
        self._last_line, self._last_text = time.monotonic(), text
        self.fp.write(f"{text}\n")
        self.fp.flush()
