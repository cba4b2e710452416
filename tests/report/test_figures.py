"""The texts of figures, and their drawings in the page's SVG."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from yt8m_tf.report import figures, quality_figures
from yt8m_tf.report.analysis import Curve
from yt8m_tf.report.drawing import COLOURS, Palette, Picture, canvas, saved, tell

_SVG = "{http://www.w3.org/2000/svg}"


def _texts(picture: Picture) -> list[str]:
    return [(node.text or "").strip() for node in ElementTree.fromstring(picture.svg).iter(f"{_SVG}text")]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([0.2, 0.8], "The curve is above the diagonal: these scores are too low, below the shares of labels."),
        ([0.0, 0.6], "The curve is below the diagonal: these scores are too high, above the shares of labels."),
        ([0.2, 0.6], "In 1 of 2 bins the curve is above the diagonal: these scores are too low, below the shares"),
        ([0.1, 0.7], "The curve is within 0.01 of the diagonal: scores equal the shares of labels."),
    ],
)
def test_calibration_is_described(shares: list[float], words: str) -> None:
    assert quality_figures.calibration_in_words([0.1, 0.7], shares).startswith(words)


@pytest.mark.parametrize("low", [0.08, 0.0019])
def test_an_axis_of_losses_has_several_ticks(low: float, tmp_path: Path) -> None:
    """Losses within a decade used to have 0.1 as their only tick."""
    line = figures.Line("m", [1, 2, 3], [low * 1.5, low * 1.2, low], 0.0)
    picture = figures.draw_lines([line], Palette(["m"]), tmp_path, "loss", "Loss", "nats", highest=False)
    found = [float(text) for text in _texts(picture) if re.fullmatch(r"0\.\d+", text)]
    inside = [value for value in found if low <= value <= 1.5 * low]
    assert len(inside) >= 3
    assert "m" not in _texts(picture)  # a single line needs no legend


def test_a_model_has_one_colour_in_all_figures(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(10)]
    palette = Palette(names)
    assert [palette.colour(name) for name in names] == [*COLOURS, *COLOURS[:2]]
    assert palette.line("m0")["linestyle"] != palette.line("m8")["linestyle"]
    assert palette.colour("new") == COLOURS[2] == palette.colour("new")
    lines = [figures.Line(name, [1, 2], [0.1, value], value) for name, value in (("m1", 0.5), ("m2", 0.9))]
    one, two = (
        figures.draw_lines(given, palette, tmp_path, "g", "G", "GAP@20", highest=True).svg
        for given in (lines, lines[:1])
    )
    assert f"stroke: {COLOURS[1]}" in one and f"stroke: {COLOURS[1]}" in two and COLOURS[0] not in one + two


def test_labels_of_thresholds_are_on_their_curve_and_do_not_overlap(tmp_path: Path) -> None:
    """The points of 0.9, 0.5 and 0.2 differ by at most 0.01 in recall: they get one label, not three that overlap."""
    recall = np.array([0.5, 0.505, 0.51, 0.9])
    curve = Curve(recall, np.array([0.9, 0.9, 0.9, 0.4]), np.array([0.95, 0.6, 0.3, 0.06]), 0.5)
    other = Curve(recall, np.array([0.99, 0.99, 0.99, 0.8]), np.array([0.95, 0.6, 0.3, 0.06]), 0.6)
    curves = {"best": other, "mine": curve}
    picture = quality_figures.draw_precision_recall(curves, "mine", Palette(["best", "mine"]), tmp_path)
    assert [text for text in _texts(picture) if text.startswith("≥")] == ["≥ 0.9", "≥ 0.05"]
    uses = list(ElementTree.fromstring(picture.svg).iter(f"{_SVG}use"))
    points = [use for use in uses if COLOURS[1] in (use.get("style") or "")]
    assert len(points) == 2
    for point, score in zip(points, ("0.950", "0.060"), strict=True):
        titles = [(use, use.findtext(f"{_SVG}title") or "") for use in uses]
        (own,) = (use for use, title in titles if title.startswith(f"mine, scores ≥ {score}:"))
        assert [point.get(key) for key in "xy"] == [own.get(key) for key in "xy"]
    assert (
        "Each point marks a threshold on the scores of mine." in picture.caption
        and "Models: best, mine." in picture.caption
    )


def test_points_show_their_values(tmp_path: Path) -> None:
    with canvas() as (figure, axes):
        axes.plot([1, 2, 3], [1, 2, 3])
        tell(axes, [1, 2, float("nan")], [3, 2, 1], ["<one>", "two & more", "not drawn"])
        picture = saved(figure, tmp_path, "some", 'of "some"')
    root = ElementTree.fromstring(picture.svg)
    assert [title.text for title in root.iter(f"{_SVG}title")] == ["<one>", "two & more"]
    assert root.get("aria-label") == 'of "some"' and "width" not in root.attrib
    assert all(node.get("id", "some-").startswith("some-") for node in root.iter())
    assert "#1b2430" not in picture.svg and "currentColor" in picture.svg and not list(root.iter(f"{_SVG}style"))
