"""The pictures of a report."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf.report.analysis import Curve
from yt8m_tf.report.drawing import COLOURS, GREY, Palette, Picture, canvas, legend_below, log_axis, saved, short, tell
from yt8m_tf.report.workdir import COMBINATION, FINAL, FIRST_LEVEL, HARD, STUDENT, Export

_NAMED = 12  # lines that a legend names
_PRECISION_FROM, _MOST_POINTS, _MOST_TOLD = 0.02, 600, 60
_THRESHOLDS = (0.9, 0.5, 0.2, 0.05)
_KINDS = dict(zip((FIRST_LEVEL, COMBINATION, STUDENT, FINAL, HARD), (*COLOURS[:4], GREY), strict=True))
_OFF = 0.01  # of shares: calibration that is off by less is called right


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve by step: its points, and the figure by which it is ranked."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    rank: float


def draw_lines(
    lines: Sequence[Line], palette: Palette, directory: Path, name: str, title: str, axis: str, highest: bool
) -> Picture:
    """Curves by step; of many the 12 best have names, the others are grey.

    Args:
      lines: the curves.
      palette: of the models.
      directory, name: of the PNG, without its suffix.
      title: of the picture.
      axis: of its y-axis, with the unit.
      highest: whether high values are good ones; the other curves are drawn on a logarithmic axis.
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
            few = _evenly(len(line.steps), _MOST_TOLD)
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
    """GAP@20 of models as points on a line each, highest first, by colour of their kind.

    Args:
      values: GAP@20 by name.
      kind: of a model, by its name.
      reachable: GAP@20 that no model can exceed, a line; None: not known.
      directory: of the PNG.
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
            near = reachable is not None and 0 < reachable - value < 0.2 * (reachable - min(found))  # to its line
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
        limit = "No model can be expected to exceed what is reachable: the data are made up. " if reachable else ""
        caption = more + limit + "Colours are of kinds here; further down each model has its own, the same everywhere."
        return saved(figure, directory, "gap", alt, caption)


def draw_precision_recall(curves: Mapping[str, Curve], marked: str, palette: Palette, directory: Path) -> Picture:
    """Precision against recall of some models, with points at thresholds on the curve of `marked`."""
    with canvas() as (figure, axes):
        for model, curve in curves.items():
            few = _evenly(len(curve.recall), _MOST_POINTS)
            recall = curve.recall[few]
            label = f"{short(model)}, GAP {curve.gap:.4f}"
            precision = np.where(recall >= _PRECISION_FROM, curve.precision[few], np.nan)  # the first ranks are noise
            axes.plot(recall, precision, label=label, **palette.line(model))
            told = [at for at in _evenly(len(curve.recall), _MOST_TOLD) if curve.recall[at] >= _PRECISION_FROM]
            titles = [
                f"{model}, scores of {curve.thresholds[at]:.3f} and more: precision {curve.precision[at]:.3f},"
                f" recall {curve.recall[at]:.3f}"
                for at in told
            ]
            tell(axes, curve.recall[told], curve.precision[told], titles)
        _mark_thresholds(axes, curves[marked], palette.colour(marked))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("recall: share of all labels")
        axes.set_ylabel("precision: share of labels")
        axes.set_title("Precision and recall", loc="left", fontsize=11)
        legend_below(figure, len(curves))
        alt = "Precision against recall of the pooled 20 highest scores of each video. " + "; ".join(
            f"{model}: area {curve.gap:.4f}, at scores of 0.5 and more precision {curve.at(0.5)[0]:.3f} and recall"
            f" {curve.at(0.5)[1]:.3f}"
            for model, curve in curves.items()
        )
        caption = (
            f"Of {', '.join(curves)}. The area under a curve is its GAP@20, from scores rounded to float16: it may"
            f" differ by some 1e-4 from that of an evaluation. Points are what {marked} scores that high, or higher."
        )
        return saved(figure, directory, "precision_recall", alt + ".", caption)


def _mark_thresholds(axes: Any, curve: Curve, colour: str) -> None:
    """Points on a curve with the score below or left of each, on the curve's own side; none upon another."""
    last = (math.inf, math.inf)
    for threshold in _THRESHOLDS:
        precision, recall = curve.at(threshold)
        if not recall or math.hypot(recall - last[0], precision - last[1]) < 0.1:
            continue
        last = recall, precision
        axes.scatter(recall, precision, 28, color=colour, zorder=3)
        side = {"ha": "right", "va": "top", "fontsize": 9}
        axes.annotate(f"≥ {threshold:g}", (recall, precision), (-3, -4), textcoords="offset points", **side)


