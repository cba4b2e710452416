"""The page in headless Chromium: on a phone and on a desktop, light and dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from report_world import write_pipeline

from yt8m_tf.report.page import Options, write_report

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    _BROWSER is None, reason="no Chromium: apt-get install chromium, as root, to see the page in it"
)
_DARK = "--blink-settings=preferredColorScheme=0"
# Headless Chromium has no window narrower than 500 pixels: the page is shown in a frame, and tells its measures.
_MEASURE = """<script>
addEventListener("load", () => {
  const pictures = [...document.images].map((i) => [i.naturalWidth, i.getBoundingClientRect().width,
                                                    i.getBoundingClientRect().right]);
  const root = document.documentElement;
  parent.postMessage(JSON.stringify({viewport: innerWidth, document: root.scrollWidth, height: root.scrollHeight,
                                     ground: getComputedStyle(document.body).backgroundColor, pictures}), "*");
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("browser")
    write_report(write_pipeline(directory / "pipeline"), directory / "report.html", Options(progress=False))
    text = (directory / "report.html").read_text(encoding="utf-8")
    (directory / "measured.html").write_text(text.replace("</body>", _MEASURE + "</body>"), encoding="utf-8")
    return directory


def _chromium(directory: Path, width: int, height: int, *flags: str) -> str:
    frame = directory / f"frame_{width}.html"
    listener = "onmessage = (m) => { document.body.append(document.createElement('pre'));"
    listener += " document.querySelector('pre').textContent = m.data; }"
    frame.write_text(
        f'<body style="margin:0"><script>{listener}</script><iframe src="measured.html"'
        f' style="border:0;width:{width}px;height:{height}px"></iframe></body>'
    )
    command = [str(_BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={directory / 'profile'}", f"--window-size={max(width, 500)},{height}", *flags]
    result = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("width", "height"), [(390, 844), pytest.param(1280, 900, marks=pytest.mark.slow)])
def test_everything_fits_and_is_drawn(page: Path, width: int, height: int) -> None:
    dom = _chromium(page, width, height, "--dump-dom", "--virtual-time-budget=5000")
    found = json.loads(re.search(r"<pre>(.*?)</pre>", dom).group(1))  # type: ignore[union-attr]
    assert found["viewport"] == width and found["document"] <= width  # no scrolling sideways
    assert len(found["pictures"]) == 11
    for natural, shown, right in found["pictures"]:
        assert natural > 300 and shown > 0.75 * min(width, 400) and right <= width
    # The whole of it as a picture, where every figure has colours of its own.
    shot = page / f"shot_{width}.png"
    _chromium(page, width, found["height"], f"--screenshot={shot}")
    image = imread(shot)[:, :width, :3]
    assert image.shape[0] == found["height"]
    # The blue of the first line of every figure, which text and tables do not have so often.
    blue = np.abs(image - np.array([0x2F, 0x81, 0xD6]) / 255).max(axis=2) < 0.02
    assert blue.sum() > 1000
    assert image.std() > 0.05 and image.mean() > 0.8


def test_dark(page: Path) -> None:
    shot = page / "dark.png"
    _chromium(page, 390, 844, f"--screenshot={shot}", _DARK)
    image = imread(shot)[:, :390, :3]
    assert 0.02 < image.mean() < 0.3 and image.max() > 0.8  # dark ground, light text
