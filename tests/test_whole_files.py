"""Whole files and directories are on the disk before they get their names, and names are never missing meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from yt8m_tf import files
from yt8m_tf.errors import InputError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is written to the disk, and renamed, in order, by names that the test gave."""
    seen: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def name(path: Any) -> str:
        return "temporary" if Path(path).name.endswith(".tmp") else Path(path).name

    def note_sync(descriptor: int) -> None:
        seen.append(("sync", name(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def note_replace(source: Any, target: Any) -> None:
        seen.append(("name", name(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    return seen


def test_a_file(calls: list[tuple[str, str]], tmp_path: Path) -> None:
    with files.whole_file(tmp_path / "a.json") as temporary:
        temporary.write_text("x")
    assert calls == [("sync", "temporary"), ("name", "a.json"), ("sync", tmp_path.name)]


def test_a_directory(calls: list[tuple[str, str]], tmp_path: Path) -> None:
    with files.whole_directory(tmp_path / "d") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text("x")
    assert sorted(calls[:3]) == [("sync", "file"), ("sync", "sub"), ("sync", "temporary")]
    assert calls[3:] == [("name", "d"), ("sync", tmp_path.name)]


def test_a_directory_is_replaced_where_names_cannot_be_exchanged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").touch()
    for _ in range(2):
        with files.whole_directory(tmp_path / "d", replace=True) as temporary:
            (temporary / "new").touch()
        assert [path.name for path in (tmp_path / "d").iterdir()] == ["new"]
        assert [path.name for path in tmp_path.iterdir()] == ["d"]
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())  # a C library without renameat2


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for output in ("x", "link", "../" + tmp_path.name + "/x"):
        with pytest.raises(InputError, match=r"--output=o: would write over .*, which is to be read"):
            files.check_no_input([tmp_path / output], [str(tmp_path / "x"), "gs://bucket/y"], "--output=o")
    files.check_no_input([tmp_path / "y"], [str(tmp_path / "x")], "--output=o")
