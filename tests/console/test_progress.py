"""Progress in a log: whole lines, few of them, and a last one; on a terminal: tqdm's own bar."""

from __future__ import annotations

import io
import time

import pytest

from yt8m_tf.console.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Clock:
    """Replaces `time.monotonic`, and the bar's `time.time`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(Progress, "_time", lambda _: self.now, raising=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    return _Clock(monkeypatch)


def _bar(file: io.StringIO, clock: _Clock, **options: object) -> Progress:
    bar = Progress(file=file, **options)
    bar._time = lambda: clock.now
    bar.start_t = bar.last_print_t = clock.now
    return bar


def test_a_line_every_ten_seconds_and_one_at_the_end(clock: _Clock) -> None:
    log = io.StringIO()
    with _bar(log, clock, total=50, desc="train", unit="step") as bar:
        for _ in range(50):
            clock.now += 1
            bar.update(1)
            bar.set_postfix(loss="0.5")  # requests a refresh each time
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue() and len(lines) == 5  # the final state was already written
    assert lines[0].startswith("train: 20%, 10 of 50, 00:10 so far, 00:40 left") and lines[0].count("loss=") <= 1
    assert lines[-1].startswith("train: 100%, 50 of 50") and "loss=0.5" in lines[-1]


def test_short_work_prints_its_last_line_if_leave_is_set(clock: _Clock) -> None:
    log = io.StringIO()
    for leave in (True, False):
        with _bar(log, clock, total=3, desc=f"leave {leave}", leave=leave) as bar:
            bar.update(3)
    assert [line.split(",")[0] for line in log.getvalue().splitlines()] == ["leave True: 100%"]


def test_no_work_and_no_name(clock: _Clock) -> None:
    log = io.StringIO()
    with _bar(log, clock, total=0, desc="score", unit="B"):
        pass
    with _bar(log, clock, total=2) as bar:
        bar.update(2)
    assert [line.split(",")[0] for line in log.getvalue().splitlines()] == ["100%"]


def test_work_of_unknown_length(clock: _Clock) -> None:
    log = io.StringIO()
    with _bar(log, clock, desc="read", unit=" videos") as bar:
        clock.now += 20
        bar.update(40)
    assert [line.split(" [")[0] for line in log.getvalue().splitlines()] == ["read: 40 videos"]


def test_notices_are_printed_between_the_lines(clock: _Clock) -> None:
    log = io.StringIO()
    with _bar(log, clock, total=2, desc="work") as bar:
        Progress.write("a notice", file=log)
        bar.update(2)
    assert log.getvalue().splitlines()[0] == "a notice" and "\r" not in log.getvalue()


def test_disabled_is_silent() -> None:
    log = io.StringIO()
    with Progress(total=3, file=log, disable=True) as bar:
        bar.update(3)
    assert log.getvalue() == ""


def test_a_terminal_has_a_bar() -> None:
    terminal = _Terminal()
    with Progress(total=3, desc="work", file=terminal) as bar:
        bar.update(3)
    assert "\r" in terminal.getvalue() and "100%|" in terminal.getvalue()
