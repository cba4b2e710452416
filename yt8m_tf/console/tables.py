"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], num_left: int) -> str:
    """Rows of cells as lines of columns, the first `num_left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(width) if i < num_left else cell.rjust(width) for i, (cell, width) in padded]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
