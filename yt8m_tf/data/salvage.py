"""Copies the good records of a damaged shard into a new one."""

from __future__ import annotations

import dataclasses
import os

import tensorflow as tf

from yt8m_tf.data import crc32c
from yt8m_tf.data.integrity import Damage, diagnose, measure_run, one_line, scan_shard
from yt8m_tf.errors import InputError

_CHUNK_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class SalvageReport:
    """Summary of `salvage`.

    Attributes:
      path: the damaged shard.
      output: the new shard, which is written only if there are good records.
      num_records: good records, all of which were copied.
      lost_bytes: bytes of the shard outside good records.
      damages: every place where reading stopped; their record numbers count good records only.
    """

    path: str
    output: str
    num_records: int
    lost_bytes: int
    damages: tuple[Damage, ...]

    def __str__(self) -> str:
        if not self.num_records:
            return f"{self.path}: no good records, nothing written"
        places = "1 place" if len(self.damages) == 1 else f"{len(self.damages)} places"
        return (
            f"{self.output}: {self.num_records} good records of {self.path}; {self.lost_bytes} bytes lost in {places}"
        )


def salvage(path: str, output: str) -> SalvageReport:
    """Copies every record whose checksums match from a shard to a new one, byte for byte and in order.

    After damage, copying resumes at the next byte where a record starts, even if the length of the damaged one is lost.

    Args:
      path: a damaged shard (a sound one is copied whole).
      output: the new shard. It appears under this name only when it is complete.

    Returns:
      The report.

    Raises:
      InputError: `path` cannot be read, or `output` is the same file or cannot be written.
    """
    if os.path.realpath(path) == os.path.realpath(output):
        raise InputError(f"{output}: the salvaged shard cannot replace the damaged one; give another directory")
    scan = scan_shard(path)
    if not scan.num_bytes and scan.damage:
        raise InputError(f"{path}: {scan.damage.reason}")
    try:
        runs, num_records, damages = _find_runs(path, scan.num_bytes)
        if num_records:
            _copy(path, output, runs)
    except tf.errors.OpError as error:
        raise InputError(f"{output}: salvaging {path} failed: {one_line(error)}") from error
    kept_bytes = sum(end - start for start, end in runs)
    return SalvageReport(path, output, num_records, scan.num_bytes - kept_bytes, tuple(damages))


def _find_runs(path: str, num_bytes: int) -> tuple[list[tuple[int, int]], int, list[Damage]]:
    """Returns the runs of good records as (first byte, last byte + 1), their number of records, and the damage."""
    runs: list[tuple[int, int]] = []
    damages: list[Damage] = []
    num_records, offset = 0, 0
    while offset < num_bytes:
        count, size = measure_run(path, offset)
        if count:
            runs.append((offset, offset + size))
        num_records, offset = num_records + count, offset + size
        if offset == num_bytes:
            break
        # Consecutive damaged records count as one damage.
        if count or not damages:
            damages.append(diagnose(path, num_records, offset, num_bytes))
        offset = crc32c.next_header(path, offset + 1, num_bytes)
    return runs, num_records, damages


def _copy(path: str, output: str, runs: list[tuple[int, int]]) -> None:
    partial = f"{output}.partial"
    try:
        with tf.io.gfile.GFile(path, "rb") as source, tf.io.gfile.GFile(partial, "wb") as target:
            for start, end in runs:
                source.seek(start)
                for position in range(start, end, _CHUNK_BYTES):
                    target.write(source.read(min(_CHUNK_BYTES, end - position)))
        tf.io.gfile.rename(partial, output, overwrite=True)
    except tf.errors.OpError:
        if tf.io.gfile.exists(partial):
            tf.io.gfile.remove(partial)
        raise
