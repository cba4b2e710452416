"""Reads serialized records for inference and scoring: in the order of the shards, in batches that span shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf.data import integrity
from yt8m_tf.data.faults import Faults

_READ_AHEAD = 4  # pieces: a shard each, or a batch where shards are larger


def read_batches(
    groups: Iterable[Sequence[str]], batch_size: int, faults: Faults, first: int = 0, used: int = 0
) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """Reads shards in batches that span shards and groups.

    Args:
      groups: groups of paths; the next group is asked for when the previous one has been read.
      batch_size: records per batch; the last batch may have fewer.
      faults: whether to skip damage, and the damage already known.
      first, used: where to start in the first group: the index of a shard, and how many of its records to skip.

    Yields:
      The index of each record's shard over all groups, [B] int64, and the records, [B] string.

    Raises:
      InputError: a shard is damaged, unless damage is to be skipped.
    """
    pieces: list[tuple[int, tf.Tensor]] = []  # together smaller than a batch
    size = before = 0

    def batch() -> tuple[np.ndarray, tf.Tensor]:
        owners = np.repeat([index for index, _ in pieces], [len(piece) for _, piece in pieces])
        return owners, tf.concat([piece for _, piece in pieces], axis=0)

    for group in groups:
        for index, piece in _pieces(group, batch_size, faults, first, used):
            beyond = max(0, size + len(piece) - batch_size)
            whole = len(piece) - beyond
            pieces.append((before + index, piece[:whole] if beyond else piece))  # a slice copies its records
            size += whole
            if size == batch_size:
                yield batch()
                pieces, size = ([(before + index, piece[whole:])] if beyond else []), beyond
        before, first, used = before + len(group), 0, 0
    if size:
        yield batch()


def _pieces(shards: Sequence[str], most: int, faults: Faults, first: int, used: int) -> Iterator[tuple[int, tf.Tensor]]:
    """Yields the index of a shard and up to `most` of its records at a time."""
    while True:
        limits = [faults.damaged[shard].record if shard in faults.damaged else -1 for shard in shards]
        try:
            for number, piece in _dataset(shards, limits, first, used, most):
                index = int(number)
                used = len(piece) + (used if index == first else 0)
                first = index
                yield index, piece
            return
        except integrity.READ_FAILURES:
            damage = integrity.find_damage(shard for shard in shards[first:] if shard not in faults.damaged)
            if damage is None:
                raise
            faults.skip_damage(damage)


def _dataset(shards: Sequence[str], limits: Sequence[int], first: int, used: int, most: int) -> tf.data.Dataset:
    paths, counts = tf.constant(shards), tf.constant(limits, tf.int64)

    @tf.autograph.experimental.do_not_convert
    def read(index: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(paths[index], buffer_size=1 << 20).take(counts[index])
        left = records.skip(tf.where(index == first, tf.constant(used, tf.int64), 0))
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(index).repeat(), left.batch(most)))

    return tf.data.Dataset.range(first, len(shards)).flat_map(read).prefetch(_READ_AHEAD)
