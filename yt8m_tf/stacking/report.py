"""The report of a stacking: a Markdown table and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf import files
from yt8m_tf.console import tables
from yt8m_tf.stacking.settings import OUT_OF_FOLD
from yt8m_tf.stacking.stack import StackResult

TABLE = "report.md"
PICTURES = ("gap.png", "training_curves.png", "feature_importances.png")
_SHOWN = 30  # bars of a picture


def format_table(result: StackResult) -> str:
    """Formats GAP@20 of every model and combination as a Markdown table with a column for each split."""
    splits = list(result.gaps)
    titles = ["out of fold" if split == OUT_OF_FOLD else split for split in splits]
    names = list(result.gaps[OUT_OF_FOLD])
    rows = [[name, *(f"{result.gaps[split][name]:.5f}" for split in splits)] for name in names]
    return tables.markdown(["GAP@20", *titles], rows)


def format_soft_labels(result: StackResult) -> str:
    """Formats the share of labels that the out-of-fold scores cover, by frequency of the class, as a Markdown table."""
    rows = []
    for band in result.soft_labels:
        first, last = band["from"], band["to"]
        title = f"{first:,}" + (" or more" if last is None else f" to {last:,}" if last > first else "")
        counts = (f"{band[key]:,.0f}" for key in ("classes", "labels", "candidates"))
        rows.append([title, *counts, f"{band['expected']:,.1f}"])
    header = ["labels of a class", "classes", "labels", "among the candidates", "sum of scores"]
    return tables.markdown(header, rows)


def write_report(result: StackResult, output: Path) -> list[Path]:
    """Writes the table, with the weights and the sizes of the boosters, and the plots; returns their paths."""
    weights = sorted(result.weights.items(), key=lambda item: -item[1])
    text = "\n\n".join(
        [
            "# Stacking",
            format_table(result),
            f"Trees of the folds' boosters: {', '.join(map(str, result.num_trees))}.",
            tables.markdown(
                ["model", "weight in the weighted mean"], [[name, f"{weight:.4f}"] for name, weight in weights]
            ),
            "The share of labels that the soft labels (out-of-fold scores) cover. Where it is small, a student also"
            " needs hard labels (labels.weight below 1) to learn these classes:",
            format_soft_labels(result),
            *(f"![{name}]({name})" for name in PICTURES),
        ]
    )
    with files.whole_file(output / TABLE) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    _bars(output / PICTURES[0], result.gaps, "GAP@20")
    _curves(output / PICTURES[1], result.curves)
    _bars(output / PICTURES[2], {"share of gain": result.importances}, "share of the boosters' gain")
    return [output / name for name in (TABLE, *PICTURES)]


def _bars(path: Path, groups: Mapping[str, Mapping[str, float]], title: str) -> None:
    first = next(iter(groups.values()))
    names = sorted(first, key=lambda name: -first[name])[:_SHOWN]
    figure, axes = figure_and_axes((8, 1.5 + 0.3 * len(names)))
    height = 0.8 / len(groups)
    for number, (group, values) in enumerate(groups.items()):
        positions = [row + number * height for row in range(len(names))]
        axes.barh(positions, [values[name] for name in names], height, label=group)
    axes.set_yticks([row + (len(groups) - 1) * height / 2 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel(title)
    if len(groups) > 1:
        axes.legend()
    if min(values[name] for values in groups.values() for name in names) > 0.2:
        lowest = min(values[name] for values in groups.values() for name in names)
        axes.set_xlim(left=max(0.0, lowest - 0.05))
    save_figure(figure, path)


def _curves(path: Path, curves: Sequence[Mapping[str, Sequence[float]]]) -> None:
    figure, axes = figure_and_axes((8, 4.5))
    for fold, found in enumerate(curves):
        for name, values in found.items():
            style = "-" if name == "held out" else ":"
            axes.plot(range(1, len(values) + 1), values, style, color=f"C{fold}", label=f"fold {fold}, {name}")
    axes.set_xlabel("trees")
    axes.set_ylabel("loss of candidate rows, nats")
    axes.legend(fontsize="small", ncols=2)
    save_figure(figure, path)


def figure_and_axes(size: tuple[float, float]) -> tuple[Any, Any]:
    """Creates a figure of a size in inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as PNG; the file appears when it is complete."""
    with files.whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
