"""Files and directories appear whole or not at all, synced before they are renamed; files read are not modified."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yt8m_tf import files
from yt8m_tf.errors import InputError


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_whole_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with files.whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
        # Two writers of one file, such as two workers of a run, do not interfere with each other.
        with files.whole_file(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "new" and _names(tmp_path) == ["x.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_whole_file_leaves_nothing_behind(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(error), files.whole_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert _names(tmp_path) == []
    with pytest.raises(error), files.whole_file(path):
        raise error  # before the file exists
    assert _names(tmp_path) == []


def test_whole_directory_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "d"
    with files.whole_directory(path) as temporary:
        (temporary / "a").write_text("1")
        assert not path.exists()
    assert _names(tmp_path / "deep") == ["d"] and _names(path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_whole_directory_leaves_nothing_behind(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), files.whole_directory(tmp_path / "d") as temporary:
        (temporary / "a").write_text("1")
        raise error
    assert _names(tmp_path) == []


def test_whole_directory_does_not_replace_one(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "kept").write_text("1")
    with pytest.raises(OSError), files.whole_directory(tmp_path / "d") as temporary:
        (temporary / "a").write_text("1")
    assert _names(tmp_path) == ["d"] and _names(tmp_path / "d") == ["kept"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:-30],
        lambda content: content.replace(b"\x93NUMPY", b"\x92NUMPY"),
        lambda content: content.replace(b"'descr'", b"'other'"),
        lambda content: content.replace(b"(1,)", b"(9,)"),
        lambda content: content.replace(b"n\0\0\0", b"n\0\0\7"),  # an invalid character
        lambda content: content.replace(b"PK\x01\x02", b"PK\x01\x02\0\0\0\0\xff\xff\xff", 1),
        lambda content: content.replace(b"PK\x01\x02", b"PK\x01\x02" + b"\x63" * 8, 1),  # an unknown compression method
    ],
)
def test_damaged_arrays(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, names=np.array(["n"]))
    sound = path.read_bytes()
    assert files.read_arrays(io.BytesIO(sound))["names"].tolist() == ["n"]
    assert change(sound) != sound
    with pytest.raises(ValueError, match=r"not an \.npz file of arrays"):
        files.read_arrays(io.BytesIO(change(sound)))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The files synced to disk and the renames, in order."""
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


def test_a_directory_is_replaced_without_an_atomic_exchange(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").touch()
    for _ in range(2):
        with files.whole_directory(tmp_path / "d", replace=True) as temporary:
            (temporary / "new").touch()
        assert [path.name for path in (tmp_path / "d").iterdir()] == ["new"]
        assert [path.name for path in tmp_path.iterdir()] == ["d"]
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())  # a C library without renameat2


def test_input_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for output in ("x", "link", "../" + tmp_path.name + "/x"):
        with pytest.raises(InputError, match=r"--output=o: would write over .*, which is to be read"):
            files.check_no_input([tmp_path / output], [str(tmp_path / "x"), "gs://bucket/y"], "--output=o")
    with pytest.raises(InputError, match=r"--output=o: would write over .*, which is to be read"):
        files.check_no_input([tmp_path / "link"], [str(tmp_path)], "--output=o")
    files.check_no_input([tmp_path / "y"], [str(tmp_path / "x"), str(tmp_path)], "--output=o")
