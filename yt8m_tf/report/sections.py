"""Sections of a report on models: tables, training curves, sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.console.tables import duration, size
from yt8m_tf.report import figures
from yt8m_tf.report.drawing import Palette
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.parts import Columns, Folded, Missing, Named, Note, Part, Section, Table
from yt8m_tf.report.workdir import Run, Workdir
from yt8m_tf.stacking.settings import OUT_OF_FOLD


def gap(value: float | None) -> str:
    """Formats GAP@20 with four digits; "" if it is not known."""
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def models(workdir: Workdir, hints: Hints) -> Section:
    """Returns the section with tables of models, combinations and stages."""
    out_of_fold, validation = workdir.gaps.get(OUT_OF_FOLD, {}), workdir.validation_gaps
    exported = {export.model: export.num_bytes for export in workdir.exports}
    rows = []
    for name, run in workdir.runs.items():
        count = len(run.directories)
        kind = run.experiment.model["name"] + (f", {count} folds" if count > 1 else "")
        # Times of a pipeline's stages include the start of their processes.
        seconds = _training_seconds(workdir, name) or run.seconds
        cells = [
            f"{run.num_parameters:,}" if run.num_parameters else "",
            size(exported[name]) if name in exported else "",
        ]
        rows.append((name, kind, *cells, duration(seconds) if seconds else ""))
    rows += [(name, f"of {len(workdir.models)} models", "", "", "") for name in out_of_fold if name not in workdir.runs]
    rows.sort(key=lambda row: -validation.get(row[0], -1.0))
    content = [
        [Named(name, kind), gap(validation.get(name)), gap(out_of_fold.get(name)), *cells]
        for name, kind, *cells in rows
    ]
    titles = ["model", "GAP@20 validation", "GAP@20 out of fold", "parameters", "exported", "training"]
    parts: list[Part] = [Table("Models and combinations", titles, content, captioned=workdir.pipeline).filled()]
    if not workdir.gaps and workdir.stacks:
        parts.append(Missing("No stacking yet", hints.pipeline()))
    if workdir.stages:
        parts.append(_stages(workdir))
    elif workdir.pipeline:
        parts.append(Missing("No results of stages yet", hints.pipeline()))
    return Section("models", "Models and stages" if workdir.pipeline else "Model", parts)


def _training_seconds(workdir: Workdir, name: str) -> float:
    own = [found for stage, found in workdir.stages.items() if stage.partition(" fold ")[0] == f"train {name}"]
    return sum(found["seconds"] for found in own)


def _stages(workdir: Workdir) -> Folded:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, result in workdir.stages.items():
        groups.setdefault(name.partition(" fold ")[0], []).append(result)
    rows = []
    for name, results in groups.items():
        gaps, videos, written, seconds = (
            [result[key] for result in results if key in result] for key in ("gap_at_20", "videos", "bytes", "seconds")
        )
        cells = [gap(sum(gaps) / len(gaps)) if gaps else "", f"{sum(videos):,}" if videos else ""]
        rows.append([name, f"{len(results)}", *cells, size(sum(written)) if written else "", f"{sum(seconds):,.1f}"])
    total, count = sum(result["seconds"] for result in workdir.stages.values()), len(workdir.stages)
    titles = ["stage", "runs", "GAP@20, mean", "videos", "written", "seconds"]
    folds = f" in {len(rows)} rows, folds of a model in one" if count > len(rows) else ""
    summary = f"{count} stages{folds}; {duration(total)} of work in all"
    return Folded(summary, Table(summary, titles, rows, tall=True, captioned=False).filled())


def training(workdir: Workdir, hints: Hints, palette: Palette, directory: Path) -> Section:
    """Returns the section with loss and GAP@20 by step."""
    parts: list[Part] = []
    pictures = []
    groups: tuple[tuple[str, str, Callable[[Run], bool]], ...] = (
        ("folds", "models trained on folds (mean of the folds)", lambda run: len(run.directories) > 1),
        ("runs", "models trained once", lambda run: len(run.directories) == 1),
    )
    for group, several, belongs in groups:
        runs = (run for run in workdir.runs.values() if not run.of_segments)  # these have their own section
        own = [run for run in runs if belongs(run) and any(run.histories)]
        what = own[0].name if len(own) == 1 else several
        for key, title, axis in (
            ("gap_at_20", f"GAP@20 of {what}", "GAP@20"),
            ("bce", f"Loss of {what}", "validation cross-entropy, nats"),
        ):
            lines = [line for run in own if (line := mean_history(run, key)).steps]
            if any(len(line.steps) > 1 for line in lines):
                high = key == "gap_at_20"
                wrapped = title.replace(" (", "\n(")
                pictures.append(figures.draw_lines(lines, palette, directory, f"{key}_{group}", wrapped, axis, high))
            elif lines and key == "gap_at_20":
                told = "; ".join(f"{line.name}, step {line.steps[0]:,}: {line.values[0]:.4f}" for line in lines)
                parts.append(Note(f"GAP@20 of {what} is known at one step only. {told}."))
    if pictures:
        parts.insert(0, Columns(pictures))
    return Section("training", "Training", parts or [Missing("No evaluation during training yet", hints.train())])


def mean_history(run: Run, key: str, rank: str = "gap_at_20") -> figures.Line:
    """Returns a metric's curve: at each step, the mean over the folds evaluated there. Its rank is the best `rank`."""
    found: dict[int, list[float]] = {}
    for history in run.histories:
        for entry in history:
            if entry.get(key) is not None:
                found.setdefault(entry["step"], []).append(entry[key])
    steps = sorted(found)
    values = [sum(found[step]) / len(found[step]) for step in steps]
    best = max((entry.get(rank, 0.0) for history in run.histories for entry in history), default=0.0)
    return figures.Line(run.name, steps, values, best)


