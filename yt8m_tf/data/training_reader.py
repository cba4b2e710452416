"""Reads the endless, shuffled batches of training, in two ways that give the same batches in the same order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import clip_reader, segments
from yt8m_tf.data.batch_stream import Batch, BesideRecords, needs_labels
from yt8m_tf.data.checked_batches import PARSERS, parse_checked, read_clips, taken_for_negative, untuned, usable_records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.order import ShardGroups, serialized_records


@dataclasses.dataclass(frozen=True)
class TrainingReader:
    """Makes what `BatchStream` reads in training, from a position on.

    Attributes:
      groups: the order of the shards.
      data: what their records hold.
      faults: what to do about clips without frames and videos without labels.
      window: records from which the next one is drawn; 0 keeps their order.
      batch_size: examples that are read together.
      part: which of them are wanted.
      beside: what is read beside the records.
      end: the group before which reading ends, the last batch of which may have fewer examples; None: never.
    """

    groups: ShardGroups
    data: DataConfig
    faults: Faults
    window: int
    batch_size: int
    part: slice
    beside: BesideRecords | None = None
    end: int | None = None

    def dataset(self, start: int, good: Sequence[int]) -> tf.data.Dataset:
        """Batches by TensorFlow's parser, of any layout and from anywhere, and what is read beside the records."""
        # A window of clips holds less than a shard.
        interleave = self.data.level == "frame"
        attach: Callable[[tf.Tensor, tf.data.Dataset], tf.data.Dataset] | None = None
        make: Callable[..., Batch] = self._parse
        if self.beside:
            attach = self.beside.attach
        if self.data.segments:
            attach, make = segments.cutter(self.data, self.faults), self._segments
        pairs = serialized_records(self.groups, start, self.window, good, self.end, interleave, attach)
        if not self.data.segments:
            pairs = usable_records(pairs, self.data, self.faults, needs_labels(self.beside))
        batches = pairs.batch(self.batch_size, drop_remainder=self.end is None)
        return untuned(batches.map(make, num_parallel_calls=PARSERS, deterministic=True).prefetch(2))

    def read_directly(self, start: int, good: Sequence[int]) -> Iterator[Batch]:
        """Batches by `clip_reader`, of local clips alone."""
        own, need_labels = self.groups.shards, needs_labels(self.beside)
        pairs = serialized_records(
            self.groups, start, self.window, good, self.end, open_shard=clip_reader.locators(own)
        )
        pairs = usable_records(pairs, self.data, self.faults, need_labels, located_in=own)
        found = untuned(pairs.batch(self.batch_size, drop_remainder=self.end is None).prefetch(2)).as_numpy_iterator()
        located = ((positions[-1], rows[self.part]) for positions, rows in found)
        for position, batch in read_clips(own, self.data, located, self.faults, need_labels):
            del batch["id"]
            counted = taken_for_negative(batch, self.faults) if need_labels else {}
            yield batch | counted | {"position": position}

    @tf.autograph.experimental.do_not_convert
    def _parse(self, positions: tf.Tensor, found: Any) -> Batch:
        serialized, *others = [values[self.part] for values in tf.nest.flatten(found)]
        need_labels = needs_labels(self.beside)
        batch = parse_checked(serialized, self.data, self.faults, need_labels)
        del batch["id"]
        if need_labels:
            batch |= taken_for_negative(batch, self.faults)
        if self.beside:
            batch |= self.beside.decode(*others)
        return batch | {"position": positions[-1]}

    @tf.autograph.experimental.do_not_convert
    def _segments(self, positions: tf.Tensor, found: Batch) -> Batch:
        own = {name: values[self.part] for name, values in found.items() if name != "id"}
        return own | {"position": positions[-1]}
