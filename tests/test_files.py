"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yt8m_tf import files


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_whole_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with files.whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
        # Two writers of one file, such as two workers of a run, do not disturb each other.
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
        raise error  # before the file is there
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
        lambda content: content.replace(b"n\0\0\0", b"n\0\0\7"),  # a character that there is none of
        lambda content: content.replace(b"PK\x01\x02", b"PK\x01\x02\0\0\0\0\xff\xff\xff", 1),
        lambda content: content.replace(
            b"PK\x01\x02", b"PK\x01\x02" + b"\x63" * 8, 1
        ),  # a method that there is none of
    ],
)
def test_damaged_arrays(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, names=np.array(["n"]))
    sound = path.read_bytes()
    assert files.read_arrays(io.BytesIO(sound))["names"].tolist() == ["n"]
    assert change(sound) != sound
    with pytest.raises(ValueError, match=r"no \.npz file of arrays"):
        files.read_arrays(io.BytesIO(change(sound)))