def sizes(workdir: Workdir, model: str, hints: Hints, palette: Palette, directory: Path) -> Section:
    """Returns the section with GAP@20 against bytes."""
    if not workdir.exports and not workdir.frontiers:
        return Section("sizes", "Size", [Missing("Nothing was exported", hints.export(model))])
    rows = []
    for export in workdir.exports:
        found, rate = export.report["metrics"], export.rate
        members = export.report.get("pack", {}).get("members", [])
        cells = [f"{export.num_bytes:,}", f"{found['gap']:.5f}", f"{found['gap_float32']:.5f}", f"{len(members) or 1}"]
        rows.append([export.path, *cells, f"{rate[1]:,.0f}" if rate else ""])
    titles = ["SavedModel", "bytes", "GAP@20", "of float32", "members", "videos/s"]
    parts: list[Part] = []
    if rows:
        parts.append(Table("SavedModels", titles, rows).filled())
    if len(rows) > 1 or workdir.frontiers:  # a single point shows no more than its row
        parts = [Columns([figures.draw_bytes(workdir.exports, workdir.frontiers, palette, directory), *parts])]  # type: ignore[list-item]
    for name, contents in workdir.frontiers.items():
        points = [
            [_members(point["members"]), point["rule"], f"{point['num_bytes']:,}", gap(point["gap"])]
            for point in contents["frontier"]
        ]
        heading = f"Frontier of {name}: the best ensemble of its size"
        titles = ["members", "found by", "bytes", "GAP@20, held-out videos"]
        parts.append(Table(heading, titles, points, 2, tall=True))
    if not workdir.frontiers and workdir.stacks:
        parts.append(Missing("No ensemble was packed", hints.pack()))
    if not workdir.exports_of(model):
        parts.append(Missing(f"{model} is not exported", hints.export(model)))
    return Section("sizes", "Size", parts)


def _members(members: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{m['name']} ({m['precision']}) {m['weight']:.2f}" for m in members)
