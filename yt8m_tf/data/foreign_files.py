"""Identifies a file that was given as a shard but is not one, and says what to do with it."""

from __future__ import annotations

import re
import zlib

import tensorflow as tf

from yt8m_tf.data import crc32c
from yt8m_tf.data.record_check import parse_record

# A file that is a single record is no larger than this: a clip of 300 frames takes 0.4 MB.
_LARGEST_RECORD = 64 << 20

_UNPACK = "unpack it"
_EXTRACT = "make shards of it with yt8m-extract"
_CONVERT = "make shards of it with yt8m-convert"
# Offset, the bytes there, what the file is, and the remedy.
_MAGIC = (
    (0, b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (0, b"BZh", "compressed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ", "compressed with xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (4, b"ftyp", "an MP4 video", _EXTRACT),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video", _EXTRACT),
    (8, b"AVI ", "an AVI video", _EXTRACT),
    (0, b"\x93NUMPY", "a NumPy array", _CONVERT),
    (0, b"PAR1", "a Parquet table", _CONVERT),
    (0, b"\x89HDF", "an HDF5 file", "save its arrays as .npz files, and make shards of them with yt8m-convert"),
    (0, b"<?xml", "an XML file, perhaps a server's error page instead of a shard", "fetch the shard again"),
    (0, b"<!DOCTYPE", "a web page, perhaps a server's error page instead of a shard", "fetch the shard again"),
    (0, b"<html", "a web page, perhaps a server's error page instead of a shard", "fetch the shard again"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch it with git lfs pull"),
)
_UNPACK_ZLIB = (
    "unpack it with python3 -c 'import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))'"
    " <FILE >NEW_FILE"
)
# The header of the first file in a ZIP archive, up to its name.
_NPZ_MEMBER = re.compile(rb"PK\x03\x04.{26}[^\0]{1,200}?\.npy", re.DOTALL)
_HEAD_BYTES = 512
# If the start of a shard is damaged, its next record starts within this many bytes.
_SEARCHED_BYTES = 64 << 20


def kind_of(path: str) -> str | None:
    """Returns what a file without TFRecords is, and the remedy; None for a shard whose start is damaged.

    Args:
      path: anything that `tf.io.gfile` opens.

    Raises:
      tf.errors.OpError: the file cannot be read.
    """
    size = tf.io.gfile.stat(path).length
    with tf.io.gfile.GFile(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        for offset, magic, kind, remedy in _MAGIC:
            if head[offset:].startswith(magic):
                return f"{kind}: {remedy}"
        if head.startswith(b"PK\x03\x04"):
            return f"NumPy arrays (.npz): {_CONVERT}" if _NPZ_MEMBER.match(head) else f"a ZIP archive: {_UNPACK}"
        if _is_zlib(head):
            return f"compressed with zlib: {_UNPACK_ZLIB}"
        if size <= _LARGEST_RECORD and _is_record(head + file.read()):
            return (
                "a single serialized record, without the framing of a TFRecord file: make shards of features.pb files"
                " with yt8m-convert, or write it with tf.io.TFRecordWriter"
            )
    if _is_text(head):
        is_table = b"," in head.split(b"\n")[0]
        return f"a CSV file: {_CONVERT}" if is_table else "a text file: give TFRecord files"
    if crc32c.next_header(path, 0, searched := min(size, _SEARCHED_BYTES)) == searched:
        return "no record starts anywhere in it; give YouTube-8M shards, or fetch it again"
    return None


def _is_zlib(head: bytes) -> bool:
    """Returns whether a file is a stream of zlib (ZLIB in TFRecordOptions), by its header and the data after it."""
    if len(head) < 3 or head[0] != 0x78 or int.from_bytes(head[:2], "big") % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head))
    except zlib.error:
        return False


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise a character is cut at the end
            return False
        text = head[: error.start].decode()
    return len(text) > 8 and all(character.isprintable() or character in "\t\r\n" for character in text)


def _is_record(content: bytes) -> bool:
    record = parse_record(content)
    return record is not None and any(len(key) > 1 for key in record.context.feature)
