"""How the pictures of a report are drawn: colours, styles, axes; as a PNG file, and as an SVG in the page's colours.

They are drawn for a width of five inches, so that their text stays readable on a phone. Lines differ in colour and in
style, for readers who do not tell the colours apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yt8m_tf.stacking.report import figure_and_axes, save_figure

# Distinct with any colour vision, and on white as on black.
COLOURS = ("#2f81d6", "#e07b1a", "#1f9e74", "#cf4f9b", "#8b6fd0", "#c9a100", "#3aa7b8", "#d4493f")
_STYLES = ("-", "--", ":", "-.")
_FOREGROUND = "#1b2430"
_LONGEST = 22  # characters of a name


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: base name of its PNG, SVG text, what it shows for those who do not see it, and what stands below."""

    name: str
    svg: str
    alt: str
    caption: str


@contextlib.contextmanager
def canvas(size: tuple[float, float] = (5, 4)) -> Iterator[tuple[Any, Any]]:
    """A figure of so many inches and its axes, in the style of the report."""
    import matplotlib
    from matplotlib.rcsetup import cycler

    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    style: dict[str, Any] = dict.fromkeys(names, _FOREGROUND)
    style |= {"svg.fonttype": "none", "svg.hashsalt": "yt8m", "font.size": 10, "legend.frameon": False}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#888888"}
    style |= {"grid.alpha": 0.25, "axes.prop_cycle": cycler(color=COLOURS), "axes.axisbelow": True}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        yield figure_and_axes(size)


def saved(figure: Any, directory: Path, name: str, alt: str, caption: str = "") -> Picture:
    """Writes `directory/name.png`, and gives the figure for the page."""
    directory.mkdir(parents=True, exist_ok=True)
    save_figure(figure, directory / f"{name}.png")
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, dpi=160, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :].replace(_FOREGROUND, "currentColor")
    colours = "svg{color:#1b2430}@media(prefers-color-scheme:dark){svg{color:#dfe5ec}}"
    start = svg.index(">") + 1
    return Picture(f"{name}.png", f"{svg[:start]}<style>{colours}</style>{svg[start:]}", alt, caption)


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the line of that number."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": _STYLES[number // len(COLOURS) % len(_STYLES)]}


def short(name: str) -> str:
    """A name that fits a legend."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def legend_below(figure: Any, count: int) -> None:
    """A legend of so many lines under the axes."""
    figure.legend(loc="outside lower center", ncols=2 if count > 1 else 1, fontsize=9, handlelength=2.2)


def log_axis(axes: Any, which: str) -> None:
    """A logarithmic axis with plain numbers, also where it spans less than a decade."""
    from matplotlib.ticker import LogLocator

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axis.get_data_interval())
    axis.set_major_locator(LogLocator(subs=(1,) if high > 500 * low else (1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")
