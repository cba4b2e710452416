"""Finds what is wrong with shards: damaged bytes, and records that do not fit the configuration.

The input pipeline reads and parses in batches, and its errors name neither file nor record. When it fails, it calls
`find_bad_record` on the shards that may be at fault: slow, but precise.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import RecordsConfig, ratings_of
from yt8m_tf.data import crc32c, foreign_files, records
from yt8m_tf.data.ratings import parse_ratings
from yt8m_tf.data.record_check import Reader, check_record, parse_record, record_level, video_id

__all__ = ["Damage", "ShardScan", "check_record", "find_bad_record", "find_damage", "good_records", "scan_shard"]

_PARSED = 64  # records, at a time
_SHOWN = 200  # characters of TensorFlow's message, which quotes whole records

# Raised by TensorFlow if a shard cannot be read, or not to its end; the message names neither shard nor record.
READ_FAILURES = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
)


@dataclasses.dataclass(frozen=True)
class Damage:
    """The first place where a shard cannot be read.

    Attributes:
      path: the shard.
      record: the number of the damaged record, from 0, which is also the number of good records before it.
      offset: the byte at which the damaged record starts.
      reason: what is wrong there.
      foreign: the file is not a TFRecord file; `reason` says what it is, and how to make a shard of it.
    """

    path: str
    record: int
    offset: int
    reason: str
    foreign: bool = dataclasses.field(default=False, compare=False)  # earlier releases did not store it

    def __str__(self) -> str:
        if self.foreign:
            return f"{self.path}: not a TFRecord file: {self.reason}"
        return f"{self.path}: damaged at byte {self.offset}, record {self.record} ({self.reason})"

    def advise(self, hint: str) -> str:
        """Returns the damage and the remedy: `hint`, unless the file is foreign and `reason` has the remedy."""
        return str(self) if self.foreign else f"{self}; {hint}"


@dataclasses.dataclass(frozen=True)
class ShardScan:
    """Result of a scan of a shard.

    Attributes:
      path: the shard.
      num_records: good records before the damage, or all records of a sound file.
      num_bytes: the size of the file; 0 if it cannot be opened.
      damage: the first damage; None for a sound file. An empty file is sound.
    """

    path: str
    num_records: int
    num_bytes: int
    damage: Damage | None


def scan_shard(path: str) -> ShardScan:
    """Reads a whole shard, checking every checksum, about as fast as TensorFlow reads it.

    Args:
      path: a TFRecord file, uncompressed; anything that `tf.io.gfile` opens.

    Returns:
      The scan. A file that cannot be opened counts as damaged at byte 0.
    """
    try:
        num_bytes = tf.io.gfile.stat(path).length
        num_records, good_bytes = measure_run(path, 0)
    except tf.errors.OpError as error:
        return ShardScan(path, 0, 0, Damage(path, 0, 0, f"cannot be read: {one_line(error)}"))
    damage = None if good_bytes == num_bytes else diagnose(path, num_records, good_bytes, num_bytes)
    return ShardScan(path, num_records, num_bytes, damage)


def is_damaged_as(path: str, damage: Damage) -> bool:
    """Returns whether a shard still has this damage: a sound copy may have replaced it."""
    return scan_shard(path).damage == dataclasses.replace(damage, path=path)


def find_damage(paths: Iterable[str]) -> Damage | None:
    """Returns the first damage, in the order of `paths`; None if all are sound."""
    return next((scan.damage for scan in map(scan_shard, paths) if scan.damage), None)


def find_bad_record(
    paths: Iterable[str],
    data: RecordsConfig,
    *,
    need_labels: bool,
    need_frames: bool = True,
    need_whole: bool = True,
    reader: Reader | None = None,
) -> str | None:
    """Returns the first problem, in the order of `paths`, that keeps shards from being read as `data` says.

    Args:
      paths: shards.
      data: what their records should contain (`check_record`).
      need_labels: a video without labels is an error.
      need_frames: a video without frames is an error (frame level).
      need_whole: a damaged shard is an error; otherwise only the records before the damage are checked.
      reader: decides the remedy (`check_record`).

    Returns:
      One line that names the shard, record, video, problem and remedy; None if there is no problem.
    """
    for path in paths:
        for first, some in _in_batches(good_records(path)):
            for number, serialized in enumerate(some, first):
                problem = check_record(
                    serialized, data, need_labels=need_labels, need_frames=need_frames, reader=reader
                )
                if problem:
                    return f"{path}: record {number}{named(serialized, data.id_keys)}: {problem}"
            if _refusal(some, data):  # TensorFlow's parser is stricter about damaged protocol buffers
                for number, serialized in enumerate(some, first):
                    if reason := _refusal([serialized], data):
                        return (
                            f"{path}: record {number}{named(serialized, data.id_keys)}: {reason}; write the shard again"
                        )
        if need_whole and (damage := scan_shard(path).damage):
            return damage.advise("fetch the shard again, or salvage its good records with yt8m-inspect")
    return None


def _in_batches(serialized: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yields `_PARSED` records at a time, with the number of the first one."""
    left, first = iter(serialized), 0
    while some := list(itertools.islice(left, _PARSED)):
        yield first, some
        first += len(some)


