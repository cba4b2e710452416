"""Files that are no shards are named by their kind, with what makes a shard of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from shards import frame_record, video_record, write_shard

from yt8m_tf.data.foreign_files import kind_of
from yt8m_tf.data.integrity import scan_shard

_CLIP = frame_record(b"a", [1], rgb=np.ones((3, 2), np.uint8))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(b"x" * 50), "compressed with gzip: unpack it"),
        (b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(40), "an MP4 video: compute features"),
        (b"\x1aE\xdf\xa3" + bytes(40), "a Matroska or WebM video: compute features"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(40), "an AVI video"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive: unpack it"),
        (b"\x93NUMPY\1\0" + bytes(40), "a NumPy array"),
        (b"<!DOCTYPE html><html>404 Not Found</html>", "a web page, perhaps what a server says"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "an XML file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a pointer of Git LFS"),
        (b"id,labels,rgb0\nabcd,1 2,0.5\n", "a CSV file: make shards of it with yt8m-convert"),
        (b"nothing but words here\n", "a text file: give TFRecord files"),
        (_CLIP, "a single serialized record, without the framing"),
        (video_record(b"a", [1], rgb=np.ones(4, np.float32)), "a single serialized record, without the framing"),
    ],
    ids=["gzip", "mp4", "webm", "avi", "zip", "npy", "html", "xml", "lfs", "csv", "text", "clip", "video record"],
)
def test_kinds(content: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(content)
    assert (kind_of(str(path)) or "").startswith(kind)
    damage = scan_shard(str(path)).damage
    assert damage is not None and damage.offset == 0 and damage.reason.startswith(kind)


def test_noise_and_damaged_shards_are_of_no_known_kind(rng: np.random.Generator, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(bytes([255]) + rng.bytes(400))
    shard = write_shard(tmp_path / "x.tfrecord", [_CLIP] * 3)
    shard.write_bytes(b"\7" + shard.read_bytes()[1:])
    for path in (noise, shard):
        assert kind_of(str(path)) is None
        assert "not a TFRecord file, or its start is lost" in scan_shard(str(path)).damage.reason
