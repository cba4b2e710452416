"""The sections of a report on one model: curves, classes, confusions, example videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import schema
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.report import quality_figures
from yt8m_tf.report.analysis import confusions, example_videos, precision_recall, video_average_precision
from yt8m_tf.report.drawing import Palette, Picture
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.parts import Cell, Columns, Missing, Note, Part, Section, Share, Table, Video, Videos
from yt8m_tf.report.predictions import Predictions
from yt8m_tf.report.workdir import Evaluation

Names = Callable[[int], str]

_CONFUSIONS = 40
_EXTREMES = 10
_ENOUGH = 10  # fewest labels for a meaningful average precision of a class
_SHOWN = 6  # scores of an example
_KINDS = {
    "best": "Best: those with the highest average precision",
    "worst": "Worst: those with the lowest average precision, the highest wrong score first",
    "random": "Drawn at random",
}


def quality(
    model: str,
    evaluation: Evaluation | None,
    found: Mapping[str, Predictions],
    hints: Hints,
    palette: Palette,
    directory: Path,
) -> Section:
    """Returns the section with precision-recall curves and calibration, each with the name of its model.

    Args:
      model: the model that is analysed in detail.
      evaluation: the model's evaluation, if there is one.
      found: predictions by name of the model.
      hints: commands for what is missing.
      palette: colours of the models.
      directory: directory for pictures.
    """
    pictures: list[Picture] = []
    notes: list[Part] = []
    curves = {name: precision_recall(own) for name, own in found.items() if own.num_labels.any()}
    if curves:
        marked = model if model in curves else next(iter(curves))
        pictures.append(quality_figures.draw_precision_recall(curves, marked, palette, directory))
        seen = "; ".join(
            f"{name}: {len(own.ids):,} videos of {own.shards[0]:,} of {own.shards[1]:,} shards"
            for name, own in found.items()
        )
        notes.append(Note(seen))
    if model not in curves:
        notes.append(_no_scores("No precision-recall curve", model, hints))
    bins = evaluation.metrics.get("calibration") if evaluation else None
    if evaluation and bins:
        error = evaluation.metrics["metrics"]["calibration_error"]
        pictures.append(quality_figures.draw_calibration(model, bins, error, palette, directory))
    else:
        notes.append(Missing(f"No calibration of {model}", hints.evaluate(model)))
    shown: list[Part] = [Columns(pictures)] if pictures else []
    return Section("quality", "Precision and calibration", [*shown, *notes])


def classes(model: str, evaluation: Evaluation | None, names: Names, hints: Hints, directory: Path) -> Section:
    """Returns the section with the average precision of every class."""
    title = f"Classes of {model}"
    if evaluation is None:
        return Section("classes", title, [Missing("No average precision of classes", hints.evaluate(model))])
    counts, precision = np.array(evaluation.num_positives), np.array(evaluation.average_precision)
    known = np.flatnonzero(counts)
    if not len(known):
        return Section("classes", title, [Note("No class has a label in these videos.")])
    enough = known[counts[known] >= min(_ENOUGH, counts.max())]
    order = enough[np.lexsort((-counts[enough], -precision[enough]))]

    def rows(wanted: Sequence[int] | np.ndarray) -> list[list[Cell]]:
        return [[names(int(c)), f"{c}", f"{counts[c]:,}", Share(precision[c], f"{precision[c]:.3f}")] for c in wanted]

    titles = ["class", "id", "labels", "average precision"]
    least = f"of classes with {min(_ENOUGH, counts.max())} labels or more"
    extremes = [
        Table(f"Best {least}", titles, rows(order[:_EXTREMES])),
        Table(f"Worst {least}", titles, rows(order[::-1][:_EXTREMES])),
    ]
    everything = known[np.lexsort((-counts[known], -precision[known]))]
    parts: list[Part] = [
        quality_figures.draw_classes([names(int(c)) for c in known], counts[known], precision[known], directory),
        Columns(extremes),
        Table(f"All {len(known):,} classes with labels", titles, rows(everything), tall=True, id="all-classes"),
    ]
    if without := len(counts) - len(known):
        parts.append(Note(f"{without:,} of {len(counts):,} classes have no label in these videos."))
    return Section("classes", title, parts)


def confused(model: str, found: Mapping[str, Predictions], names: Names, hints: Hints) -> Section:
    """Returns the section of confusions: labels, and the classes that a model scores highest in their place."""
    whose, lacking = _whose(model, found, "confusions", hints)
    if whose is None:
        return Section("confusions", "Confusions", lacking)
    title = f"Confusions of {whose}"
    rows: list[list[Cell]] = [
        [
            names(pair.meant),
            names(pair.predicted),
            f"{pair.count:,}",
            Share(pair.count / pair.videos, f"{pair.count / pair.videos:.0%} of {pair.videos:,}"),
            f"{pair.together:,}",
        ]
        for pair in confusions(found[whose], _CONFUSIONS)
    ]
    titles = ["label", "highest score instead", "videos", "of the label's videos", "with both labels"]
    text = (
        "Videos whose highest score is not for one of their labels, counted under each of their labels. If many other"
        " videos have both labels, the two co-occur, and the second one may simply be missing."
    )
    table = Table(title, titles, rows, 2, tall=True, captioned=False)
    return Section("confusions", title, [Note(text), table, *lacking])


def examples(
    model: str, found: Mapping[str, Predictions], names: Names, count: int, seed: int, hints: Hints
) -> Section:
    """Returns the section of example videos with their labels and a model's scores."""
    whose, lacking = _whose(model, found, "example videos", hints)
    if whose is None:
        return Section("examples", "Example videos", lacking)
    predictions = found[whose]
    precision, hits = video_average_precision(predictions), predictions.hits(TOP_K)
    parts: list[Part] = []
    for kind, rows in example_videos(predictions, count, seed).items():
        heading = _KINDS[kind] + (f" (seed {seed})" if kind == "random" else "")
        cards = [_video(predictions, int(row), hits[row], float(precision[row]), names) for row in rows]
        parts.append(Videos(heading, cards))
    return Section("examples", f"Example videos, with scores of {whose}", [*parts, *lacking])


def _whose(model: str, found: Mapping[str, Predictions], what: str, hints: Hints) -> tuple[str | None, list[Missing]]:
    """Returns the model whose scores are shown, and a hint if that is not `model`."""
    if model in found:
        return model, []
    return next(iter(found), None), [_no_scores(f"No {what}", model, hints)]


def _no_scores(what: str, model: str, hints: Hints) -> Missing:
    return Missing(
        f"{what} of {model}: its scores of validation videos are not available; to compute them", hints.report()
    )


def _video(predictions: Predictions, row: int, hits: np.ndarray, precision: float, names: Names) -> Video:
    labels = predictions.labels[row][predictions.labels[row] != schema.NO_LABEL]
    listed = predictions.classes[row, :TOP_K]
    ranks = {label: np.flatnonzero(listed == label) for label in labels.tolist()}
    chips = []
    for label, at in sorted(ranks.items(), key=lambda item: item[1][0] if len(item[1]) else len(listed)):
        place = f"#{at[0] + 1}" if len(at) else f"not among the {len(listed)} highest"
        chips.append((names(label), place, bool(len(at))))
    scores = [
        (names(int(listed[position])), float(predictions.scores[row, position]), bool(hits[position]))
        for position in range(min(_SHOWN, len(listed)))
        if listed[position] != schema.NO_LABEL
    ]
    return Video(predictions.ids[row].decode(errors="replace"), precision, chips, scores)
