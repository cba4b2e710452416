"""Reads frame-level shards record by record, and hands batches of clips to TensorFlow without another copy.

Only the location of a record is shuffled and batched, not its quarter of a megabyte. Its bytes are read
and checked when its batch is assembled, and copied once, into the padded batch (`clip_records`). Reading and large
copies release the GIL, so threads help.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.data import crc32c
from yt8m_tf.data.clip_records import ClipParser
from yt8m_tf.data.threads import in_order

# Replaces the length where no record can be read.
_UNREADABLE = -1


def is_local(shards: Iterable[str]) -> bool:
    """Returns whether all shards are in local file systems, where files can be read from any byte."""
    return not any("://" in shard for shard in shards)


def locators(shards: Sequence[str]) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """Returns an `open_shard` for `order.serialized_records`, which gives the locators of a shard's records.

    A locator is [3] int64: the number of the shard, the byte at which the record's data starts, and its length.
    """

    def find(index: np.int64, limit: np.int64) -> np.ndarray:
        return _find_records(shards[int(index)], int(index), int(limit))

    def open_shard(index: tf.Tensor, limit: tf.Tensor) -> tf.data.Dataset:
        rows = tf.numpy_function(find, [index, limit], tf.int64)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(rows, [None, 3]))

    return open_shard


def read_batches(
    shards: Sequence[str],
    data: RecordsConfig,
    located: Iterable[tuple[Any, np.ndarray]],
    parse: Callable[[tf.Tensor], dict[str, Any]],
    need_labels: bool,
    under_way: int,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Reads and parses batches of records.

    Args:
      shards: paths.
      data: what the records contain.
      located: for each batch, a value to pass on, and the locators [B, 3] of its records.
      parse: parses serialized records [B] of another layout: `records.parse_records`, or a function around it.
      need_labels: whether clips without labels are left to `parse`, too.
      under_way: batches that are read at the same time.

    Yields:
      The value passed on, and the batch as `records.parse_records` returns it.

    Raises:
      tf.errors.DataLossError: a record is damaged.
      tf.errors.NotFoundError: a shard is gone.
    """
    parser, records = ClipParser(data, need_labels), _Records(shards)

    def read(batch: tuple[Any, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        beside, rows = batch
        serialized = records.read(rows)
        found = parser.parse_batch(serialized)
        if found is None:
            return beside, parse(tf.constant([bytes(record) for record in serialized]))
        return beside, {name: _tensor(values) for name, values in found.items()}

    return in_order(read, located, under_way)


def doubtful(
    shards: Sequence[str], data: RecordsConfig, need_labels: bool
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from locators [N, 3] to the records that may lack frames, or labels if these are needed.

    That function returns their rows [M] int64, and the records [M] as bytes objects. If any record cannot be read, it
    returns none: reading the batch will fail.
    """
    parser, records = ClipParser(data, need_labels), _Records(shards)

    def find(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found: dict[int, bytes] = {}
        with contextlib.suppress(tf.errors.OpError):
            for row, record in enumerate(records.read(rows)):
                clip = parser.parse(record)
                if clip is None or (need_labels and not clip.labels):
                    found[row] = bytes(record)
        return np.array(list(found), np.int64), np.array(list(found.values()), object)

    return find


def _tensor(values: np.ndarray) -> tf.Tensor:
    """Converts an array to a tensor; frames [B, T, D], which are large, share its memory."""
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__()) if values.ndim == 3 else tf.constant(values)


def count_records(shards: Sequence[str]) -> int | None:
    """Counts the records of local shards from only their headers; None if shards are not local or cannot be read."""
    if not is_local(shards):
        return None
    count = 0
    for path in shards:
        lengths = _find_records(path, 0, -1)[:, 2]
        if (lengths == _UNREADABLE).any():
            return None
        count += len(lengths)
    return count


def _find_records(path: str, shard: int, limit: int) -> np.ndarray:
    """Returns the locators [N, 3] of a shard's records: of the first `limit`, or of all if it is negative.

    It never raises, because a dataset would turn the exception into one of another type. If the shard cannot be read to
    its end, the last locator has the length `_UNREADABLE`, and reading it fails.
    """
    rows: list[tuple[int, int, int]] = []
    position = 0
    try:
        with open(path, "rb", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            while position < end and len(rows) != limit:
                header = os.pread(file.fileno(), crc32c.HEADER_BYTES, position)
                length = int.from_bytes(header[: crc32c.LENGTH_BYTES], "little")
                stored = int.from_bytes(header[crc32c.LENGTH_BYTES :], "little")
                next_position = position + length + crc32c.FRAMING_BYTES
                if crc32c.masked_crc(header[: crc32c.LENGTH_BYTES]) != stored or next_position > end:
                    rows.append((shard, position, _UNREADABLE))
                    break
                rows.append((shard, position + crc32c.HEADER_BYTES, length))
                position = next_position
    except OSError:
        rows.append((shard, position, _UNREADABLE))
    return np.array(rows, np.int64).reshape(-1, 3)


class _Records:
    """Reads records of some shards into memory that each thread reuses: the system would clear new memory."""

    def __init__(self, shards: Sequence[str]):
        self._shards, self._rooms = shards, threading.local()

    def read(self, rows: np.ndarray) -> list[memoryview]:
        """Reads the records at locators [B, 3] and verifies them; the thread's next call overwrites them."""
        for shard in rows[rows[:, 2] == _UNREADABLE, 0].tolist():
            with _opened(self._shards[shard]):  # raises if it is gone
                raise _damaged(self._shards[shard])
        ends = np.cumsum(rows[:, 2]).tolist()
        spans = [slice(end - length, end) for end, length in zip(ends, rows[:, 2].tolist(), strict=True)]
        room = self._room(ends[-1])
        memory: memoryview = memoryview(room)  # type: ignore[arg-type]
        for shard in np.unique(rows[:, 0]):
            path = self._shards[shard]
            with _opened(path) as file:
                for row in np.flatnonzero(rows[:, 0] == shard).tolist():
                    _, offset, length = rows[row].tolist()
                    checksum, own = bytearray(4), spans[row]
                    if os.preadv(file.fileno(), [memory[own], checksum], offset) < length + 4:
                        raise _damaged(path)
                    if crc32c.masked_crc(room[own]) != int.from_bytes(checksum, "little"):
                        raise _damaged(path)
        return [memory[own] for own in spans]

    def _room(self, size: int) -> np.ndarray:
        room = getattr(self._rooms, "own", None)
        if room is None or len(room) < size:
            self._rooms.own = room = np.empty(size * 5 // 4, np.uint8)
        return room


def _opened(path: str) -> Any:
    try:
        return open(path, "rb", buffering=0)
    except PermissionError as error:
        raise tf.errors.PermissionDeniedError(None, None, f"{path}: {error.strerror}") from error
    except OSError as error:
        raise tf.errors.NotFoundError(None, None, f"{path}: {error.strerror}") from error


def _damaged(path: str) -> tf.errors.DataLossError:
    return tf.errors.DataLossError(None, None, f"{path}: corrupted record")
