"""CRC-32C of TFRecord headers, for many headers at once.

A TFRecord file is a row of records: `uint64 length`, `uint32 masked CRC of the length`, `length` bytes of data,
`uint32 masked CRC of the data`, all little-endian. TensorFlow computes the checksums when it reads and writes, but has
no public function for them, and finding the next record after damage takes one at every byte of a file.

Reference: https://www.tensorflow.org/tutorials/load_data/tfrecord (format), RFC 3720 appendix B.4 (CRC-32C).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LENGTH_BYTES = 8
HEADER_BYTES = 12  # the length and its checksum
FRAMING_BYTES = 16  # what a record takes beside its data

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_MASK_DELTA = 0xA282EAD8


def _make_tables() -> npt.NDArray[np.uint32]:
    """[8, 256]: row k is what a byte contributes to the CRC when k more bytes follow it."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    rows = [table]
    for _ in range(LENGTH_BYTES - 1):
        rows.append((rows[-1] >> 8) ^ table[rows[-1] & 0xFF])
    return np.stack(rows)


_TABLES = _make_tables()


def headers_match(headers: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether the checksum in each header is that of its length.

    Args:
      headers: [N, 12] uint8.

    Returns:
      [N] bool.
    """
    crc = np.zeros(len(headers), np.uint32)  # [N]
    for i in range(LENGTH_BYTES):
        # The CRC starts from all ones, which is the same as inverting the first four bytes.
        byte = headers[:, i] ^ np.uint8(0xFF if i < 4 else 0)
        crc ^= _TABLES[LENGTH_BYTES - 1 - i][byte]
    crc = ~crc
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(_MASK_DELTA)  # modulo 2**32
    stored = np.ascontiguousarray(headers[:, LENGTH_BYTES:HEADER_BYTES]).view("<u4")[:, 0]
    return masked == stored
