"""The sections of a report on one model: curves, classes, confusions, example videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import schema
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.report import figures
from yt8m_tf.report.analysis import confusions, example_videos, precision_recall, video_average_precision
from yt8m_tf.report.drawing import Picture
from yt8m_tf.report.parts import Cell, Columns, Missing, Note, Part, Section, Share, Table, Video, Videos
from yt8m_tf.report.predictions import Predictions
from yt8m_tf.report.sources import Evaluation, Workdir

Names = Callable[[int], str]

_CONFUSIONS = 40
_EXTREMES = 10
_ENOUGH = 10  # labels from which on the average precision of a class says something
_SHOWN = 6  # scores of an example
_KINDS = {
    "best": "Best: of the highest average precision",
    "worst": "Worst: of the lowest average precision, the highest wrong score first",
    "random": "Drawn at random",
}


def quality(
    model: str, evaluation: Evaluation | None, found: Mapping[str, Predictions], evaluate: str, directory: Path
) -> Section:
    """Precision-recall curves and calibration.

    Args:
      model: its name.
      evaluation: of the model, where there is one.
      found: predictions by name of the model.
      evaluate: the command that makes an evaluation.
      directory: of the pictures.
    """
    pictures: list[Picture] = []
    lacking: list[Part] = []
    curves = {name: precision_recall(own) for name, own in found.items() if own.num_labels.any()}
    if curves:
        pictures.append(figures.draw_precision_recall(curves, directory))
    else:
        lacking.append(_no_predictions("No precision-recall curve"))
    bins = evaluation.metrics.get("calibration") if evaluation else None
    if evaluation and bins:
        pictures.append(figures.draw_calibration(bins, evaluation.metrics["metrics"]["calibration_error"], directory))
    else:
        lacking.append(Missing("No calibration", evaluate))
    note = "; ".join(
        f"{name}: {len(own.ids):,} videos of {own.shards[0]:,} of {own.shards[1]:,} shards"
        for name, own in found.items()
    )
    shown: list[Part] = [Columns(pictures)] if pictures else []
    return Section("quality", f"Precision and calibration of {model}", [*shown, Note(note), *lacking])


def classes(evaluation: Evaluation | None, names: Names, evaluate: str, directory: Path) -> Section:
    """Average precision of every class."""
    if evaluation is None:
        return Section("classes", "Classes", [Missing("No average precision of classes", evaluate)])
    counts, precision = np.array(evaluation.num_positives), np.array(evaluation.average_precision)
    known = np.flatnonzero(counts)
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
        figures.draw_classes(counts[known], precision[known], directory),
        Columns(extremes),
        Table(f"All {len(known):,} classes with labels", titles, rows(everything), tall=True, id="all-classes"),
        Note(f"{len(counts) - len(known):,} of {len(counts):,} classes have no label in these videos."),
    ]
    return Section("classes", "Classes", parts)


def confused(model: str, predictions: Predictions | None, names: Names) -> Section:
    """Which class a model scores highest where another one was meant."""
    title = f"Confusions of {model}"
    if predictions is None:
        return Section("confusions", title, [_no_predictions("No confusions")])
    found = confusions(predictions, _CONFUSIONS)
    rows: list[list[Cell]] = [
        [
            names(pair.meant),
            names(pair.predicted),
            f"{pair.count:,}",
            Share(pair.count / pair.videos, f"{pair.count / pair.videos:.0%} of {pair.videos:,}"),
            f"{pair.together:,}",
        ]
        for pair in found
    ]
    titles = ["label", "highest score instead", "videos", "of the label's videos", "with both labels"]
    text = (
        "Videos whose highest score is of no label of theirs, for each of their labels. Where many other videos have"
        " both labels, the two go together, and the second one may simply be missing."
    )
    return Section("confusions", title, [Note(text), Table(title, titles, rows, 2, tall=True)])


def examples(model: str, predictions: Predictions | None, names: Names, count: int, seed: int) -> Section:
    """Videos with their labels and a model's scores."""
    title = f"Example videos, with scores of {model}"
    if predictions is None:
        return Section("examples", title, [_no_predictions("No examples")])
    precision, hits = video_average_precision(predictions), predictions.hits(TOP_K)
    parts = []
    for kind, rows in example_videos(predictions, count, seed).items():
        heading = _KINDS[kind] + (f" (seed {seed})" if kind == "random" else "")
        cards = [_video(predictions, int(row), hits[row], float(precision[row]), names) for row in rows]
        parts.append(Videos(heading, cards))
    return Section("examples", title, parts)


def _video(predictions: Predictions, row: int, hits: np.ndarray, precision: float, names: Names) -> Video:
    labels = predictions.labels[row][predictions.labels[row] != schema.NO_LABEL]
    listed = predictions.classes[row, :TOP_K]
    chips = []
    for label in labels.tolist():
        at = np.flatnonzero(listed == label)
        place = f"#{at[0] + 1}" if len(at) else f"not among the {len(listed)} highest"
        chips.append((names(label), place, bool(len(at))))
    scores = [
        (names(int(listed[position])), float(predictions.scores[row, position]), bool(hits[position]))
        for position in range(min(_SHOWN, len(listed)))
        if listed[position] != schema.NO_LABEL
    ]
    return Video(predictions.ids[row].decode(errors="replace"), precision, chips, scores)


def _no_predictions(what: str) -> Missing:
    command = "yt8m-report --data_dir=DATA, where the shards of data.validation are"
    return Missing(f"{what}: there are no scores of validation videos with labels", command)


def commands(workdir: Workdir, model: str) -> str:
    """The command that evaluates a model of the directory."""
    if not workdir.pipeline:
        return f"yt8m-evaluate --workdir={workdir.path} --data_dir=DATA"
    output = f"{workdir.path}/evaluation/{model}"
    return f"yt8m-evaluate --workdir={workdir.path}/runs/{model} --data_dir=DATA --output={output}"
