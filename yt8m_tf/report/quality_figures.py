"""Figures of a report on one model: precision-recall curves, calibration, average precision of classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf.report.analysis import Curve
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

_PRECISION_FROM, _MOST_POINTS = 0.02, 600
_THRESHOLDS = (0.9, 0.5, 0.2, 0.05)
_APART = 0.1  # smallest distance, in recall and precision, between the labels of thresholds
_OFF = 0.01  # largest difference between score and share that counts as calibrated


def draw_precision_recall(curves: Mapping[str, Curve], marked: str, palette: Palette, directory: Path) -> Picture:
    """Draws precision-recall curves of models, with points at thresholds on the curve of `marked`."""
    with canvas() as (figure, axes):
        for model, curve in curves.items():
            few = evenly(len(curve.recall), _MOST_POINTS)
            recall = curve.recall[few]
            label = f"{short(model)}, GAP {curve.gap:.4f}"
            precision = np.where(recall >= _PRECISION_FROM, curve.precision[few], np.nan)  # the first ranks are noise
            axes.plot(recall, precision, label=label, **palette.line(model))
            told = [at for at in evenly(len(curve.recall), MOST_TOLD) if curve.recall[at] >= _PRECISION_FROM]
            titles = [
                f"{model}, scores ≥ {curve.thresholds[at]:.3f}: precision {curve.precision[at]:.3f},"
                f" recall {curve.recall[at]:.3f}"
                for at in told
            ]
            tell(axes, curve.recall[told], curve.precision[told], titles)
        _mark_thresholds(axes, curves[marked], palette.colour(marked))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("recall: share of labels that are found")
        axes.set_ylabel("precision: share that are labels")
        axes.set_title("Precision and recall", loc="left", fontsize=11)
        legend_below(figure, len(curves))
        alt = "Precision against recall of the pooled 20 highest scores of each video. " + "; ".join(
            f"{model}: area {curve.gap:.4f}, at scores ≥ 0.5 precision {curve.at(0.5)[0]:.3f} and recall"
            f" {curve.at(0.5)[1]:.3f}"
            for model, curve in curves.items()
        )
        caption = (
            f"Models: {', '.join(curves)}. The area under a curve is its GAP@20, from scores rounded to float16: it may"
            f" differ by about 1e-4 from that of an evaluation. Each point marks a threshold on the scores of {marked}."
        )
        return saved(figure, directory, "precision_recall", alt + ".", caption)


def _mark_thresholds(axes: Any, curve: Curve, colour: str) -> None:
    """Marks thresholds on a curve as points, with labels below and to the left; leaves out those that would overlap."""
    last = (math.inf, math.inf)
    for threshold in _THRESHOLDS:
        precision, recall = curve.at(threshold)
        if not recall or math.hypot(recall - last[0], precision - last[1]) < _APART:
            continue
        last = recall, precision
        axes.scatter(recall, precision, 28, color=colour, zorder=3)
        side = {"ha": "right", "va": "top", "fontsize": 9}
        axes.annotate(f"≥ {threshold:g}", (recall, precision), (-3, -4), textcoords="offset points", **side)


def draw_calibration(
    model: str, bins: Sequence[Mapping[str, Any]], error: float, palette: Palette, directory: Path
) -> Picture:
    """Draws a reliability diagram of a model, from the bins of `metrics.json`."""
    filled = [found for found in bins if found["pairs"]]
    scores = [found["mean_score"] for found in filled]
    shares = [found["share_positive"] for found in filled]
    with canvas() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
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
            f"{calibration_in_words(scores, shares)} The lowest bin has {filled[0]['pairs']:,} of"
            f" {sum(found['pairs'] for found in filled):,} pairs of video and class; the error over all of them,"
            f" weighted by their number, is {error:.6f}."
        )
        return saved(figure, directory, "calibration", alt + ".", caption)


def calibration_in_words(scores: Sequence[float], shares: Sequence[float]) -> str:
    """Says on which side of the diagonal the curve is, and thus whether scores are too low or too high."""
    low = [score for score, share in zip(scores, shares, strict=True) if share > score + _OFF]
    high = [score for score, share in zip(scores, shares, strict=True) if share < score - _OFF]
    if not low and not high:
        return f"The curve is within {_OFF:g} of the diagonal: scores equal the shares of labels."
    above = "above the diagonal: these scores are too low, below the shares of labels"
    below = "below the diagonal: these scores are too high, above the shares of labels"
    if low and high:
        return f"In {len(low)} of {len(scores)} bins the curve is {above}. In {len(high)} it is {below}."
    return f"The curve is {above if low else below}."


def draw_classes(
    names: Sequence[str], num_positives: np.ndarray, average_precision: np.ndarray, directory: Path
) -> Picture:
    """Draws average precision against number of labels, for classes with labels; arguments have one value for each."""
    with canvas() as (figure, axes):
        axes.scatter(
            num_positives, average_precision, 14, color=COLOURS[0], alpha=0.75, linewidths=0, label="a point per class"
        )
        shown = zip(names, num_positives, average_precision, strict=True)
        tell(axes, num_positives, average_precision, [f"{n}: {count:,} labels, {own:.3f}" for n, count, own in shown])
        edges = 2.0 ** np.arange(0, np.ceil(np.log2(num_positives.max() + 1)) + 1)
        inside = {(a, b): (num_positives >= a) & (num_positives < b) for a, b in itertools.pairwise(edges)}
        bands = [(float(np.sqrt(a * b)), average_precision[own]) for (a, b), own in inside.items() if own.any()]
        middles, averages = [m for m, _ in bands], [float(own.mean()) for _, own in bands]
        axes.plot(middles, averages, color=COLOURS[1], marker="o", label="mean of classes with similar label counts")
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
