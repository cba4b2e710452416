"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate


def aligned(rows: Sequence[Sequence[str]], num_left: int) -> str:
    """Rows of cells as lines of columns, the first `num_left` to the left, the others to the right."""
    sides = ["left" if number < num_left else "right" for number in range(len(rows[0]))]
    return tabulate(rows, tablefmt="plain", colalign=sides, disable_numparse=True)
