"""The sections of a report on models: figures at a glance, tables, training curves, sizes, ensembles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.console.tables import duration
from yt8m_tf.report import figures
from yt8m_tf.report.parts import Columns, Folded, Missing, Named, Part, Section, Table, Tiles
from yt8m_tf.report.predictions import STACKED
from yt8m_tf.report.sources import Run, Workdir
from yt8m_tf.stacking.stack import OUT_OF_FOLD


def gap(value: float | None) -> str:
    """GAP@20 with four digits; nothing where it is not known."""
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def megabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e6:,.1f} MB"


def validation_gaps(workdir: Workdir) -> dict[str, float]:
    """GAP@20 on the validation data of everything that has one: evaluated runs, stacked models, combinations."""
    stacked = dict(workdir.gaps[workdir.split]) if workdir.split else {}
    return stacked | {name: found.metrics["metrics"]["gap_at_20"] for name, found in workdir.evaluations.items()}


def overview(workdir: Workdir, model: str, directory: Path) -> Section:
    """What matters most, and GAP@20 of everything."""
    gaps = validation_gaps(workdir)
    tiles = []
    if model in workdir.evaluations:
        found = workdir.evaluations[model].metrics
        metrics = found["metrics"]
        tiles.append((f"GAP@20 of {model}", gap(metrics["gap_at_20"])))
        if interval := found.get("intervals", {}).get("gap_at_20"):  # a release before this key left it out
            title = f"{interval['level']:.0%} interval of GAP@20, over videos"
            tiles.append((title, f"{gap(interval['low'])} to {gap(interval['high'])}"))
        tiles.append(("Hit@1", f"{metrics['hit_at_1']:.4f}"))
        tiles += [
            (title, f"{metrics[name]:.4f}") for name, title in (("perr", "PERR"), ("map", "mAP")) if name in metrics
        ]
        tiles.append(("validation videos", f"{found['num_videos']:,}"))
    if model in workdir.segment_evaluations:
        tiles.append(("MAP over rated pairs", f"{workdir.segment_evaluations[model].metrics['metrics']['map']:.4f}"))
    for name, report in workdir.exports.items():
        if Path(name).parts[1] == model:
            tiles.append((f"size of {name}", megabytes(report["size"]["total_bytes"])))
    if singles := [name for name in workdir.models if name in gaps]:
        best = max(singles, key=lambda name: gaps[name])
        tiles.append((f"best first-level model, {best}", gap(gaps[best])))
    if STACKED in gaps:
        tiles.append(("LightGBM over all of them", gap(gaps[STACKED])))
    parts: list[Part] = [Tiles(tiles)] if tiles else []
    if not workdir.evaluations and not workdir.segment_evaluations:
        run = f"{workdir.path}/runs/{model}" if workdir.pipeline else workdir.path
        parts.append(Missing("No evaluation yet", f"yt8m-evaluate --workdir={run} --data_dir=DATA"))
    if len(gaps) > 1:
        parts.append(figures.draw_bars(gaps, directory, "gap", "GAP@20 on the validation videos"))
    return Section("overview", "At a glance", parts)


def models(workdir: Workdir) -> Section:
    """Tables of models, of combinations and of stages."""
    out_of_fold, validation = workdir.gaps.get(OUT_OF_FOLD, {}), validation_gaps(workdir)
    sizes = {Path(name).parts[1]: report["size"]["total_bytes"] for name, report in workdir.exports.items()}
    rows = []
    for name, run in workdir.runs.items():
        count, seconds = len(run.directories), _training_seconds(workdir, name)
        kind = run.experiment.model["name"] + (f", {count} folds" if count > 1 else "")
        cells = [f"{run.num_weights:,}" if run.num_weights else "", megabytes(sizes[name]) if name in sizes else ""]
        rows.append((name, kind, *cells, duration(seconds) if seconds else ""))
    rows += [(name, f"of {len(workdir.models)} models", "", "", "") for name in out_of_fold if name not in workdir.runs]
    rows.sort(key=lambda row: -validation.get(row[0], -1.0))
    content = [
        [Named(name, kind), gap(validation.get(name)), gap(out_of_fold.get(name)), *cells]
        for name, kind, *cells in rows
    ]
    titles = ["model", "GAP@20 validation", "GAP@20 out of fold", "weights", "exported", "training"]
    parts: list[Part] = [Table("Models and combinations", titles, content)]
    pipeline = f"yt8m-pipeline --config=CONFIG --workdir={workdir.path} --data_dir=DATA"
    if not workdir.gaps and workdir.stacks:
        parts.append(Missing("No stacking yet", pipeline))
    if workdir.choices:
        made = [[entry[key] for key in ("of", "choice", "where")] for entry in workdir.choices]
        parts.append(Table("Where each choice was made", ["of", "choice", "where"], made, num_left=3))
    if workdir.stages:
        parts.append(_stages(workdir))
    elif workdir.pipeline:
        parts.append(Missing("No results of stages yet", pipeline))
    return Section("models", "Models and stages", parts)


def _training_seconds(workdir: Workdir, name: str) -> float:
    own = [found for stage, found in workdir.stages.items() if stage.partition(" fold ")[0] == f"train {name}"]
    return sum(found["seconds"] for found in own)


def _stages(workdir: Workdir) -> Folded:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, result in workdir.stages.items():
        groups.setdefault(name.partition(" fold ")[0], []).append(result)
    rows = []
    for name, results in groups.items():
        gaps, videos, size, seconds = (
            [result[key] for result in results if key in result] for key in ("gap_at_20", "videos", "bytes", "seconds")
        )
        cells = [gap(sum(gaps) / len(gaps)) if gaps else "", f"{sum(videos):,}" if videos else ""]
        rows.append([name, f"{len(results)}", *cells, megabytes(sum(size)) if size else "", f"{sum(seconds):,.1f}"])
    total = sum(result["seconds"] for result in workdir.stages.values())
    titles = ["stage", "runs", "GAP@20, mean", "videos", "written", "seconds"]
    summary = f"{len(workdir.stages)} stages, {duration(total)} of work in all"
    return Folded(summary, Table(f"{len(workdir.stages)} stages", titles, rows, tall=True))


def training(workdir: Workdir, directory: Path) -> Section:
    """Loss and GAP@20 by step."""
    pictures = []
    groups: tuple[tuple[str, str, Callable[[Run], bool]], ...] = (
        ("folds", "models trained on folds (mean of the folds)", lambda run: len(run.directories) > 1),
        ("runs", "models trained once", lambda run: len(run.directories) == 1),
    )
    for group, several, belongs in groups:
        runs = (run for run in workdir.runs.values() if not run.of_segments)  # they have a section of their own
        own = [run for run in runs if belongs(run) and any(run.histories)]
        what = own[0].name if len(own) == 1 else several
        for key, title, axis in (
            ("gap_at_20", f"GAP@20 of {what}", "GAP@20"),
            ("bce", f"Loss of {what}", "validation cross-entropy, nats"),
        ):
            lines = [line for run in own if (line := mean_history(run, key)).steps]
            if lines:
                high = key == "gap_at_20"
                wrapped = title.replace(" (", "\n(")
                pictures.append(figures.draw_lines(lines, directory, f"{key}_{group}", wrapped, axis, high))
    command = f"yt8m-train --config=CONFIG --workdir={workdir.path} --data_dir=DATA"
    content = Columns(pictures) if pictures else Missing("No evaluation while training yet", command)
    return Section("training", "Training", [content])


def mean_history(run: Run, key: str, rank: str = "gap_at_20") -> figures.Line:
    """A metric by step, the mean over the folds that were evaluated at that step; the best `rank` ranks the curve."""
    found: dict[int, list[float]] = {}
    for history in run.histories:
        for entry in history:
            if entry.get(key) is not None:
                found.setdefault(entry["step"], []).append(entry[key])
    steps = sorted(found)
    values = [sum(found[step]) / len(found[step]) for step in steps]
    best = max((entry.get(rank, 0.0) for history in run.histories for entry in history), default=0.0)
    return figures.Line(run.name, steps, values, best)


def sizes(workdir: Workdir, model: str, directory: Path) -> Section:
    """GAP@20 against bytes."""
    run = f"{workdir.path}/runs/{model}" if workdir.pipeline else f"{workdir.path}"
    command = f"yt8m-export --workdir={run} --output={workdir.path}/exported/{model}/1 --data_dir=DATA"
    if not workdir.exports and not workdir.frontiers:
        return Section("sizes", "Size", [Missing("Nothing was exported", command)])
    exports = {name: (r["size"]["total_bytes"], r["metrics"]["gap"]) for name, r in workdir.exports.items()}
    rows = []
    for name, report in workdir.exports.items():
        found = report["metrics"]
        members = report.get("pack", {}).get("members", [])
        cells = [f"{report['size']['total_bytes']:,}", f"{found['gap']:.5f}", f"{found['gap_float32']:.5f}"]
        rows.append([name, *cells, f"{len(members) or 1}"])
    titles = ["SavedModel", "bytes", "GAP@20", "of float32", "members"]
    picture = figures.draw_bytes(exports, workdir.frontiers, directory)
    parts: list[Part] = [Columns([picture, Table("SavedModels", titles, rows)])]
    for name, contents in workdir.frontiers.items():
        points = [
            [_members(point["members"]), point["rule"], f"{point['num_bytes']:,}", gap(point["gap"])]
            for point in contents["frontier"]
        ]
        heading = f"Frontier of {name}: the best ensemble of its size"
        titles = ["members", "found by", "bytes", "GAP@20, held-out videos"]
        parts.append(Table(heading, titles, points, 2, tall=True))
    if not workdir.frontiers and workdir.pipeline:
        pack = (
            f"yt8m-export --pack --candidates='{workdir.path}/runs/*/fold_0' --scores='{workdir.path}/scores/*/train'"
        )
        pack += f" --data_dir=DATA --output={workdir.path}/exported/pack/1"
        parts.append(Missing("No ensemble was packed", pack))
    return Section("sizes", "Size", parts)


def _members(members: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{m['name']} ({m['precision']}) {m['weight']:.2f}" for m in members)
