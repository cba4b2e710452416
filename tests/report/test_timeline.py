"""The page of labels over time: its contents, the files that it reads, and its behaviour in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from commands import run_command
from segments import rated_record
from shards import write_shard

from yt8m_tf.errors import InputError
from yt8m_tf.report.clip_records import find_records, read_annotations
from yt8m_tf.report.clip_scores import read_scores
from yt8m_tf.report.clips import Annotations, Rating, WindowScores, from_rows
from yt8m_tf.report.timeline import write_timelines
from yt8m_tf.serving.formats import Rows
from yt8m_tf.serving.segment_formats import SegmentRows, encode_json

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_NAN = float("nan")
# Windows of 5 seconds of a clip of 12 seconds.
_SCORES = WindowScores(
    np.array([0, 5, 10]),
    np.array([5, 10, 12]),
    np.array([2, 4, 9]),
    np.array([[0.25, 0.5, _NAN], [0.75, 0.125, _NAN], [0.5, _NAN, 0.0625]], np.float32),
    {2: "Cat & <b>dog</b>", 4: "Car"},
)
_KNOWN = Annotations([4, 7], [Rating(5, 10, 4, 1.0), Rating(0, 5, 8, 0.0), Rating(0, 5, 8, 0.25)])


def _page(tmp_path: Path, **options) -> str:
    write_timelines(tmp_path / "page.html", {"v1": _SCORES}, {"v1": _KNOWN}, **options)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_bands_cells_marks_and_labels_are_where_they_belong(tmp_path: Path) -> None:
    text = _page(tmp_path, top_k=2)
    bands = [ET.fromstring(found) for found in re.findall(r'<svg class="band".*?</svg>', text, re.DOTALL)]
    # The two highest classes, and a rated class without a score.
    names = re.findall(r"<b>(.*?)</b>", text)
    assert names == ["Cat &amp; &lt;b&gt;dog&lt;/b&gt;", "Car", "class 8"]
    assert re.findall(r"<output .*?>(.*?)<", text) == ["up to 0.75", "up to 0.50", "no score"]
    cells = [[(g[0].text, *(dict(g[i].items()) for i in (1, 2))) for g in band.findall("g")] for band in bands]
    assert [len(own) for own in cells] == [3, 2, 0]
    title, hit, level = cells[0][1]
    assert title == "Cat & <b>dog</b> 0.750, 0:05 to 0:10"
    assert (hit["x"], hit["width"], hit["y"], hit["height"]) == ("41.667%", "41.667%", "0.00%", "100.00%")
    assert (level["y"], level["height"]) == ("25.00%", "75.00%")
    marks = [[(mark.text, mark[0].text, mark.get("x")) for mark in band.findall("text")] for band in bands]
    assert marks[1] == [("✓", "Car rated present, 0:05 to 0:10", "62.500%")]
    assert [mark[1] for mark in marks[2]] == ["class 8 rated absent, 0:00 to 0:05", "class 8 rated 0.25, 0:00 to 0:05"]
    assert re.findall(r"<li>(.*?)</li>", text) == ["Car", "class 7"] and text.count('class="name label"') == 1
    rows = re.findall(r"<tr>(.*?)</tr>", text)[1:]
    assert [re.findall(r">([^<>]*)</t[hd]>", row) for row in rows] == [
        ["0:00 to 0:05", "class 8 absent, class 8 0.25", "0.250", "0.500", ""],
        ["0:05 to 0:10", "Car present", "0.750", "0.125", ""],
        ["0:10 to 0:12", "", "0.500", "", ""],
    ]
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", text)  # nothing is fetched


def test_a_time_in_several_windows_belongs_to_the_last_one(tmp_path: Path) -> None:
    scores = WindowScores(np.array([0, 2, 4]), np.array([5, 6, 6]), np.array([1]), np.full((3, 1), 0.5, np.float32))
    (timeline,) = write_timelines(tmp_path / "x" / "page.html", {"v": scores}, {})
    assert [(cell.start, cell.end, cell.title[-12:]) for cell in timeline.bands[0].cells] == [
        (0, 2, "0:00 to 0:05"),
        (2, 4, "0:02 to 0:06"),
        (4, 6, "0:04 to 0:06"),
    ]
    assert timeline.what == "6 s, 3 windows of 5 s, one every 2 s"


def _rows(rng: np.random.Generator, video_id: bytes, names: list[str] | None) -> SegmentRows:
    classes = np.array([rng.permutation(6)[:4] for _ in range(3)])
    scores = np.round(rng.random((3, 4)), 7).astype(np.float32)
    rows = Rows(np.array([video_id] * 3, object), classes, scores, rng.random((3, 4)) < 0.8, names)
    return SegmentRows(np.array([0, 5, 10], np.int32), np.array([5, 10, 11], np.int32), rows)


def test_scores_are_read_from_json_lines(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"name {c}" for c in range(6)]
    rows = [_rows(rng, video_id, names) for video_id in (b"a", b"\xff", b"c")]
    (tmp_path / "x.jsonl").write_bytes(b"".join(map(encode_json, rows)))
    found = read_scores(tmp_path / "x.jsonl", None, 10, progress=False)
    assert list(found) == ["a", "\\xff", "c"]
    for own, written in zip(found.values(), rows, strict=True):
        expected = from_rows(written, names)
        for field in ("starts", "ends", "classes", "scores"):
            np.testing.assert_array_equal(getattr(own, field), getattr(expected, field))
        assert own.names == {c: names[c] for c in own.classes.tolist()}
    assert list(read_scores(tmp_path / "x.jsonl", ["c", "a"], 10, progress=False)) == ["c", "a"]
    assert list(read_scores(tmp_path / "x.jsonl", None, 1, progress=False)) == ["a"]


def test_labels_and_ratings_come_from_the_records(tmp_path: Path) -> None:
    frames = np.zeros((12, 2), np.uint8)
    ratings = [(5, 3, 1.0), (5, 3, 0.0), (0, 1, 1.0)]
    records = [rated_record(name, ratings, rgb=frames) for name in (b"a", b"b")]
    shard = str(write_shard(tmp_path / "x.tfrecord", records))
    found = find_records([shard], ["b"], 1, "--labels", progress=False)
    assert found == {"b": (shard, records[1])}
    known = read_annotations(*found["b"], num_classes=4)
    assert known == Annotations([0], [Rating(5, 10, 3, 0.5), Rating(0, 5, 1, 1.0)])
    with pytest.raises(InputError, match="record, video 'b': class 3, rated at second 5, is not below 3, the classes"):
        read_annotations(*found["b"], num_classes=3)
    with pytest.raises(InputError, match=r"--ids=z: not in --labels, which begins with a, b"):
        find_records([shard], ["a", "z"], 1, "--labels", progress=False)
    Path(shard).write_bytes(Path(shard).read_bytes()[:-3])
    with pytest.raises(InputError, match=r"--labels: .*x\.tfrecord: damaged at byte"):
        find_records([shard], ["b"], 1, "--labels", progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"id": 3},
        {"segments": []},
        {"segments": [{"start": 0, "end": 5, "ids": [1, 2], "scores": [0.5]}]},
        {"segments": [{"start": 0, "end": 5, "ids": [1], "scores": [1.5]}]},
        {"segments": [{"start": 5, "end": 5, "ids": [1], "scores": [0.5]}]},
        {"segments": [{"start": 0, "end": 5, "ids": ["x"], "scores": [0.5]}]},
        {"segments": [{"start": 0, "end": 5, "ids": [1], "names": [1], "scores": [0.5]}]},
        {"segments": [{"start": 0, "end": 5, "ids": [1], "names": ["\ud800"], "scores": [0.5]}]},
        {"segments": [{"start": 0, "end": 10**30, "ids": [1], "scores": [0.5]}]},
    ],
)
def test_invalid_lines_are_refused(tmp_path: Path, change: dict) -> None:
    line = {"id": "a", "segments": [{"start": 0, "end": 5, "ids": [1], "scores": [0.5]}]}
    (tmp_path / "x.jsonl").write_text(json.dumps(line | {"id": "good"}) + "\n" + json.dumps(line | change) + "\n")
    with pytest.raises(InputError, match=r"x\.jsonl: line 2 is not from yt8m-infer --segments=5 --format=jsonl; give"):
        read_scores(tmp_path / "x.jsonl", None, 10, progress=False)


def test_the_command_refuses_data_that_it_cannot_show(tmp_path: Path) -> None:
    segment = {"start": 0, "end": 5, "ids": [1], "scores": [0.5]}
    lines = [json.dumps({"id": name, "segments": [segment]}) + "\n" for name in "ab"]
    (tmp_path / "x.jsonl").write_text("".join(lines))

    def fails(*flags: str) -> str:
        output = tmp_path / "page.html"
        result = run_command("timeline", f"--input={tmp_path / 'x.jsonl'}", f"--output={output}", *flags)
        error = result.stderr.splitlines()[-1]
        assert result.returncode == 1 and error.startswith("yt8m-timeline: error: ") and not output.exists()
        return error

    assert "--ids=c: not in --input=" in fails("--ids=c")
    assert "--segments=5: is for shards that a model scores; give --saved_model" in fails("--segments=5")
    assert "--video=x.mp4: is one video, and the page shows 2; name one" in fails("--video=x.mp4")
    assert "--video=x.avi: browsers play .mp4, " in fails("--ids=a", "--video=x.avi")
    assert "--video=x.mp4: cannot be read: No such file" in fails("--ids=a", "--video=x.mp4")
    assert "x.txt: not the name of a page" in fails("--output=x.txt")


_MEASURE = """<script>
addEventListener("load", () => {
  const band = document.querySelector(".band"), box = band.getBoundingClientRect();
  const say = () => {
    document.body.append(Object.assign(document.createElement("pre"), {id: "said", textContent: JSON.stringify({
      overflow: document.documentElement.scrollWidth - innerWidth, band: [box.width, box.height],
      outputs: [...document.querySelectorAll("output")].map((o) => o.textContent),
      now: document.querySelectorAll(".now").length, head: document.querySelector(".head")?.getAttribute("x1"),
      level: getComputedStyle(document.querySelector(".level")).fill,
    })}));
  };
  const video = document.querySelector("video");
  if (video) {
    video.addEventListener("seeked", say);  // after the page's own handler
    video.currentTime = 6;
  } else {
    const place = {bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + 3};
    band.dispatchEvent(new PointerEvent("pointermove", place));
    say();
  }
});
</script></body>"""


@pytest.mark.skipif(_BROWSER is None, reason="no Chromium: apt-get install chromium, as root, to see the page in it")
@pytest.mark.parametrize("video", [None, "clip.mp4"])
def test_bands_follow_the_pointer_or_the_video(tmp_path: Path, video: str | None) -> None:
    if video:
        pytest.importorskip("av")
        from videos import grey, steady, write_video

        write_video(tmp_path / video, steady(2, 12), grey)
    text = _page(tmp_path, video=video and tmp_path / video)
    (tmp_path / "measured.html").write_text(text.replace("</body>", _MEASURE), encoding="utf-8")
    command = [str(_BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [
        "--window-size=500,900",
        "--virtual-time-budget=10000",
        "--dump-dom",
        (tmp_path / "measured.html").as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = json.loads(re.search(r'<pre id="said">(.*?)</pre>', dom).group(1))  # type: ignore[union-attr]
    assert found["overflow"] <= 0 and found["band"][0] > 200 and found["band"][1] > 20
    assert found["level"] == "rgb(47, 129, 214)"
    assert found["outputs"] == ["0.750", "0.125", "no score", "no score"] and found["now"] == 2
    assert found["head"] == "50%"
