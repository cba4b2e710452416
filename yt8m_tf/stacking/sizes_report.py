"""GAP@20 against the number of models, as a Markdown table and as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf import files
from yt8m_tf.console import tables
from yt8m_tf.stacking.report import save_figure
from yt8m_tf.stacking.settings import OUT_OF_FOLD
from yt8m_tf.stacking.sizes import METHODS
from yt8m_tf.stacking.subsets import WITH_WEAK

TABLE, PICTURE = "ensemble_sizes.md", "ensemble_sizes.png"
_COLOURS = dict(zip(METHODS, ("#888888", "#2f81d6", "#1f9e74", "#e07b1a"), strict=True))
_STYLES: tuple[Any, ...] = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))  # styles of lines and markers


def number_of_models(point: Mapping[str, Any]) -> str:
    """Returns the number of models of an ensemble; for strong models with all weak ones, both numbers."""
    if point["strong"] is None:
        return str(point["size"])
    return f"{point['strong']} + {point['size'] - point['strong']}"


def best_alone(contents: Mapping[str, Any], point: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the ensemble of only the strong models of `point`, if it was evaluated."""
    strong = set(point["models"]) - set(contents["weak"])
    return next((other for other in contents["points"] if set(other["models"]) == strong), None)


def format_table(contents: Mapping[str, Any]) -> str:
    """Formats GAP@20 of every ensemble as a Markdown table with a column for each split and method."""
    splits = list(contents["points"][0]["gaps"])
    titles = [f"{'out of fold' if split == OUT_OF_FOLD else split}: {name}" for split in splits for name in METHODS]
    rows = [
        [
            number_of_models(point),
            point["order"],
            *(f"{point['gaps'][split][name]:.4f}" for split in splits for name in METHODS),
        ]
        for point in contents["points"]
    ]
    return tables.markdown(["models", "order", *titles], rows, num_left=2)


def write_sizes(contents: Mapping[str, Any], output: Path) -> list[Path]:
    """Writes the table, with the names of the models, and the plot; returns their paths."""
    models = [
        [name, f"{gap:.4f}", "weak" if name in contents["weak"] else ""] for name, gap in contents["models"].items()
    ]
    text = "\n\n".join(
        [
            "# GAP@20 against the number of models",
            format_table(contents),
            "Random orders show the effect of chance; `k + n` are the k best models and all n weak ones.",
            tables.markdown(["model", "GAP@20 out of fold", ""], models),
            f"![{PICTURE}]({PICTURE})",
        ]
    )
    with files.whole_file(output / TABLE) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    _draw(contents, output / PICTURE)
    return [output / TABLE, output / PICTURE]


def plot(
    axes: Any,
    contents: Mapping[str, Any],
    split: str,
    methods: Sequence[str] = METHODS,
    colours: Mapping[str, str] = _COLOURS,
) -> list[Any]:
    """Draws the curves of a split, with a colour for each method and a line style for each order.

    Returns the lines of the legend.
    """
    from matplotlib.lines import Line2D

    orders = list(dict.fromkeys(point["order"] for point in contents["points"]))
    styles = {order: _STYLES[number % len(_STYLES)] for number, order in enumerate(orders)}
    for name in methods:
        for order, (style, marker) in styles.items():
            own = [point for point in contents["points"] if point["order"] == order]
            sizes, gaps = [point["size"] for point in own], [point["gaps"][split][name] for point in own]
            axes.plot(sizes, gaps, color=colours[name], linestyle=style, marker=marker, markersize=4)
    counts = sorted({point["size"] for point in contents["points"] if point["order"] != WITH_WEAK})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("models")
    axes.set_ylabel("GAP@20")
    return [
        *(Line2D([], [], color=colours[name], label=name) for name in methods),
        *(
            Line2D([], [], color="#888888", linestyle=style, marker=marker, markersize=4, label=order)
            for order, (style, marker) in styles.items()
        ),
    ]


def _draw(contents: Mapping[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    splits = list(contents["points"][0]["gaps"])
    figure = Figure(figsize=(1 + 5.5 * len(splits), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        handles = plot(axes, contents, split)
        axes.set_title("out of fold" if split == OUT_OF_FOLD else split, loc="left")
        axes.grid(alpha=0.25)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    save_figure(figure, path)