def draw_calibration(
    model: str, bins: Sequence[Mapping[str, Any]], error: float, palette: Palette, directory: Path
) -> Picture:
    """A reliability diagram of a model, from the bins of `metrics.json`."""
    filled = [found for found in bins if found["pairs"]]
    scores = [found["mean_score"] for found in filled]
    shares = [found["share_positive"] for found in filled]
    with canvas() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as scored")
        axes.plot(scores, shares, marker="o", markersize=5, label=short(model), **palette.line(model))
        titles = [
            f"scores around {found['mean_score']:.3f}: {found['share_positive']:.3f} of {found['pairs']:,} are labels"
            for found in filled
        ]
        tell(axes, scores, shares, titles)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("mean score of the bin")
        axes.set_ylabel("share that are labels")
        axes.set_title(f"Calibration of {short(model)}", loc="left", fontsize=11)
        legend_below(figure, 2)
        alt = f"Reliability diagram of {model}: share of labels by score. " + ", ".join(
            f"{share:.3f} at {score:.3f}" for score, share in zip(scores, shares, strict=True)
        )
        caption = (
            f"{calibration_in_words(scores, shares)} The lowest bin holds {filled[0]['pairs']:,} of"
            f" {sum(found['pairs'] for found in filled):,} pairs of video and class; the error over all of them,"
            f" weighted by their number, is {error:.6f}."
        )
        return saved(figure, directory, "calibration", alt + ".", caption)


def calibration_in_words(scores: Sequence[float], shares: Sequence[float]) -> str:
    """On which side of the diagonal the curve lies, and what that says of scores."""
    low = [score for score, share in zip(scores, shares, strict=True) if share > score + _OFF]
    high = [score for score, share in zip(scores, shares, strict=True) if share < score - _OFF]
    if not low and not high:
        return f"The curve keeps to the diagonal within {_OFF:g}: scores are the shares that they say."
    above = "above the diagonal: more are labels than these scores say, which are too low"
    below = "below the diagonal: fewer are labels than these scores say, which are too high"
    if low and high:
        return f"In {len(low)} of {len(scores)} bins the curve lies {above}. In {len(high)} it lies {below}."
    return f"The curve lies {above if low else below}."


def draw_bytes(
    exports: Sequence[Export], frontiers: Mapping[str, Mapping[str, Any]], palette: Palette, directory: Path
) -> Picture:
    """GAP@20 against megabytes, of SavedModels and of what packings looked at.

    Args:
      exports: the SavedModels.
      frontiers: name to the contents of `frontier.json`.
      palette: of the models.
      directory: of the PNG.
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
        caption = "A frontier is judged on held-out training videos, a SavedModel on its validation videos."
        return saved(figure, directory, "gap_against_bytes", alt + ".", caption if frontiers else "")


def draw_ensembles(
    sizes: Sequence[int],
    orders: Mapping[str, Sequence[float]],
    others: Mapping[str, float],
    palette: Palette,
    directory: Path,
) -> Picture:
    """GAP@20 of means against their number of models; `others` are lines to compare with."""
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


def draw_classes(
    names: Sequence[str], num_positives: np.ndarray, average_precision: np.ndarray, directory: Path
) -> Picture:
    """Average precision of classes against their labels; all [C], without classes that have no labels."""
    with canvas() as (figure, axes):
        axes.scatter(
            num_positives, average_precision, 14, color=COLOURS[0], alpha=0.75, linewidths=0, label="a class, one point"
        )
        shown = zip(names, num_positives, average_precision, strict=True)
        tell(axes, num_positives, average_precision, [f"{n}: {count:,} labels, {own:.3f}" for n, count, own in shown])
        edges = 2.0 ** np.arange(0, np.ceil(np.log2(num_positives.max() + 1)) + 1)
        inside = {(a, b): (num_positives >= a) & (num_positives < b) for a, b in itertools.pairwise(edges)}
        bands = [(float(np.sqrt(a * b)), average_precision[own]) for (a, b), own in inside.items() if own.any()]
        middles, averages = [m for m, _ in bands], [float(own.mean()) for _, own in bands]
        axes.plot(middles, averages, color=COLOURS[1], marker="o", label="mean of classes with about as many")
        log_axis(axes, "x")
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("validation labels of the class")
        axes.set_ylabel("average precision")
        axes.set_title("Average precision by number of labels", loc="left", fontsize=11)
        legend_below(figure, 2)
        alt = "Average precision of each class against its number of labels. Means: " + ", ".join(
            f"{mean:.2f} around {count:,.0f} labels" for count, mean in zip(middles, averages, strict=True)
        )
        return saved(figure, directory, "average_precision", alt + ".")


def _evenly(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below `count`, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))