def _refusal(serialized: list[bytes], data: RecordsConfig) -> str | None:
    """Returns why TensorFlow cannot parse records; None if it can."""
    try:
        records.parse_records(tf.constant(serialized), data)
        if rated := ratings_of(data):
            parse_ratings(tf.constant(serialized), rated)
    except records.PARSE_FAILURES as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        return f"a damaged tf.train.Example or SequenceExample ({reason[:_SHOWN]})"
    return None


def named(serialized: bytes, id_keys: Sequence[str] = schema.ID_KEYS) -> str:
    """Returns ", video 'x'", for a message; "" for a record without an id."""
    name = video_id(serialized, id_keys)
    return f", video {name!r}" if name else ""


def first_level(paths: Iterable[str]) -> schema.Level | None:
    """Returns the level of the first record; None if there is no record, or its level is neither."""
    record = first_record(paths)
    return record_level(record) if record is not None else None


def first_record(paths: Iterable[str]) -> tf.train.SequenceExample | None:
    """Returns the first record, parsed; None if there is no record, or it is not an Example."""
    return next((parse_record(serialized) for path in paths for serialized in good_records(path)), None)


def good_records(path: str) -> Iterator[bytes]:
    """Yields the records of a shard up to the first damage; none if it cannot be opened."""
    try:
        yield from _read(path, 0).as_numpy_iterator()
    except tf.errors.OpError:
        return  # `scan_shard` says what and where


def measure_run(path: str, offset: int) -> tuple[int, int]:
    """Counts the good records from a byte on, up to the first damage or the end of the file.

    Args:
      path: a TFRecord file.
      offset: the byte at which the first record starts.

    Returns:
      The number of good records, and the bytes that they take in the file.

    Raises:
      tf.errors.OpError: the file cannot be opened or read.
    """
    arguments = (tf.constant(path), tf.constant(offset, tf.int64))
    try:
        num_records, num_bytes = _measure_run(*arguments, stop_at_damage=False)
    except tf.errors.OpError:
        with tf.io.gfile.GFile(path, "rb") as file:  # raises where the scan below would retry forever
            file.read(1)
        num_records, num_bytes = _measure_run(*arguments, stop_at_damage=True)
    return int(num_records), int(num_bytes)


def diagnose(path: str, record: int, offset: int, num_bytes: int) -> Damage:
    """Says what is wrong with the record at the byte where reading stopped.

    Args:
      path: a TFRecord file.
      record: the number of the record.
      offset: the byte at which it starts; less than `num_bytes`.
      num_bytes: the size of the file.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            file.seek(offset)
            header = file.read(crc32c.HEADER_BYTES)
        reason = _header_reason(header, num_bytes - offset)
        if reason and not record and not offset and (kind := foreign_files.kind_of(path)):
            return Damage(path, record, offset, kind, foreign=True)
        if not reason:
            next(iter(_read(path, offset).take(1)))
            reason = "reading stopped here, but a second attempt did not: the disk or network is unreliable"
    except tf.errors.DataLossError:
        reason = "data checksum does not match"
    except tf.errors.OpError as error:
        reason = f"cannot be read: {one_line(error)}"
    return Damage(path, record, offset, reason)


def _header_reason(header: bytes, remaining: int) -> str:
    """Returns the damage that shows in a header and in the number of bytes left in the file; "" for none."""
    if len(header) < crc32c.HEADER_BYTES:
        return f"header truncated: the file ends after {remaining} of its {crc32c.HEADER_BYTES} bytes"
    length, checksum = header[: crc32c.LENGTH_BYTES], header[crc32c.LENGTH_BYTES :]
    if crc32c.masked_crc(length) != int.from_bytes(checksum, "little"):
        return "length checksum does not match"
    expected = int.from_bytes(length, "little") + crc32c.FRAMING_BYTES
    if remaining < expected:
        return f"data truncated: the file ends after {remaining} of the record's {expected} bytes"
    return ""


def _read(path: str | tf.Tensor, offset: int | tf.Tensor) -> tf.data.Dataset:
    """Reads serialized records from a byte on. Unlike `TFRecordDataset`, the op can start in the middle of a file."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type="",
        buffer_size=1 << 20,
        byte_offsets=tf.reshape(tf.cast(offset, tf.int64), [1]),
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return tf.data.experimental.from_variant(variant, tf.TensorSpec((), tf.string)).with_options(options)


@tf.function
def _measure_run(path: tf.Tensor, offset: tf.Tensor, stop_at_damage: bool) -> tuple[tf.Tensor, tf.Tensor]:
    records = _read(path, offset)
    if stop_at_damage:
        # After damage the op continues with the next file. There is none, so `ignore_errors` passes exactly the good
        # records. It comes before `batch`, which would lose a partial batch. If a file cannot be opened,
        # `ignore_errors` would try again forever.
        records = records.ignore_errors()
    batches = records.batch(64)

    def add(totals: tuple[tf.Tensor, tf.Tensor], records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.size(records, tf.int64)
        data_bytes = tf.reduce_sum(tf.cast(tf.strings.length(records), tf.int64))
        return totals[0] + count, totals[1] + data_bytes + crc32c.FRAMING_BYTES * count

    zero = tf.constant(0, tf.int64)
    return batches.reduce((zero, zero), add)


def one_line(error: tf.errors.OpError) -> str:
    return " ".join(str(error.message).split())
