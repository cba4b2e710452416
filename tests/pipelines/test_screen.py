"""The output of a pipeline: a line for each stage, one progress bar, and a log for the rest."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import stage_work

from yt8m_tf.errors import InputError
from yt8m_tf.pipelines import runner, screen, workers
from yt8m_tf.pipelines.execution import Where
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.state import States


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _stage(name: str, *inputs: str) -> Stage:
    return Stage(name, "train", inputs, name.replace(" ", "_"), {})


def test_one_line_for_each_stage_and_the_rest_in_its_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stages = [_stage("train a"), _stage("train b"), _stage("bad", "train a", "train b")]
    states = States(tmp_path, stages, {stage.name: () for stage in stages})
    log = tmp_path / "stages" / "bad.log"
    with (
        workers.local_workers(2, Where("", tmp_path), work=stage_work.talk) as submit,
        pytest.raises(InputError, match=rf"stage 'bad': no such shard; its log is {log}; run the same command again"),
    ):
        runner.run(stages, states, submit, jobs=2)
    out, err = capfd.readouterr()
    first, second = out.splitlines()
    assert {line.partition(": ")[0] for line in (first, second)} <= {
        f"[{n} of 3] train {m}" for n in (1, 2) for m in "ab"
    }
    assert all(": GAP@20 0.6123, 01:12; about " in line and line.endswith(" left") for line in (first, second))
    assert err == ""  # no progress bars in such a short log
    heading, *lines = log.read_text().splitlines()
    assert heading.startswith("== ") and heading.endswith(" bad")
    assert lines == ["bad begins", "native code says something", "bad at work"]
    assert screen.last_line(log) == "bad at work"


def test_the_bar_has_the_stages_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = _stage("train a"), _stage("score a")
    (tmp_path / "stages").mkdir()
    (tmp_path / one.log).write_text("== 2026-01-01 00:00:00 train a\ntrain: 20%, 10 of 50\n")
    (tmp_path / two.log).write_text("== 2026-01-01 00:00:00 score a\n")  # no output yet
    gaps = {"train": {"a": 0.75}, "validation": {"a": 0.5, "LightGBM": 0.625}}
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for file, shown in ((_Terminal(), True), (io.StringIO(), False)):
        lines: list[str] = []
        with screen.Screen(tmp_path, 4, 2, lines.append, file) as display:
            now += 5
            display.under_way([(one, now - 34), (two, now - 2)])
            text = "train a, 00:34: train: 20%, 10 of 50; score a, 00:02"
            assert (f"2 of 4|######      | {text}" in file.getvalue().replace("█", "#")) == shown
            now += 5
            display.under_way([(one, now - 39)])
            assert "train a, 00:39: train: 20%, 10 of 50" in file.getvalue()  # in a log too, after ten seconds
            display.ended(one, {"seconds": 40, "videos": 1200})
            display.ended(two, {"seconds": 3661, "gaps": gaps, "bytes": 2**20})
        assert lines == [
            "[3 of 4] train a: 1,200 videos, 00:40; about 10 s left",
            "[4 of 4] score a: out of fold GAP@20 0.7500 (a), validation GAP@20 0.6250 (LightGBM), 1.0 MB, 1:01:01",
        ]
        assert "\r" in file.getvalue() or not shown
