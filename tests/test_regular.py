"""Named pipes, sockets and devices are refused where files are read: opening one would wait for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from commands import run_command

from yt8m_tf import vocabulary
from yt8m_tf.codebook import centroids
from yt8m_tf.conversion.sources import open_source
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.extraction.video_files import find_videos
from yt8m_tf.regular import kind_if_not_regular
from yt8m_tf.serving.segment_submission import read_classes


def test_kinds(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        kinds = {path.name: kind_if_not_regular(path) for path in tmp_path.iterdir()}
    assert kinds == {"pipe": "a named pipe", "link": "a named pipe", "file": "", "broken": "", "socket": "a socket"}
    assert kind_if_not_regular("/dev/zero") == "a device"
    assert [kind_if_not_regular(path) for path in (tmp_path, tmp_path / "none", "a\0b", "gs://a/b")] == [""] * 4


def _load_centroids(path: Path) -> None:
    centroids.load_centroids(mock.MagicMock(), str(path), {"rgb": 2})


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.tfrecord", lambda path: list_shards([str(path)], source="--input")),
        ("y.tfrecord", lambda path: list_shards(["*.tfrecord"], str(path.parent), "--input")),
        ("x.npz", lambda path: open_source([str(path)], None, "id", ())),
        ("x.mp4", lambda path: find_videos([str(path)], None, path.parent / "out")),
        ("y.mp4", lambda path: find_videos([str(path.parent)], None, path.parent / "out")),
        ("v.csv", lambda path: vocabulary.load_vocabulary(path)),
        ("c.csv", lambda path: read_classes(path, 4)),
        ("c.npz", _load_centroids),
    ],
)
def test_readers(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}' is a named pipe, not a regular file; give a file"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("command", "flag", "others"),
    [
        ("inspect", "", ()),
        ("train", "--config", ("--workdir=w",)),
        ("infer", "--threshold", ("--saved_model=pretrained", "--input=examples", "--output=o")),
        ("score-submission", "--submission", ("--labels=l.csv",)),
        ("score-submission", "--labels", ("--submission=s.csv",)),
        ("convert", "--labels", ("--input=x.npz", "--output_dir=o")),
    ],
)
def test_flags(command: str, flag: str, others: tuple[str, ...], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    result = run_command(command, f"{flag}={tmp_path / 'pipe.csv'}" if flag else tmp_path / "pipe.csv", *others)
    where = f"{flag}: " if flag else ""
    assert result.returncode != 0
    assert result.stderr.startswith(f"yt8m-{command}: error: {where}'{tmp_path / 'pipe.csv'}' is a named pipe")
    assert result.stderr.count("\n") == 1
