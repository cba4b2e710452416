"""Tables as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate


def aligned(rows: Sequence[Sequence[str]], num_left: int) -> str:
    """Formats rows as aligned columns, the first `num_left` left-aligned, the others right-aligned."""
    return tabulate(rows, tablefmt="plain", colalign=_sides(len(rows[0]), num_left), disable_numparse=True)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], num_left: int = 1) -> str:
    """Formats the same, under a header, as a Markdown table."""
    return tabulate(rows, header, tablefmt="pipe", colalign=_sides(len(header), num_left), disable_numparse=True)


def _sides(num_columns: int, num_left: int) -> list[str]:
    return ["left" if number < num_left else "right" for number in range(num_columns)]


def duration(seconds: float) -> str:
    """Formats seconds for people, as seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(num_bytes: int) -> str:
    """Formats a number of bytes for people, as MB or GB."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
