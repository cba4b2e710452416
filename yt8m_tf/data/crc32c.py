"""Checksums of TFRecord files.

A TFRecord file is a sequence of records: `uint64 length`, `uint32 masked CRC of the length`, `length` bytes of data,
`uint32 masked CRC of the data`, all little-endian. TensorFlow computes the checksums when it reads and writes, but has
no public function for them. Finding the next record after damage takes a checksum at every byte of a file.

Reference: https://www.tensorflow.org/tutorials/load_data/tfrecord (format), RFC 3720 appendix B.4 (CRC-32C).
"""

from __future__ import annotations

import contextlib
import os

import google_crc32c
import numpy as np
import numpy.typing as npt

LENGTH_BYTES = 8
HEADER_BYTES = 12  # the length and its checksum
FRAMING_BYTES = 16  # the bytes of a record besides its data

_MASK_DELTA = 0xA282EAD8
_SEARCHED_BYTES = 1 << 22  # at a time


def masked_crc(data: bytes | npt.NDArray[np.uint8]) -> int:
    """Returns the checksum that a TFRecord file stores for these bytes; an array [N] is not copied."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def count_records(path: str) -> int:
    """Returns the number of good records before the first damage of a local file; 0 if it cannot be read.

    It is that of `integrity.scan_shard`, without TensorFlow.
    """
    count = 0
    with contextlib.suppress(OSError), open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        while len(header := file.read(HEADER_BYTES)) == HEADER_BYTES:
            length = int.from_bytes(header[:LENGTH_BYTES], "little")
            left -= length + FRAMING_BYTES
            if left < 0 or masked_crc(header[:LENGTH_BYTES]) != int.from_bytes(header[LENGTH_BYTES:], "little"):
                break
            data, stored = file.read(length), file.read(FRAMING_BYTES - HEADER_BYTES)
            if masked_crc(data) != int.from_bytes(stored, "little"):
                break
            count += 1
    return count


def headers_match(headers: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Returns whether the checksum in each header matches its length.

    Args:
      headers: [N, 12] uint8.

    Returns:
      [N] bool.
    """
    lengths = np.ascontiguousarray(headers[:, :LENGTH_BYTES]).view("<u8")[:, 0]
    stored = np.ascontiguousarray(headers[:, LENGTH_BYTES:]).view("<u4")[:, 0]
    # In a damaged part of a file most headers are often equal, typically all zeros.
    distinct, which = np.unique(lengths, return_inverse=True)
    checksums = [masked_crc(length.to_bytes(LENGTH_BYTES, "little")) for length in distinct.tolist()]
    return np.array(checksums, np.uint32)[which] == stored


def next_header(path: str, offset: int, num_bytes: int) -> int:
    """Returns the first byte from `offset` on at which a header's checksum matches; `num_bytes` if there is none."""
    import tensorflow as tf  # opens remote files, too; checksums alone do not need it

    overlap = HEADER_BYTES - 1
    with tf.io.gfile.GFile(path, "rb") as file:
        while offset + HEADER_BYTES <= num_bytes:
            file.seek(offset)
            chunk = np.frombuffer(file.read(_SEARCHED_BYTES + overlap), np.uint8)
            windows = np.lib.stride_tricks.sliding_window_view(chunk, HEADER_BYTES)  # [N, 12]
            # Records are below 4 GB, so half of the length is zero. Few offsets pass this quick test.
            plausible = np.flatnonzero(~windows[:, 4:LENGTH_BYTES].any(axis=1))
            found = plausible[headers_match(windows[plausible])]
            if len(found):
                return offset + int(found[0])
            offset += len(windows)
    return num_bytes
