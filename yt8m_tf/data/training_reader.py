"""Reads endless, shuffled training batches, in two ways that give the same batches in the same order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import clip_reader, segments
from yt8m_tf.data.batch_stream import Batch, BesideRecords
from yt8m_tf.data.checked_batches import PARSERS, parse_checked, read_clips, taken_for_negative, untuned, usable_records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.order import ShardGroups, serialized_records
from yt8m_tf.data.threads import in_order


@dataclasses.dataclass(frozen=True)
class TrainingReader:
    """Makes the training batches that `BatchStream` iterates over, from a position on.

    Attributes:
      groups: the order of the shards.
      data: what their records contain.
      faults: what to do about clips without frames and videos without labels.
      window: size of the shuffle window in records; 0 keeps their order.
      batch_size: examples that are read together.
      part: the slice of them to deliver.
      beside: data to read alongside the records.
      end: the group before which reading ends; the last batch may then have fewer examples. None never ends.
    """

    groups: ShardGroups
    data: DataConfig
    faults: Faults
    window: int
    batch_size: int
    part: slice
    beside: BesideRecords | None = None
    end: int | None = None

    @property
    def need_labels(self) -> bool:
        """Returns whether the labels of the records are needed: not if `beside` replaces them."""
        return self.beside is None or not self.beside.replaces_labels

    def parse(self, start: int, good: Sequence[int]) -> Iterator[Batch]:
        """Reads batches with TensorFlow's parser: any layout, any file system."""
        # A shuffle window of clips is smaller than a shard.
        interleave = self.data.level == "frame"
        attach: Callable[[tf.Tensor, tf.data.Dataset], tf.data.Dataset] | None = _with_shard if self.beside else None
        make: Callable[..., Batch] = self._parse
        if self.data.segments:
            attach, make = segments.cutter(self.data, self.faults), self._segments
        pairs = serialized_records(self.groups, start, self.window, good, self.end, interleave, attach)
        if not self.data.segments:
            pairs = usable_records(pairs, self.data, self.faults, self.need_labels)
        batches = pairs.batch(self.batch_size, drop_remainder=self.end is None)
        parsed = batches.map(make, num_parallel_calls=PARSERS, deterministic=True)
        return self._finished(untuned(parsed.prefetch(2)))

    def read_directly(self, start: int, good: Sequence[int]) -> Iterator[Batch]:
        """Reads batches with `clip_reader`: local clips only."""
        own = self.groups.shards
        pairs = serialized_records(
            self.groups, start, self.window, good, self.end, open_shard=clip_reader.locators(own)
        )
        pairs = usable_records(pairs, self.data, self.faults, self.need_labels, located_in=own)
        found = untuned(pairs.batch(self.batch_size, drop_remainder=self.end is None).prefetch(2)).as_numpy_iterator()
        located = (
            ({"position": positions[-1], "shard": rows[self.part, 0]}, rows[self.part]) for positions, rows in found
        )
        clips = read_clips(own, self.data, located, self.faults, self.need_labels)
        return self._finished(batch | others | self._counted(batch) for others, batch in clips)

    def _finished(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Removes the ids and shard numbers of batches, and adds the data of `beside`, looked up by them."""

        def finish(batch: Batch) -> Batch:
            ids, shards = batch.pop("id"), batch.pop("shard", None)
            if not self.beside:
                return batch
            found = self.beside.look_up(np.asarray(shards), np.asarray(ids))
            return batch | {name: tf.constant(values) for name, values in found.items()}

        return in_order(finish, batches, under_way=1) if self.beside else map(finish, batches)

    @tf.autograph.experimental.do_not_convert
    def _parse(self, positions: tf.Tensor, found: Any) -> Batch:
        serialized, *shard = [values[self.part] for values in tf.nest.flatten(found)]
        batch = parse_checked(serialized, self.data, self.faults, self.need_labels)
        others = {"position": positions[-1]} | ({"shard": shard[0]} if shard else {})
        return batch | others | self._counted(batch)

    def _counted(self, batch: Batch) -> Batch:
        return taken_for_negative(batch, self.faults) if self.need_labels else {}

    @tf.autograph.experimental.do_not_convert
    def _segments(self, positions: tf.Tensor, found: Batch) -> Batch:
        return {name: values[self.part] for name, values in found.items()} | {"position": positions[-1]}


def _with_shard(index: tf.Tensor, records: tf.data.Dataset) -> tf.data.Dataset:
    """Pairs each record with the number of its shard."""
    return tf.data.Dataset.zip((records, tf.data.Dataset.from_tensors(index).repeat()))
