"""The pictures of a report."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf.report.analysis import Curve
from yt8m_tf.report.drawing import COLOURS, Picture, canvas, legend_below, line_style, log_axis, saved, short

_NAMED = 12  # lines that a legend names
_PRECISION_FROM, _MOST_POINTS = 0.02, 600


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve by step: its points, and the figure by which it is ranked."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    rank: float


def draw_lines(lines: Sequence[Line], directory: Path, name: str, title: str, axis: str, highest: bool) -> Picture:
    """Curves by step; of many the 12 best have names, the others are grey.

    Args:
      lines: the curves.
      directory, name: of the PNG, without its suffix.
      title: of the picture.
      axis: of its y-axis, with the unit.
      highest: whether high values are good ones; the other curves are drawn on a logarithmic axis.
    """
    ranked = sorted(lines, key=lambda line: -line.rank)
    shown, others = ranked[:_NAMED], ranked[_NAMED:]
    with canvas((5, 3.2 + 0.19 * ((len(shown) + 1) // 2))) as (figure, axes):
        for line in others:
            axes.plot(line.steps, line.values, color="#888888", alpha=0.4, linewidth=0.8)
        for number, line in enumerate(shown):
            marker = "o" if len(line.steps) == 1 else None
            axes.plot(line.steps, line.values, label=short(line.name), marker=marker, **line_style(number))
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


def draw_bars(values: Mapping[str, float], directory: Path, name: str, title: str) -> Picture:
    """GAP@20 of models as points on a line each, highest first."""
    names = sorted(values, key=lambda model: -values[model])[:30]
    with canvas((5, 1.1 + 0.235 * len(names))) as (figure, axes):
        rows = np.arange(len(names))
        found = [values[model] for model in names]
        axes.scatter(found, rows, 36, color=COLOURS[0], zorder=3)
        for row, value in zip(rows, found, strict=True):
            axes.annotate(f"{value:.4f}", (value, row), (6, -3), textcoords="offset points", fontsize=8.5)
        axes.set_yticks(rows, [short(model) for model in names], fontsize=9)
        axes.set_xlim(min(found) - 0.02, max(found) + 0.25 * (max(found) - min(found) + 0.02))
        axes.invert_yaxis()
        axes.set_xlabel("GAP@20")
        axes.set_title(title, loc="left", fontsize=11)
        alt = f"{title}. " + ", ".join(f"{model} {values[model]:.4f}" for model in names[:10]) + "."
        return saved(figure, directory, name, alt)


def draw_precision_recall(curves: Mapping[str, Curve], directory: Path) -> Picture:
    """Precision against recall of some models."""
    with canvas() as (figure, axes):
        for number, (model, curve) in enumerate(curves.items()):
            few = np.unique(np.linspace(0, len(curve.recall) - 1, _MOST_POINTS).astype(int))
            recall = curve.recall[few]
            label = f"{short(model)}, GAP {curve.gap:.4f}"
            precision = np.where(recall >= _PRECISION_FROM, curve.precision[few], np.nan)  # the first ranks are noise
            axes.plot(recall, precision, label=label, **line_style(number))
        first = next(iter(curves.values()))
        for threshold in (0.9, 0.5, 0.2, 0.05):
            share, found = first.at(threshold)
            if found:
                axes.scatter(found, share, 28, color=COLOURS[0], zorder=3)
                axes.annotate(f"≥ {threshold:g}", (found, share), (5, 5), textcoords="offset points", fontsize=9)
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
            "The area under a curve is its GAP@20, from scores rounded to float16: it may differ by some 1e-4 from"
            f" that of an evaluation. The points are what {next(iter(curves))} scores that high, or higher."
        )
        return saved(figure, directory, "precision_recall", alt + ".", caption)


def draw_calibration(bins: Sequence[Mapping[str, Any]], error: float, directory: Path) -> Picture:
    """A reliability diagram, from the bins of `metrics.json`."""
    filled = [found for found in bins if found["pairs"]]
    scores = [found["mean_score"] for found in filled]
    shares = [found["share_positive"] for found in filled]
    with canvas() as (figure, axes):
        axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", label="perfect calibration")
        label = "pairs of video and class, by score"
        axes.plot(scores, shares, color=COLOURS[0], marker="o", markersize=5, label=label)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("mean score of the bin")
        axes.set_ylabel("share that are labels")
        axes.set_title("Calibration", loc="left", fontsize=11)
        figure.legend(loc="outside lower center", fontsize=9)
        alt = "Reliability diagram: share of labels by score. " + ", ".join(
            f"{share:.3f} at {score:.3f}" for score, share in zip(scores, shares, strict=True)
        )
        caption = (
            f"Below the diagonal scores are too high. The lowest bin holds {filled[0]['pairs']:,} of"
            f" {sum(found['pairs'] for found in filled):,} pairs of video and class; the error over all of them,"
            f" weighted by their number, is {error:.6f}."
        )
        return saved(figure, directory, "calibration", alt + ".", caption)


def draw_bytes(
    exports: Mapping[str, tuple[int, float]], frontiers: Mapping[str, Mapping[str, Any]], directory: Path
) -> Picture:
    """GAP@20 against megabytes, of SavedModels and of what packings looked at.

    Args:
      exports: name to bytes and GAP@20.
      frontiers: name to the contents of `frontier.json`.
      directory: of the PNG.
    """
    with canvas() as (figure, axes):
        for number, (name, contents) in enumerate(frontiers.items()):
            colour = COLOURS[(number + 1) % len(COLOURS)]
            singles = [(option["num_bytes"] / 1e6, option["gap"]) for option in contents["options"]]
            axes.scatter(*zip(*singles, strict=True), 16, color=colour, alpha=0.55)
            points = sorted((point["num_bytes"] / 1e6, point["gap"]) for point in contents["frontier"])
            label = f"{short(name)}: frontier, single models"
            axes.plot(*zip(*points, strict=True), marker="s", markersize=4, color=colour, label=label)
        for number, (name, (size, gap)) in enumerate(exports.items()):
            marker = "*Dv^Pp"[number % 6]
            axes.scatter(size / 1e6, gap, 110, marker=marker, color=COLOURS[0], zorder=3, label=short(name))
        log_axis(axes, "x")
        axes.set_xlabel("size, MB")
        axes.set_ylabel("GAP@20")
        axes.set_title("GAP@20 against size", loc="left", fontsize=11)
        legend_below(figure, 1)
        alt = "GAP@20 against size of SavedModels: " + ", ".join(
            f"{name} {size / 1e6:,.1f} MB {gap:.4f}" for name, (size, gap) in exports.items()
        )
        caption = "A frontier is judged on held-out training videos, a SavedModel on its validation videos."
        return saved(figure, directory, "gap_against_bytes", alt + ".", caption if frontiers else "")


def draw_ensembles(
    sizes: Sequence[int], orders: Mapping[str, Sequence[float]], others: Mapping[str, float], directory: Path
) -> Picture:
    """GAP@20 of means against their number of models; `others` are lines to compare with."""
    with canvas() as (figure, axes):
        for number, (name, gaps) in enumerate(orders.items()):
            axes.plot(sizes, gaps, marker="os"[number % 2], label=f"plain mean, {name}", **line_style(number))
        for number, (name, gap) in enumerate(others.items(), len(orders)):
            axes.axhline(gap, label=name, **{**line_style(number), "linestyle": "--"})
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


def draw_classes(num_positives: np.ndarray, average_precision: np.ndarray, directory: Path) -> Picture:
    """Average precision of classes against their labels; both [C], without classes that have no labels."""
    with canvas() as (figure, axes):
        axes.scatter(num_positives, average_precision, 9, color=COLOURS[0], alpha=0.3, linewidths=0, rasterized=True)
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
        legend_below(figure, 1)
        alt = "Average precision of each class against its number of labels. Means: " + ", ".join(
            f"{mean:.2f} around {count:,.0f} labels" for count, mean in zip(middles, averages, strict=True)
        )
        return saved(figure, directory, "average_precision", alt + ".")
