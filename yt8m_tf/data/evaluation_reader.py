"""Reads one pass over shards in batches, in two ways that give the same batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import RecordsConfig, ratings_of
from yt8m_tf.data import clip_reader, segments
from yt8m_tf.data.batch_stream import Batch
from yt8m_tf.data.checked_batches import (
    PARSERS,
    left_out,
    parse_checked,
    read_clips,
    taken_for_negative,
    untuned,
    usable_records,
)
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.order import ShardGroups, serialized_records


@dataclasses.dataclass(frozen=True)
class EvaluationReader:
    """Makes the evaluation batches that `BatchStream` iterates over, from a position on.

    Attributes:
      groups: the shards, in order.
      data: what their records contain.
      faults: what to do about clips without frames and videos without labels.
      batch_size: rows per batch; the last batch is padded with copies of its first row.
      records_per_shard: read only this many records of each shard.
    """

    groups: ShardGroups
    data: RecordsConfig
    faults: Faults
    batch_size: int
    records_per_shard: int | None

    def dataset(self, start: int, good: Sequence[int]) -> tf.data.Dataset:
        """Reads batches with TensorFlow's parser: any layout, any file system."""
        batches, make = self._serialized(start, good)
        return untuned(batches.map(make, num_parallel_calls=PARSERS, deterministic=True).prefetch(2))

    def _serialized(self, start: int, good: Sequence[int]) -> tuple[tf.data.Dataset, Callable[..., Batch]]:
        """Returns batches of serialized records with their positions, and the function that parses a batch."""
        rated, shards, limits = ratings_of(self.data), self.groups.shards, self._limits(good)
        left_whole = all(limit < 0 for limit in limits) and not any(left_out(self.data, self.faults))
        if start == 0 and left_whole and not rated:
            # Attaching a position to every record costs half as much time as reading it. Here every record is in a
            # batch, so the number of records read can be the position: `serialized_records` skips that many records.
            return tf.data.TFRecordDataset(shards).batch(self.batch_size).enumerate(), self._parse_counted
        attach = segments.cutter(rated, self.faults) if rated else None
        pairs = serialized_records(self.groups, start, 0, limits, len(shards), attach=attach)
        if not rated:
            pairs = usable_records(pairs, self.data, self.faults)
        return pairs.batch(self.batch_size), self._segments if rated else self._parse

    def read_directly(self, start: int, good: Sequence[int]) -> Iterator[Batch]:
        """Reads batches with `clip_reader`: local clips only."""
        shards, limits = self.groups.shards, self._limits(good)
        locators = clip_reader.locators(shards)
        pairs = serialized_records(self.groups, start, 0, limits, len(shards), open_shard=locators)
        pairs = usable_records(pairs, self.data, self.faults, located_in=shards)
        located = map(self._filled, untuned(pairs.batch(self.batch_size).prefetch(2)).as_numpy_iterator())
        for (position, count), batch in read_clips(shards, self.data, located, self.faults):
            valid = self._valid(count)
            counted = taken_for_negative(batch, self.faults, valid)
            yield batch | counted | {"valid": valid, "position": position}

    def _limits(self, good: Sequence[int]) -> Sequence[int]:
        most = self.records_per_shard
        if most is None:
            return good
        return [most if limit < 0 else min(limit, most) for limit in good]

    @tf.autograph.experimental.do_not_convert
    def _parse_counted(self, number: tf.Tensor, serialized: tf.Tensor) -> Batch:
        count = tf.shape(serialized)[0]
        return self._parsed(serialized, count) | {"position": number * self.batch_size + tf.cast(count, tf.int64)}

    @tf.autograph.experimental.do_not_convert
    def _parse(self, positions: tf.Tensor, serialized: tf.Tensor) -> Batch:
        return self._parsed(serialized, tf.shape(positions)[0]) | {"position": positions[-1]}

    def _parsed(self, serialized: tf.Tensor, count: tf.Tensor) -> Batch:
        batch = parse_checked(self._filled_up(serialized), self.data, self.faults)
        valid = self._valid(count)
        return batch | taken_for_negative(batch, self.faults, valid) | {"valid": valid}

    @tf.autograph.experimental.do_not_convert
    def _segments(self, positions: tf.Tensor, found: Batch) -> Batch:
        batch = {name: self._filled_up(values) for name, values in found.items()}
        return batch | {"valid": self._valid(tf.shape(positions)[0]), "position": positions[-1]}

    def _valid(self, count: tf.Tensor | int) -> tf.Tensor:
        return tf.range(self.batch_size) < count

    def _filled_up(self, values: tf.Tensor) -> tf.Tensor:
        """Pads [n, ...] to [batch_size, ...] with copies of the first row."""
        missing = self.batch_size - tf.shape(values)[0]
        return tf.concat([values, tf.repeat(values[:1], missing, axis=0)], axis=0)

    def _filled(self, found: tuple[np.ndarray, np.ndarray]) -> tuple[tuple[Any, int], np.ndarray]:
        """Returns the position of a batch and its number of locators, and the locators padded to a full batch."""
        positions, rows = found
        missing = self.batch_size - len(rows)
        return (positions[-1], len(rows)), np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)])
