"""The order in which records are read: a function of only (seed, position).

Shards are shuffled for every pass and read in groups; the records of a group are interleaved and shuffled within a
window. A position is (group, records of the group already used), so resuming from it re-reads at most one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

# A position packs (group, records used) into one int64, so that every record can carry it.
_GROUP = 2**32


class ShardGroups:
    """The order in which shards are read: which shards belong to each group 0, 1, ...

    Args:
      shards: paths.
      group_size: shards per group.
      seed: seed of the order; None keeps the order of `shards`.
    """

    def __init__(self, shards: Sequence[str], group_size: int, seed: int | None):
        self.shards = list(shards)
        self.group_size = min(group_size, len(shards))
        self.per_pass = -(-len(shards) // self.group_size)
        self.seed = seed

    def indices(self, group: tf.Tensor) -> tf.Tensor:
        """The indices into `shards` of one group, as a tensor; `group` is an int64 scalar."""
        order = tf.range(len(self.shards))
        if self.seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed=tf.stack([self.seed, group // self.per_pass]))
        start = tf.cast(group % self.per_pass, tf.int32) * self.group_size
        return order[start : start + self.group_size]

    def pass_range(self, number: int) -> tuple[int, int]:
        """The position where a pass over the shards begins, and the group before which it ends."""
        return number * self.per_pass * _GROUP, (number + 1) * self.per_pass

    def following(self, group: int) -> Iterator[str]:
        """The shards from `group` on, in order, each once: those to search after a failure."""
        seen = set()
        for later in range(group, group + 2 * self.per_pass):
            for index in self.indices(tf.constant(later, tf.int64)).numpy():
                if index not in seen:
                    seen.add(index)
                    yield self.shards[index]


def serialized_records(
    groups: ShardGroups,
    position: int,
    shuffle_records: int,
    good_records: Sequence[int],
    num_groups: int | None = None,
    interleave: bool = True,
    attach: Callable[[tf.Tensor, tf.data.Dataset], tf.data.Dataset] | None = None,
    open_shard: Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset] | None = None,
) -> tf.data.Dataset:
    """A dataset of (position after the record, serialized record), from `position` on.

    The order of the records does not depend on `attach` and `open_shard`.

    Args:
      groups: the order of the shards.
      position: where to start; 0 is the beginning.
      shuffle_records: size of the shuffle window; 0: shards one after the other, their records in order.
      good_records: the number of records to read from each shard, -1 for all.
      num_groups: the group before which to stop; None never stops.
      interleave: with a shuffle window, read all shards of a group at once instead of one after the other. This takes a
        sixth more time at video level, where it is not needed: the window contains whole shards.
      attach: maps the index of a shard and its records to a dataset of elements to deliver instead. A record may give
        any number of elements; each has its own position.
      open_shard: maps the index of a shard and the number of records to read to a dataset with one element to deliver
        for each record; None delivers the records themselves.
    """
    shards, limits = tf.constant(groups.shards), tf.constant(good_records, tf.int64)
    all_good = all(limit < 0 for limit in good_records)

    @tf.autograph.experimental.do_not_convert
    def read_shard(index: tf.Tensor) -> tf.data.Dataset:
        if open_shard:
            return open_shard(index, limits[index])
        found = tf.data.TFRecordDataset(shards[index]).take(limits[index])
        return attach(index, found) if attach else found

    @tf.autograph.experimental.do_not_convert
    def read_group(group: tf.Tensor) -> tf.data.Dataset:
        indices = groups.indices(group)
        files = tf.data.Dataset.from_tensor_slices(indices)
        if shuffle_records and interleave:
            found = files.interleave(read_shard, cycle_length=groups.group_size, block_length=16)
        elif all_good and not attach and not open_shard:
            found = tf.data.TFRecordDataset(tf.gather(shards, indices))
        else:
            found = files.flat_map(read_shard)
        if shuffle_records:
            # Sets the seed of this function's graph only: the order must not depend on the process's global seed.
            tf.random.set_seed(1 + (groups.seed or 0) % 2**30)
            found = found.shuffle(shuffle_records, seed=group)
        first = group * _GROUP + 1
        return tf.data.Dataset.zip((tf.data.Dataset.range(first, first + _GROUP), found))

    first_group, used = divmod(position, _GROUP)
    last_group = np.iinfo(np.int64).max // _GROUP if num_groups is None else num_groups
    return tf.data.Dataset.range(first_group, last_group).flat_map(read_group).skip(used)


def group_of(position: int) -> int:
    """The group that a position is in."""
    return position // _GROUP
