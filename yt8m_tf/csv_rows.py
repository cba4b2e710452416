"""Reads CSV files; the errors of a row name its line."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Reader = csv.DictReader[str]
else:
    _Reader = csv.DictReader
# What the errors of Python's reader mean.
_MEANINGS = (
    ("unexpected end of data", "a quote is opened and not closed"),
    ("field larger than field limit", "a cell has more than {:,} characters; is a quote open?"),
)


class CsvRows(_Reader):
    """A `csv.DictReader` whose errors begin with the line where the row begins: "line 7: ".

    Args:
      lines: a file, or lines of one.
      strict: whether a row with misplaced or open quotes is an error.
    """

    def __init__(self, lines: Iterable[str], strict: bool = False):
        super().__init__(lines, strict=strict)
        self.reader: Any = _Lines(self.reader)


class _Lines:
    """The reader below `CsvRows`."""

    def __init__(self, reader: Any):
        self._reader, self.line_num = reader, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> list[str]:
        try:
            row: list[str] = next(self._reader)
        except csv.Error as error:
            known = [meaning for start, meaning in _MEANINGS if str(error).startswith(start)]
            meaning = known[0].format(csv.field_size_limit()) if known else str(error)
            raise csv.Error(f"line {self.line_num + 1}: {meaning}") from error
        self.line_num = self._reader.line_num
        return row
