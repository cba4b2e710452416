"""The section on ensembles: GAP@20 by number of models, for the plain mean and the methods of yt8m-stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yt8m_tf.report import figures
from yt8m_tf.report.analysis import ensemble_gaps
from yt8m_tf.report.drawing import Palette, Picture, canvas, saved, tell
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.parts import Columns, Missing, Note, Part, Section, Table
from yt8m_tf.report.predictions import STACKED
from yt8m_tf.report.sections import gap
from yt8m_tf.report.workdir import Workdir
from yt8m_tf.stacking import sizes_report
from yt8m_tf.stacking.settings import OUT_OF_FOLD
from yt8m_tf.stacking.sizes import METHODS
from yt8m_tf.stacking.subsets import WITH_WEAK

_NAMES = {"mean": "plain mean"}  # how a report calls methods of yt8m-stack


def ensembles(
    workdir: Workdir, hints: Hints, palette: Palette, directory: Path, num_shards: int, progress: bool
) -> Section:
    """Returns the section with GAP@20 by number of models."""
    split = workdir.split
    rows = workdir.path / "stacked" / "rows" / str(split)
    if split is None or not any(rows.glob("*.npz")):
        return Section("ensembles", "Ensembles", [Missing("No stacked scores of validation videos", hints.stack())])
    known = workdir.gaps[OUT_OF_FOLD]
    counts, orders = ensemble_gaps(rows, workdir.models, known, num_shards, progress)
    others = {name: workdir.gaps[split][name] for name in ("weighted mean", STACKED) if name in workdir.gaps[split]}
    picture = figures.draw_ensembles(counts, orders, others, palette, directory)
    cells = [[f"{size}", *(gap(found[at]) for found in orders.values())] for at, size in enumerate(counts)]
    order = sorted(workdir.models, key=lambda name: -known[name])
    note = (
        f"Models are ordered by GAP@20 out of fold: {', '.join(order)}. A class that a model does not list counts as 0."
    )
    content = Table("GAP@20 of the plain mean", ["models", *(f"GAP@20, {name}" for name in orders)], cells)
    parts: list[Part] = [Columns([picture, content]), Note(note)]
    if any(split in point["gaps"] for point in workdir.ensembles.get("points", [])):
        parts += _measured(workdir.ensembles, split, palette, directory)
    else:
        parts.append(Missing("LightGBM and the weighted mean were not measured for fewer models", hints.sizes()))
    return Section("ensembles", "Ensembles", parts)


def _measured(contents: Mapping[str, Any], split: str, palette: Palette, directory: Path) -> list[Part]:
    """Returns the curves of `contents`, and a table of what weak models add to strong ones."""
    cells = [
        [sizes_report.number_of_models(point), point["order"], *(gap(point["gaps"][split][name]) for name in METHODS)]
        for point in contents["points"]
    ]
    titles = ["models", "order", *METHODS]
    points = Table("GAP@20 of LightGBM and of means", titles, cells, 2, tall=True)
    parts: list[Part] = [Columns([_picture(contents, split, palette, directory), points])]
    if gains := _gains(contents, split):
        names = ["strong models", "weak ones", *(f"{name}, alone and with weak ones" for name in METHODS[1:])]
        parts.append(Table("What the weak models add to the best", names, gains))
    trees = contents["config"]
    note = (
        f"Each ensemble is stacked without the other models: boosters of up to {trees['num_trees']:,} trees,"
        f" learning rate {trees['learning_rate']:g}. Weak models: {', '.join(contents['weak']) or 'none'}. The best"
        " single model is the one with the highest GAP@20 out of fold."
    )
    return [*parts, Note(note)]


def _gains(contents: Mapping[str, Any], split: str) -> list[list[str]]:
    """Returns a row for each number of strong models: GAP@20 without and with the weak ones."""
    rows = []
    for point in contents["points"]:
        alone = sizes_report.best_alone(contents, point) if point["order"] == WITH_WEAK else None
        if alone is not None:
            pairs = [(alone["gaps"][split][name], point["gaps"][split][name]) for name in METHODS[1:]]
            strong, size = point["strong"], point["size"]
            rows.append([f"{strong}", f"{size - strong}", *(f"{gap(few)} → {gap(all_)}" for few, all_ in pairs)])
    return rows


def _picture(contents: Mapping[str, Any], split: str, palette: Palette, directory: Path) -> Picture:
    with canvas((5, 4.8)) as (drawn, axes):
        colours = {name: palette.colour(_NAMES.get(name, name)) for name in METHODS[1:]}
        handles = sizes_report.plot(axes, contents, split, METHODS[1:], colours)
        told = [(point, name, point["gaps"][split][name]) for point in contents["points"] for name in METHODS[1:]]
        titles = [
            f"{name} of {sizes_report.number_of_models(point)} models, {point['order']}: {found:.4f}"
            for point, name, found in told
        ]
        tell(axes, [point["size"] for point, _, _ in told], [found for _, _, found in told], titles)
        axes.set_title("GAP@20 against ensemble size, by method", loc="left", fontsize=11)
        drawn.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, handlelength=2.6)
        found = (
            f"{sizes_report.number_of_models(point)} models {point['order']}: "
            + ", ".join(f"{name} {point['gaps'][split][name]:.4f}" for name in METHODS[1:])
            for point in contents["points"]
        )
        return saved(drawn, directory, "gap_against_models_by_method", "GAP@20 against models. " + "; ".join(found))
