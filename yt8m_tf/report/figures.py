"""Figures of a report that compare models: by step, by kind, by size, by number of models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.report.drawing import (
    COLOURS,
    GREY,
    MOST_TOLD,
    Palette,
    Picture,
    canvas,
    evenly,
    legend_below,
    log_axis,
    saved,
    short,
    tell,
)
from yt8m_tf.report.workdir import COMBINATION, FINAL, FIRST_LEVEL, HARD, STUDENT, Export

_NAMED = 12  # lines that a legend names
_KINDS = dict(zip((FIRST_LEVEL, COMBINATION, STUDENT, FINAL, HARD), (*COLOURS[:4], GREY), strict=True))


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve over steps: its points, and the value by which it is ranked."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    rank: float


def draw_lines(
    lines: Sequence[Line], palette: Palette, directory: Path, name: str, title: str, axis: str, highest: bool
) -> Picture:
    """Draws curves over steps. The 12 best are named; any others are grey.

    Args:
      lines: the curves.
      palette: colours of the models.
      directory, name: where the PNG file goes; the name has no suffix.
      title: title of the picture.
      axis: label of the y-axis, with the unit.
      highest: whether high values are good; otherwise the y-axis is logarithmic.
    """
    ranked = sorted(lines, key=lambda line: -line.rank)
    shown, others = ranked[:_NAMED], ranked[_NAMED:]
    with canvas((5, 3.2 + 0.19 * ((len(shown) + 1) // 2))) as (figure, axes):
        for line in others:
            axes.plot(line.steps, line.values, color=GREY, alpha=0.5, linewidth=0.8)
        for line in shown:
            marker = "o" if len(line.steps) == 1 else None
            axes.plot(line.steps, line.values, label=short(line.name), marker=marker, **palette.line(line.name))
        for line in (*others, *shown):
            few = evenly(len(line.steps), MOST_TOLD)
            titles = [f"{line.name}, step {line.steps[at]:,}: {line.values[at]:.4g}" for at in few]
            tell(axes, [line.steps[at] for at in few], [line.values[at] for at in few], titles)
        if not highest:
            log_axis(axes, "y")
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("training step")
        axes.set_ylabel(axis)
        legend_below(figure, len(shown))
        ends = ", ".join(f"{line.name} {line.values[-1]:.4f}" for line in shown[:5])
        alt = f"{title}: {axis} by training step, {len(lines)} curves. Last values: {ends}."
        more = f"The {_NAMED} best of {len(lines)} are named; the others are grey." if others else ""
        return saved(figure, directory, name, alt, more)


def draw_gaps(
    values: Mapping[str, float], kind: Callable[[str], str], reachable: float | None, directory: Path
) -> Picture:
    """Draws GAP@20 of models as points, a row each, highest first, coloured by kind.

    Args:
      values: GAP@20 by name.
      kind: maps the name of a model to its kind.
      reachable: GAP@20 that no model can exceed, drawn as a line; None: not known.
      directory: directory of the PNG file.
    """
    title = "GAP@20 on the validation videos"
    names = sorted(values, key=lambda model: -values[model])[:30]
    found = [values[model] for model in names]
    kinds = [own for own in _KINDS if own in set(map(kind, names))]
    with canvas((5, 1.5 + 0.235 * len(names))) as (figure, axes):
        for own in kinds:
            rows = [row for row, model in enumerate(names) if kind(model) == own]
            axes.scatter([found[row] for row in rows], rows, 36, color=_KINDS[own], zorder=3, label=own)
        for row, value in enumerate(found):
            near = reachable is not None and 0 < reachable - value < 0.2 * (reachable - min(found))  # near its line
            place, side = ((-6, -3), "right") if near else ((6, -3), "left")
            axes.annotate(f"{value:.4f}", (value, row), place, textcoords="offset points", fontsize=8.5, ha=side)
        high = max([*found, reachable or 0.0])
        if reachable is not None:
            axes.axvline(reachable, color=GREY, linestyle="--", linewidth=1.2, label=f"reachable, {reachable:.4f}")
        tell(axes, found, list(range(len(names))), [f"{name} ({kind(name)}): {values[name]:.5f}" for name in names])
        axes.set_yticks(range(len(names)), [short(model) for model in names], fontsize=9)
        axes.set_xlim(min(found) - 0.02, high + 0.25 * (max(found) - min(found) + 0.02))
        axes.invert_yaxis()
        axes.set_xlabel("GAP@20")
        axes.set_title(title, loc="left", fontsize=11)
        legend_below(figure, len(kinds) + (reachable is not None))
        alt = f"{title}. " + ", ".join(f"{model} {values[model]:.4f}" for model in names[:10]) + "."
        more = f"The {len(names)} best of {len(values)} are shown. " if len(values) > len(names) else ""
        limit = "No model can be expected to exceed the reachable value of this synthetic data. " if reachable else ""
        caption = more + limit + "Colours show kinds here; in the other figures each model keeps its own colour."
        return saved(figure, directory, "gap", alt, caption)


def draw_bytes(
    exports: Sequence[Export], frontiers: Mapping[str, Mapping[str, Any]], palette: Palette, directory: Path
) -> Picture:
    """Draws GAP@20 against megabytes, for SavedModels and for the candidates and frontiers of packings.

    Args:
      exports: the SavedModels.
      frontiers: name to the contents of `frontier.json`.
      palette: colours of the models.
      directory: directory of the PNG file.
    """
    with canvas() as (figure, axes):
        points: list[tuple[float, float, str]] = []
        for number, (name, contents) in enumerate(frontiers.items()):
            colour = COLOURS[-1 - number % len(COLOURS)]
            singles = [(option["num_bytes"] / 1e6, option["gap"]) for option in contents["options"]]
            axes.scatter(*zip(*singles, strict=True), 16, color=colour, alpha=0.7, label=f"{short(name)}: one model")
            best = sorted((point["num_bytes"] / 1e6, point["gap"]) for point in contents["frontier"])
            label = f"{short(name)}: frontier"
            axes.plot(*zip(*best, strict=True), marker="s", markersize=4, color=colour, label=label)
            points += [(size, gap, f"{name}: {size:,.2f} MB, {gap:.4f}") for size, gap in (*singles, *best)]
        for number, export in enumerate(exports):
            size, style = (
                export.num_bytes / 1e6,
                {"marker": "*Dv^Pp"[number % 6], "color": palette.colour(export.model)},
            )
            axes.scatter(size, export.gap, 110, zorder=3, label=short(export.path), **style)
            points.append((size, export.gap, f"{export.path}: {size:,.2f} MB, {export.gap:.4f}"))
        tell(axes, *zip(*points, strict=True))
        log_axis(axes, "x")
        axes.set_xlabel("size, MB")
        axes.set_ylabel("GAP@20")
        axes.set_title("GAP@20 against size", loc="left", fontsize=11)
        legend_below(figure, len(exports) + 2 * len(frontiers))
        alt = "GAP@20 against size of SavedModels: " + ", ".join(
            f"{export.path} {export.num_bytes / 1e6:,.1f} MB {export.gap:.4f}" for export in exports
        )
        caption = "A frontier is measured on held-out training videos, a SavedModel on its validation videos."
        return saved(figure, directory, "gap_against_bytes", alt + ".", caption if frontiers else "")


def draw_ensembles(
    sizes: Sequence[int],
    orders: Mapping[str, Sequence[float]],
    others: Mapping[str, float],
    palette: Palette,
    directory: Path,
) -> Picture:
    """Draws GAP@20 of means against their number of models; `others` are horizontal lines for comparison."""
    with canvas() as (figure, axes):
        for number, (name, gaps) in enumerate(orders.items()):
            style = {"color": palette.colour("plain mean"), "linestyle": ("-", ":")[number % 2]}
            axes.plot(sizes, gaps, marker="os"[number % 2], label=f"plain mean, {name}", **style)
            tell(axes, sizes, gaps, [f"{size} {name}: {gap:.4f}" for size, gap in zip(sizes, gaps, strict=True)])
        for name, gap in others.items():
            axes.axhline(gap, label=name, color=palette.colour(name), linestyle="--")
            tell(axes, sizes, [gap] * len(sizes), [f"{name}: {gap:.4f}"] * len(sizes))
        if sizes[-1] > 16:
            log_axis(axes, "x")
        else:
            axes.set_xticks(sizes)
        axes.set_xlabel("models in the mean")
        axes.set_ylabel("GAP@20")
        axes.set_title("GAP@20 against ensemble size", loc="left", fontsize=11)
        legend_below(figure, 4)
        alt = "GAP@20 of the plain mean of " + "; ".join(
            f"{name}: " + ", ".join(f"{size} models {gap:.4f}" for size, gap in zip(sizes, gaps, strict=True))
            for name, gaps in orders.items()
        )
        return saved(figure, directory, "gap_against_models", alt + ".")
