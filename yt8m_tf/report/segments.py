"""The section of a report on runs that are trained on rated segments (`data.segments`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf.report import figures
from yt8m_tf.report.drawing import Palette
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.parts import Cell, Columns, Missing, Named, Note, Part, Section, Share, Table, Tiles
from yt8m_tf.report.sections import mean_history
from yt8m_tf.report.workdir import Evaluation, Run, Workdir


def segment_runs(workdir: Workdir) -> dict[str, Run]:
    """Returns the runs on rated segments, by name."""
    return {name: run for name, run in workdir.runs.items() if run.of_segments}


def segment_model(workdir: Workdir, model: str) -> str:
    """Returns the run on segments whose classes are shown: `model`, or else the one with the highest MAP, or the first.

    There must be a run on segments.
    """
    maps = {name: found.metrics["metrics"]["map"] for name, found in workdir.segment_evaluations.items()}
    runs = segment_runs(workdir)
    return model if model in runs else max(runs, key=lambda name: maps.get(name, -1.0))


def segment_tiles(evaluation: Evaluation) -> Tiles:
    """Returns the figures of an evaluation as tiles."""
    metrics, counts = evaluation.metrics["metrics"], evaluation.metrics
    rated, present = sum(evaluation.num_rated or ()), sum(evaluation.num_positives)
    return Tiles(
        [
            ("MAP over rated pairs", f"{metrics['map']:.4f}"),
            ("cross-entropy of a rated pair", f"{metrics['bce']:.4f}"),
            ("rated segments", f"{counts['num_segments']:,}"),
            ("ratings", f"{counts['num_ratings']:,}"),
            ("of them present", f"{present / max(rated, 1):.0%}"),
        ]
    )


def segments(
    workdir: Workdir, whose: str, names: Callable[[int], str], hints: Hints, palette: Palette, directory: Path
) -> Section:
    """Returns the section with MAP over rated pairs, by run, step and class, and the numbers of ratings.

    Args:
      workdir: has a run on segments.
      whose: the run whose classes are shown (`segment_model`).
      names: maps a class id to its name.
      hints: commands for what is missing.
      palette: colours of the models.
      directory: directory for pictures.
    """
    runs, found = segment_runs(workdir), workdir.segment_evaluations
    parts: list[Part] = [segment_tiles(found[whose])] if whose in found else []
    table = Table(
        "Models trained on rated segments",
        ["model", "frames seen", "MAP", "cross-entropy", "best MAP during training"],
        [_row(run, found.get(name)) for name, run in runs.items()],
    ).filled()
    lines = [line for run in runs.values() if (line := mean_history(run, "map", rank="map")).steps]
    picture = []
    if any(len(line.steps) > 1 for line in lines):
        picture.append(
            figures.draw_lines(lines, palette, directory, "map_segments", "MAP of rated segments", "MAP", True)
        )
    parts.append(Columns([table, *picture]))
    parts.append(Note("Over rated pairs of a segment and a class; unrated pairs are left out."))
    parts += [Missing(f"{name} is not evaluated", hints.evaluate(name)) for name in runs if name not in found]
    if whose in found:
        parts += _classes(whose, found[whose], names)
    return Section("segments", "Rated segments", parts)


def _row(run: Run, evaluation: Evaluation | None) -> list[Cell]:
    own = run.experiment.data.segments
    assert own is not None
    metrics: Mapping[str, Any] = evaluation.metrics["metrics"] if evaluation else {}
    best = max((entry["map"] for history in run.histories for entry in history if "map" in entry), default=None)
    values = (metrics.get("map"), metrics.get("bce"), best)
    seen = f"{own.size}" + (f" and {own.context} on each side" if own.context else "")
    return [Named(run.name, run.experiment.model["name"]), seen, *("" if v is None else f"{v:.4f}" for v in values)]


def _classes(whose: str, evaluation: Evaluation, names: Callable[[int], str]) -> list[Part]:
    rated, present = np.array(evaluation.num_rated), np.array(evaluation.num_positives)
    precision = np.array(evaluation.average_precision)
    known = np.flatnonzero(rated)
    known = known[np.lexsort((-rated[known], -np.nan_to_num(precision[known], nan=-1.0)))]
    rows: list[list[Cell]] = [
        [
            names(int(c)),
            f"{c}",
            f"{rated[c]:,}",
            f"{present[c]:,}",
            Share(precision[c], f"{precision[c]:.3f}") if present[c] else "",
        ]
        for c in known
    ]
    titles = ["class", "id", "rated", "present", "average precision"]
    absent = int((present[known] == 0).sum())
    note = f"{len(rated) - len(known):,} of {len(rated):,} classes were never rated"
    note += f", {absent:,} were only rated absent: they have no average precision." if absent else "."
    return [
        Table(f"The {len(known):,} rated classes of {whose}", titles, rows, tall=True, id="rated-classes"),
        Note(note),
    ]
