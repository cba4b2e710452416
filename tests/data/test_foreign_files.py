"""A file of another format is named with its kind, and with a way to convert it into a shard."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from shards import frame_record, video_record, write_shard

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.foreign_files import kind_of
from yt8m_tf.data.integrity import find_bad_record, scan_shard
from yt8m_tf.data.record_check import Reader
from yt8m_tf.errors import InputError

_CLIP = frame_record(b"a", [1], rgb=np.ones((3, 2), np.uint8))


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, rgb=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(b"x" * 50), "compressed with gzip: unpack it"),
        (b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(40), "an MP4 video: make shards of it with yt8m-extract"),
        (b"\x1aE\xdf\xa3" + bytes(40), "a Matroska or WebM video: make shards of it with yt8m-extract"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(40), "an AVI video"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive: unpack it"),
        (_npz(), "NumPy arrays (.npz): make shards of it with yt8m-convert"),
        (zlib.compress(_CLIP * 9), "compressed with zlib: unpack it with python3 -c"),
        (b"\x93NUMPY\1\0" + bytes(40), "a NumPy array"),
        (b"<!DOCTYPE html><html>404 Not Found</html>", "a web page, perhaps a server's error page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "an XML file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a pointer of Git LFS"),
        (b"id,labels,rgb0\nabcd,1 2,0.5\n", "a CSV file: make shards of it with yt8m-convert"),
        (b"nothing but words here\n", "a text file: give TFRecord files"),
        (_CLIP, "a single serialized record, without the framing"),
        (video_record(b"a", [1], rgb=np.ones(4, np.float32)), "a single serialized record, without the framing"),
    ],
    ids=[
        "gzip",
        "mp4",
        "webm",
        "avi",
        "zip",
        "npz",
        "zlib",
        "npy",
        "html",
        "xml",
        "lfs",
        "csv",
        "text",
        "clip",
        "video record",
    ],
)
def test_kinds(content: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(content)
    assert (kind_of(str(path)) or "").startswith(kind)
    damage = scan_shard(str(path)).damage
    assert damage is not None and damage.offset == 0 and damage.reason.startswith(kind)


def test_a_damaged_first_record_differs_from_a_file_without_records(rng: np.random.Generator, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(bytes([255]) + rng.bytes(400))
    assert (kind_of(str(noise)) or "").startswith("no record starts anywhere in it")
    shard = write_shard(tmp_path / "x.tfrecord", [_CLIP] * 3)
    shard.write_bytes(b"\7" + shard.read_bytes()[1:])
    assert kind_of(str(shard)) is None
    assert "damaged at byte 0, record 0 (length checksum does not match)" in str(scan_shard(str(shard)).damage)


@pytest.mark.parametrize("content", [b"nothing but words here\n", bytes([255, 254]) * 90], ids=["text", "bytes"])
def test_only_advice_that_helps_is_given(content: bytes, tmp_path: Path) -> None:
    """Neither skipping nor salvaging helps with a file that is not a shard."""
    path = tmp_path / "x.tfrecord"
    path.write_bytes(content)
    damage = scan_shard(str(path)).damage
    assert damage is not None
    with pytest.raises(InputError) as error:
        Faults(reader=Reader(has_flags=True)).skip_damage(damage)
    found = find_bad_record([str(path)], DataConfig(), need_labels=False)
    for message in (str(error.value), found or ""):
        assert message.startswith(f"{path}: not a TFRecord file: "), message
        assert not any(word in message for word in ("byte 0", "--on_damaged", "yt8m-inspect")), message
