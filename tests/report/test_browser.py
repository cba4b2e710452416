"""The report page in headless Chromium: on a phone and on a desktop, light and dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from report_world import write_pipeline

from yt8m_tf.report.page import Options, write_report

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    _BROWSER is None, reason="no Chromium: apt-get install chromium, as root, to see the page in it"
)
_TO_THE_END = ("--dump-dom", "--virtual-time-budget=20000")
_DARK = "--blink-settings=preferredColorScheme=0"
# Headless Chromium has no window narrower than 500 pixels: the page is shown in a frame, and reports its size.
_MEASURE = """<script>
addEventListener("load", () => {
  const pictures = [...document.querySelectorAll("figure svg")].map((svg) => {
    const box = svg.getBoundingClientRect();
    return [box.width, box.height, box.right];
  });
  const root = document.documentElement, table = document.querySelector("#models .scroll");
  table.scrollLeft = 10000;
  const first = table.querySelector("tbody th").getBoundingClientRect().left - table.getBoundingClientRect().left;
  parent.postMessage(JSON.stringify({viewport: innerWidth, document: root.scrollWidth, height: root.scrollHeight,
                                     scrolled: table.scrollLeft, first, pictures}), "*");
});
</script>"""
# The violations that axe-core finds; elements without a visible focus; the points of figures that a pointer reaches;
# the text selected by the button beside a command.
_CHECK = """<script>%s</script><script>
addEventListener("load", async () => {
  const unseen = [...document.querySelectorAll("a, button, summary, input, [tabindex]")].filter((element) => {
    element.focus({focusVisible: true});
    const style = getComputedStyle(element);
    return document.activeElement === element && (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2);
  });
  const told = [...document.querySelectorAll(".told")].filter((point) => {
    point.scrollIntoView({block: "center", behavior: "instant"});
    const box = point.getBoundingClientRect();
    return document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2).closest(".told");
  });
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  const copy = document.querySelector(".copy");
  copy.click();
  const selected = getSelection().toString().trim() === copy.parentElement.querySelector("code").textContent.trim();
  for (const bar of document.querySelectorAll(".bar")) bar.remove();  // beside text, and part of its cell
  // axe-core cannot check text on a gradient, or text below elements that do not scroll with it.
  for (const box of document.querySelectorAll(".scroll, nav, nav div, th")) {
    Object.assign(box.style, {position: "static", maxHeight: "none", overflow: "visible", maskImage: "none"});
    if (box.matches(".scroll")) box.style.background = "none";
  }
  const {violations, incomplete} = await axe.run(document);
  // It cannot check text in figures, either, which must have the colour of the page's text.
  const colour = getComputedStyle(document.body).color;
  const pale = [...document.querySelectorAll("figure text")].filter((text) => getComputedStyle(text).fill !== colour);
  const undecided = incomplete.filter(({id}) => id === "color-contrast");
  const wrong = [...violations, ...undecided].flatMap(({id, nodes}) => nodes.map(
    ({html, failureSummary}) => [id, html, failureSummary])).filter(
    ([, html, why]) => !html.startsWith("<text") && !/too short|non-text/.test(why));
  parent.postMessage(JSON.stringify({
    violations: wrong, pale: pale.map((text) => text.outerHTML), unseen: unseen.map((element) => element.outerHTML),
    selected, told: told.length, points: document.querySelectorAll(".told").length,
    dark: getComputedStyle(document.body).backgroundColor,
  }), "*");
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("browser")
    write_report(write_pipeline(directory / "pipeline"), directory / "report.html", Options(progress=False))
    text = (directory / "report.html").read_text(encoding="utf-8")
    (directory / "measured.html").write_text(text.replace("</body>", _MEASURE + "</body>"), encoding="utf-8")
    return directory


def _chromium(directory: Path, width: int, height: int, *flags: str, page: str = "measured.html") -> str:
    frame = directory / f"frame_{width}.html"
    listener = "onmessage = (m) => { document.body.append(document.createElement('pre'));"
    listener += " document.querySelector('pre').textContent = m.data; }"
    frame.write_text(
        f'<body style="margin:0"><script>{listener}</script><iframe src="{page}"'
        f' style="border:0;width:{width}px;height:{height}px"></iframe></body>'
    )
    command = [str(_BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={directory / 'profile'}", f"--window-size={max(width, 500)},{height}", *flags]
    result = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _answer(dom: str) -> dict[str, Any]:
    """The measurements that the page passed to its frame."""
    found: dict[str, Any] = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", dom, re.DOTALL).group(1)))  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize(
    ("width", "height"),
    [pytest.param(390, 844, marks=pytest.mark.end_to_end), pytest.param(1280, 900, marks=pytest.mark.slow)],
)
def test_everything_fits_and_is_drawn(page: Path, width: int, height: int) -> None:
    found = _answer(_chromium(page, width, height, *_TO_THE_END))
    assert found["viewport"] == width and found["document"] <= width  # no sideways scrolling
    assert len(found["pictures"]) == 11
    for shown, high, right in found["pictures"]:
        assert shown > 0.75 * min(width, 400) and 0.4 * shown < high < 1.5 * shown and right <= width
    assert 0 <= found["first"] < 2  # the first column stays in place when the others scroll
    assert found["scrolled"] > 0 or width > 500
    # The whole page as a picture, in which every figure has its own colours.
    shot = page / f"shot_{width}.png"
    _chromium(page, width, found["height"], f"--screenshot={shot}")
    image = imread(shot)[:, :width, :3]
    assert image.shape[0] == found["height"]
    # The blue of every figure's first line, which is rare in text and tables.
    blue = np.abs(image - np.array([0x2F, 0x81, 0xD6]) / 255).max(axis=2) < 0.02
    assert blue.sum() > 1000
    assert image.std() > 0.05 and image.mean() > 0.8


@pytest.mark.end_to_end
def test_dark(page: Path) -> None:
    shot = page / "dark.png"
    _chromium(page, 390, 844, f"--screenshot={shot}", _DARK)
    image = imread(shot)[:, :390, :3]
    assert 0.02 < image.mean() < 0.3 and image.max() > 0.8  # dark background, light text


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_accessible(page: Path, dark: bool) -> None:
    """axe-core's rules, including a contrast of 4.5; keyboard focus, values of points, commands to copy."""
    axe = Path(pytest.importorskip("axe_core_python").__file__).parent / "axe.min.js"
    text = (page / "report.html").read_text(encoding="utf-8")
    script = _CHECK % axe.read_text(encoding="utf-8").replace("</script", "<\\/script")
    (page / "checked.html").write_text(text.replace("</body>", script + "</body>"), encoding="utf-8")
    found = _answer(_chromium(page, 900, 900, *_TO_THE_END, *([_DARK] if dark else []), page="checked.html"))
    assert found["violations"] == [] and found["pale"] == [] and found["unseen"] == []
    assert found["selected"] and found["dark"] == ("rgb(15, 19, 24)" if dark else "rgb(246, 247, 249)")
    assert found["points"] > 50 and found["told"] > 0.9 * found["points"]  # others may overlap
