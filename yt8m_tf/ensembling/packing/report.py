"""Reports a packing, for people and for programs: tables, `frontier.json`, `frontier.png`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf import files
from yt8m_tf.console.tables import aligned
from yt8m_tf.ensembling.packing.measure import Option
from yt8m_tf.ensembling.packing.selection import Point
from yt8m_tf.stacking.report import figure_and_axes, save_figure

JSON, PICTURE = "frontier.json", "frontier.png"
_SHOWN = 20  # rows of the table, names in the picture
_NAMED = 3  # members that a row names


@dataclasses.dataclass(frozen=True)
class Choice:
    """A frontier, and the ensemble that was chosen: its last point.

    Attributes:
      options: all candidates at all precisions; `Point.weights` has their indices as keys.
      option_gaps: GAP@20 of each option alone, on the test videos, that is, those that no choice was based on.
      full_gaps: GAP@20 of each option's candidate in float32, on the test videos.
      points: the frontier, by size. The last point may be the second-last with fitted weights, which is no larger.
      gaps: GAP@20 of each point, on the test videos.
      met: all ensembles and single models that were evaluated.
      num_videos: number of videos that the choice was based on, and of test videos.
      size_limit: bytes.
    """

    options: tuple[Option, ...]
    option_gaps: tuple[float, ...]
    full_gaps: tuple[float, ...]
    points: tuple[Point, ...]
    gaps: tuple[float, ...]
    met: tuple[Point, ...]
    num_videos: tuple[int, int]
    size_limit: int

    @property
    def point(self) -> Point:
        """The chosen ensemble."""
        return self.points[-1]

    def members(self) -> list[tuple[Option, float]]:
        """Returns the options of the chosen ensemble and their weights, highest first; the weights sum to 1."""
        return _members(self, self.point)


def write(choice: Choice, directory: Path) -> tuple[Path, ...]:
    """Writes `frontier.json` and `frontier.png`, and returns their paths."""
    contents = {
        "size_limit": choice.size_limit,
        "videos": {"chosen_by": choice.num_videos[0], "judged_by": choice.num_videos[1]},
        "options": [
            {
                "name": option.candidate.name,
                "workdir": str(option.candidate.workdir),
                "precision": str(option.precision),
                "num_bytes": option.num_bytes,
                "largest_difference": option.difference,
                "gap": gap,
                "gap_float32": full,
            }
            for option, gap, full in zip(choice.options, choice.option_gaps, choice.full_gaps, strict=True)
        ],
        "frontier": [_described(choice, number) for number in range(len(choice.points))],
    }
    files.write_json(directory / JSON, contents)
    _draw(choice, directory / PICTURE)
    return directory / JSON, directory / PICTURE


def described(choice: Choice) -> dict[str, Any]:
    """Returns the chosen ensemble as plain values for JSON: members, precisions, weights, GAP."""
    return _described(choice, len(choice.points) - 1)


def format_frontier(choice: Choice) -> str:
    """Returns the frontier as an aligned table of at most 20 rows."""
    rows = [("members", "found by", "bytes", "GAP, selection", "GAP, other videos")]
    count = len(choice.points)
    for number in sorted({round(n) for n in np.linspace(0, count - 1, min(count, _SHOWN))}):
        point = choice.points[number]
        names = [f"{option.name} {weight:.2f}" for option, weight in _members(choice, point)]
        text = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        rows.append((text, point.rule, f"{point.num_bytes:,}", f"{point.gap:.5f}", f"{choice.gaps[number]:.5f}"))
    return aligned(rows, 2)


def format_members(choice: Choice) -> str:
    """Returns the chosen ensemble as an aligned table."""
    rows = [("member", "precision", "weight", "bytes")]
    for option, weight in choice.members():
        rows.append((option.candidate.name, str(option.precision), f"{weight:.4f}", f"{option.num_bytes:,}"))
    return aligned(rows, 2)


def format_precisions(choice: Choice) -> list[str]:
    """Returns a line for each precision: the changes of the candidates' scores and GAP@20."""
    lines = []
    for precision in dict.fromkeys(str(option.precision) for option in choice.options):
        own = [number for number, option in enumerate(choice.options) if str(option.precision) == precision]
        largest = max(choice.options[n].difference for n in own)
        text = f"{precision}: scores of a shard change by {largest:.4f} at most"
        if all(choice.options[n].scores == choice.options[n].candidate.scores for n in own):
            lines.append(f"{text}; the candidates' own scores were used")
            continue
        changes = {choice.options[n].candidate.name: choice.option_gaps[n] - choice.full_gaps[n] for n in own}
        worst = min(changes, key=lambda name: changes[name])
        mean = sum(changes.values()) / len(changes)
        lines.append(
            f"{text}, GAP@20 of single models by {mean:+.5f} on average, {changes[worst]:+.5f} at worst ({worst})"
        )
    return lines


def _members(choice: Choice, point: Point) -> list[tuple[Option, float]]:
    total = sum(point.weights.values())
    ordered = sorted(point.weights.items(), key=lambda item: (-item[1], item[0]))
    return [(choice.options[number], weight / total) for number, weight in ordered]


def _described(choice: Choice, number: int) -> dict[str, Any]:
    point = choice.points[number]
    members = [
        {"name": option.candidate.name, "precision": str(option.precision), "weight": weight}
        for option, weight in _members(choice, point)
    ]
    facts = {"num_bytes": point.num_bytes, "gap_chosen_by": point.gap, "gap": choice.gaps[number]}
    return {"rule": point.rule, **facts, "members": members}


def _draw(choice: Choice, path: Path) -> None:
    from matplotlib.ticker import LogLocator

    figure, axes = figure_and_axes((9, 5.5))
    tried = [point for point in choice.met if point.rule != "single"]
    axes.scatter(_megabytes(tried), [point.gap for point in tried], 8, color="0.75", label="ensembles evaluated")
    singles = [point for point in choice.met if point.rule == "single"]
    of: Mapping[int, Point] = {next(iter(point.weights)): point for point in singles}
    precisions = list(dict.fromkeys(str(option.precision) for option in choice.options))
    for index, precision in enumerate(precisions):
        own = [point for number, point in of.items() if str(choice.options[number].precision) == precision]
        axes.scatter(
            _megabytes(own),
            [point.gap for point in own],
            30,
            marker="os^Dv"[index % 5],
            color=f"C{index + 1}",
            label=f"single models, {precision}",
        )
    if len(choice.options) <= _SHOWN:
        for number, point in of.items():
            place = (point.num_bytes / 1e6, point.gap)
            name = choice.options[number].candidate.name
            axes.annotate(name, place, (4, -9), textcoords="offset points", fontsize=7, color="0.35")
    line = [point for point in choice.points if point.rule != "fitted weights"]
    axes.plot(_megabytes(line), [point.gap for point in line], drawstyle="steps-post", color="C0", label="frontier")
    chosen = (choice.point.num_bytes / 1e6, choice.point.gap)
    axes.scatter(*chosen, 130, marker="*", color="C3", zorder=3, label=f"chosen, {len(choice.members())} members")
    if choice.size_limit < 3 * max(point.num_bytes for point in choice.met):  # a far larger limit had no effect
        axes.axvline(choice.size_limit / 1e6, color="0.5", linestyle="--", label=f"limit, {choice.size_limit:,} bytes")
    axes.set_xscale("log", subs=range(2, 10))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("size in MB")
    axes.set_ylabel(f"GAP@20 on the {choice.num_videos[0]:,} videos used for selection")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    save_figure(figure, path)


def _megabytes(points: list[Point]) -> list[float]:
    return [point.num_bytes / 1e6 for point in points]
