"""Colours, line styles and axes of a report's pictures, which are saved as PNG files and embedded in the page as SVG.

Pictures are drawn for a width of five inches, so that their text stays readable on a phone. Lines differ in colour and
in style, for readers who cannot tell the colours apart. A point shows its value when a pointer rests on it (`tell`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from yt8m_tf.stacking.report import figure_and_axes, save_figure

# Distinct for any colour vision, on white and on black.
COLOURS = ("#2f81d6", "#e07b1a", "#1f9e74", "#cf4f9b", "#8b6fd0", "#c9a100", "#3aa7b8", "#d4493f")
GREY = "#7f8894"
MOST_TOLD = 60  # points of a curve that show their values
_STYLES = ("-", "--", ":", "-.")
_FOREGROUND = "#1b2430"
_LONGEST = 22  # characters of a shortened name
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_TOLD = "told"  # prefix of the ids of artists whose points have titles


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: base name of its PNG, SVG text, alternative text, and caption."""

    name: str
    svg: str
    alt: str
    caption: str


class Palette:
    """Colours and dashes of models by name, the same in every figure of a page.

    Args:
      names: the most important ones first, because the first ones differ in colour, the others only in dashes.
    """

    def __init__(self, names: Sequence[str]):
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}

    def line(self, name: str) -> dict[str, Any]:
        """Returns colour and dashes of a model, as arguments of a plot."""
        number = self._numbers.setdefault(name, len(self._numbers))
        return {"color": COLOURS[number % len(COLOURS)], "linestyle": _STYLES[number // len(COLOURS) % len(_STYLES)]}

    def colour(self, name: str) -> str:
        """Returns the colour of a model."""
        return str(self.line(name)["color"])


@contextlib.contextmanager
def canvas(size: tuple[float, float] = (5, 4)) -> Iterator[tuple[Any, Any]]:
    """Makes a figure of a size in inches, and its axes, in the style of the report."""
    import matplotlib
    from matplotlib.rcsetup import cycler

    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    style: dict[str, Any] = dict.fromkeys(names, _FOREGROUND)
    style |= {"svg.fonttype": "none", "svg.hashsalt": "yt8m", "font.size": 10, "legend.frameon": False}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#888888"}
    style |= {"grid.alpha": 0.25, "axes.prop_cycle": cycler(color=COLOURS), "axes.axisbelow": True}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        yield figure_and_axes(size)


def tell(axes: Any, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, titles: Sequence[str]) -> None:
    """Makes the points of a figure show their values: each gets an invisible area with a tooltip."""
    finite = [at for at in range(len(titles)) if math.isfinite(x[at]) and math.isfinite(y[at])]  # others are not drawn
    points = axes.scatter(
        [x[at] for at in finite], [y[at] for at in finite], 90, color="#00000001", linewidths=0, zorder=9
    )  # matplotlib leaves out fully transparent points
    told = axes.figure.__dict__.setdefault("yt8m_told", {})
    points.set_gid(f"{_TOLD}{len(told)}")
    told[points.get_gid()] = [titles[at] for at in finite]


def saved(figure: Any, directory: Path, name: str, alt: str, caption: str = "") -> Picture:
    """Writes `directory/name.png`, and returns the figure for the page."""
    directory.mkdir(parents=True, exist_ok=True)
    save_figure(figure, directory / f"{name}.png")
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, dpi=160, metadata={"Date": None, "Creator": None})
    told = figure.__dict__.get("yt8m_told", {})
    return Picture(f"{name}.png", _for_page(text.getvalue(), name, alt, told), alt, caption)


def _for_page(text: str, name: str, alt: str, told: Mapping[str, Sequence[str]]) -> str:
    """Adapts an SVG to a page with others: unique ids, the page's text colour, titles of points."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)  # the style would apply to the elements of the page, too
    for group in root.iter(f"{{{_SVG}}}g"):
        if titles := told.get(group.get("id", "")):
            _set_titles(group, titles)
    href = f"{{{_XLINK}}}href"
    used = {node.get(href, "")[1:] for node in root.iter()}
    used |= set(re.findall(r"url\(#([^)]+)\)", text))
    for node in root.iter():
        for key, value in list(node.attrib.items()):
            if key == "id" and value not in used:
                del node.attrib["id"]
            elif key == "id":
                node.set(key, f"{name}-{value}")
            elif key == href and value.startswith("#"):
                node.set(key, f"#{name}-{value[1:]}")
            else:
                node.set(key, value.replace("url(#", f"url(#{name}-").replace(_FOREGROUND, "currentColor"))
    for key in ("width", "height"):
        root.attrib.pop(key, None)  # the page's style sets the size, the view box the aspect ratio
    root.attrib |= {"role": "img", "aria-label": alt, "data-name": f"{name}.png"}
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    return ElementTree.tostring(root, encoding="unicode")


def _set_titles(group: ElementTree.Element, titles: Sequence[str]) -> None:
    """Adds titles to the points of a scatter, which are drawn in order."""
    for point, title in zip(group.iter(f"{{{_SVG}}}use"), titles, strict=True):
        point.attrib.pop("style", None)
        point.set("class", "told")
        ElementTree.SubElement(point, f"{{{_SVG}}}title").text = title


def evenly(count: int, most: int) -> np.ndarray:
    """Returns at most `most` of the numbers below `count`, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def short(name: str) -> str:
    """Returns a name, shortened to fit a legend."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def legend_below(figure: Any, count: int) -> None:
    """Draws a legend below the axes, in two columns if `count` > 2; no legend for a single line."""
    if count > 1:
        figure.legend(loc="outside lower center", ncols=2 if count > 2 else 1, fontsize=9, handlelength=2.2)


def log_axis(axes: Any, which: str) -> None:
    """Makes an axis logarithmic, with plain numbers, unless its values span less than a factor of five."""
    from matplotlib.ticker import LogLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axis.get_data_interval())
    if low <= 0 or high < 5 * low:  # a logarithmic axis would have only one or two ticks
        axes.ticklabel_format(axis=which, style="plain", useOffset=False)
        return
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1,) if high > 500 * low else (1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")
