"""Streams of parsed batches from shards: endless and shuffled for training, one pass in order for everything else.

The order of the training records is a function of (seed, position) alone. Shards are shuffled for every pass and read
in groups; the records of a group are interleaved and shuffled within a window. A position is (group, records of the
group already used), so a killed run goes on with the very next record after re-reading at most one group.

Failures are told from the inside: when TensorFlow's reader or parser fails, a slow and exact search over the shards
that were being read (`integrity`) names the shard, the record and the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.data import integrity, records
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.experiment import DataConfig

Batch = dict[str, Any]

# A position packs (group, records used) into one int64, so that it can travel with every record.
_GROUP = 2**32
# Records to draw the next one from where the configuration does not say: some 40 MB of either level.
_SHUFFLE_RECORDS = {"video": 8192, "frame": 256}
_READ_FAILURES = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError,
                  tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError)  # fmt: skip


class ShardGroups:
    """The order in which shards are read: which shards each group, 0, 1, ..., holds.

    Args:
      shards: paths.
      group_size: shards of a group.
      seed: of the order; None keeps the order of `shards`.
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

    def following(self, group: int) -> Iterator[str]:
        """The shards from `group` on, in order, each once: where to look for what went wrong."""
        seen = set()
        for later in range(group, group + 2 * self.per_pass):
            for index in self.indices(tf.constant(later, tf.int64)).numpy():
                if index not in seen:
                    seen.add(index)
                    yield self.shards[index]


def serialized_records(
    groups: ShardGroups, position: int, shuffle_records: int, good_records: Sequence[int], num_groups: int | None = None
) -> tf.data.Dataset:
    """Pairs of (position after this record, serialized record), from `position` on.

    Args:
      groups: the order of the shards.
      position: where to start; 0 is the beginning.
      shuffle_records: size of the shuffle window; 0: shards one after the other, their records in order.
      good_records: for each shard how many of its records to read, -1 for all.
      num_groups: where to stop; None goes on for ever.
    """
    shards, limits = tf.constant(groups.shards), tf.constant(good_records, tf.int64)

    def read_shard(index: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(shards[index]).take(limits[index])

    def read_group(group: tf.Tensor) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices(groups.indices(group))
        if shuffle_records:
            found = files.interleave(read_shard, cycle_length=groups.group_size, block_length=16)
            # Sets the seed of this function's graph alone: the order must not depend on the process's global seed.
            tf.random.set_seed(1 + (groups.seed or 0) % 2**30)
            found = found.shuffle(shuffle_records, seed=group)
        else:
            found = files.flat_map(read_shard)
        first = group * _GROUP + 1
        return tf.data.Dataset.zip((tf.data.Dataset.range(first, first + _GROUP), found))

    first_group, used = divmod(position, _GROUP)
    last_group = np.iinfo(np.int64).max // _GROUP if num_groups is None else num_groups
    return tf.data.Dataset.range(first_group, last_group).flat_map(read_group).skip(used)


class BatchStream:
    """An iterator over batches that knows its position, explains failures, and can go on after damage.

    Args:
      make_dataset: makes the dataset of batches (each with a "position") that starts at a position and reads
        no more than so many records of each shard.
      groups: the order of the shards.
      data: what the records hold.
      faults: what to do about damage; what is skipped is recorded here.
      position: where to start.

    Attributes:
      position: just after the last batch delivered.
      seconds_waited: the time spent on waiting for batches.
    """

    def __init__(
        self,
        make_dataset: Callable[[int, Sequence[int]], Any],
        groups: ShardGroups,
        data: DataConfig,
        faults: Faults,
        position: int = 0,
    ):
        self.position, self.seconds_waited = position, 0.0
        self._make_dataset, self._groups, self._data, self._faults = make_dataset, groups, data, faults
        self._iterator = self._restart()

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        while True:
            try:
                batch = next(self._iterator)
                break
            except _READ_FAILURES as error:
                self._explain_or_skip(error)
                self._iterator = self._restart()
        self.position = _last_position(batch.pop("position"))
        self.seconds_waited += time.perf_counter() - start
        return batch

    def _restart(self) -> Iterator[Batch]:
        damaged = self._faults.damaged
        good = [damaged[shard].record if shard in damaged else -1 for shard in self._groups.shards]
        if not any(good):
            raise InputError(f"every shard is damaged at its first record, '{self._groups.shards[0]}' for one")
        return iter(self._make_dataset(self.position, good))

    def _explain_or_skip(self, error: tf.errors.OpError) -> None:
        """Records the damage that is to be skipped; raises what names the record in every other case."""
        shards = list(self._groups.following(self.position // _GROUP))
        known = self._faults.damaged
        damage = integrity.find_damage([shard for shard in shards if shard not in known])
        if damage is not None and self._faults.on_damaged == "skip":
            known[damage.path] = damage
            return
        if damage is not None:
            raise InputError(f"{damage}; --on_damaged=skip goes on with the next shard") from error
        problem = integrity.find_bad_record(shards, self._data, need_labels=False)
        if problem is None:
            raise error
        raise InputError(problem) from error


def training_stream(
    shards: Sequence[str],
    data: DataConfig,
    batch_size: int,
    *,
    seed: int,
    faults: Faults,
    position: int = 0,
    worker: int = 0,
    num_workers: int = 1,
    replicas: int = 1,
    distribute: Callable[[Callable[[Any], tf.data.Dataset]], Any] | None = None,
) -> BatchStream:
    """An endless, shuffled stream of training batches.

    Args:
      shards: all training shards, the same list in every worker.
      data: what the records hold and how they are shuffled and split.
      batch_size: examples of a batch, over all workers and their replicas.
      seed: of the order.
      faults: what to do about damage and clips without frames.
      position: the `BatchStream.position` to go on from.
      worker, num_workers: which share of the data is read here (`data.split`).
      replicas: devices of this worker; the dataset's elements are their parts of the batch, in turn.
      distribute: `strategy.distribute_datasets_from_function`, where there are several replicas.

    Returns:
      Batches of `records.parse_records` without the id, as `distribute` gives them to the replicas.

    Raises:
      InputError: a batch that cannot be shared evenly, or fewer shards than workers; while reading, whatever is
        wrong with a record.
    """
    if batch_size % (num_workers * replicas):
        raise InputError(
            f"a batch (or its accumulated part) of {batch_size} examples cannot be shared evenly by"
            f" {num_workers * replicas} replicas; change train.batch_size, train.accumulation or --devices"
        )
    by_shard = data.split == "shard" and num_workers > 1
    if by_shard and len(shards) < num_workers:
        raise InputError(
            f"{len(shards)} training shards cannot be split over {num_workers} workers; use data.split=record"
        )
    own = list(shards[worker::num_workers]) if by_shard else list(shards)
    groups = ShardGroups(own, data.shuffle_shards, seed)
    window = _SHUFFLE_RECORDS[data.level] if data.shuffle_records is None else data.shuffle_records
    read_size = batch_size // num_workers if by_shard else batch_size
    part = slice(None)
    if not by_shard and num_workers > 1:
        share = batch_size // num_workers
        part = slice(worker * share, (worker + 1) * share)

    def parse(positions: tf.Tensor, serialized: tf.Tensor) -> Batch:
        batch = _parse_checked(serialized[part], data, with_labels=True)
        del batch["id"]
        if replicas > 1:
            batch = {name: tf.reshape(value, [replicas, -1, *value.shape[1:]]) for name, value in batch.items()}
        return batch | {"position": tf.repeat(positions[-1], replicas) if replicas > 1 else positions[-1]}

    def make_dataset(start: int, good: Sequence[int]) -> Any:
        pairs = _usable_records(serialized_records(groups, start, window, good), data, faults)
        dataset = pairs.batch(read_size, drop_remainder=True).map(parse, num_parallel_calls=2, deterministic=True)
        dataset = (dataset.unbatch() if replicas > 1 else dataset).prefetch(2 * replicas)
        return distribute(lambda context: dataset) if distribute else dataset

    return BatchStream(make_dataset, groups, data, faults, position)


def evaluation_stream(
    shards: Sequence[str],
    data: DataConfig,
    batch_size: int,
    *,
    faults: Faults,
    with_labels: bool = True,
) -> BatchStream:
    """One pass over shards, in order.

    Args:
      shards: paths.
      data: what the records hold.
      batch_size: rows of every batch.
      faults: what to do about damage and clips without frames.
      with_labels: whether to read labels.

    Returns:
      Batches of `records.parse_records` and "valid" [B] bool: the last batch is filled up with copies of its first row,
      which are not valid, so that every batch has one shape.
    """
    groups = ShardGroups(shards, 1, None)

    def parse(positions: tf.Tensor, serialized: tf.Tensor) -> Batch:
        missing = batch_size - tf.shape(serialized)[0]
        filled = tf.concat([serialized, tf.repeat(serialized[:1], missing)], axis=0)
        batch = _parse_checked(filled, data, with_labels)
        return batch | {"valid": tf.range(batch_size) < batch_size - missing, "position": positions[-1]}

    def make_dataset(start: int, good: Sequence[int]) -> tf.data.Dataset:
        pairs = serialized_records(groups, start, 0, good, num_groups=len(groups.shards))
        pairs = _usable_records(pairs, data, faults)
        return pairs.batch(batch_size).map(parse, num_parallel_calls=2, deterministic=True).prefetch(2)

    return BatchStream(make_dataset, groups, data, faults)


def _parse_checked(serialized: tf.Tensor, data: DataConfig, with_labels: bool) -> Batch:
    batch = records.parse_records(serialized, data, with_labels=with_labels)
    if data.level == "frame":
        check = tf.debugging.Assert(tf.reduce_all(batch["num_frames"] > 0), ["a clip has no frames"])
        with tf.control_dependencies([check]):
            batch["num_frames"] = tf.identity(batch["num_frames"])
    return batch


def _usable_records(pairs: tf.data.Dataset, data: DataConfig, faults: Faults) -> tf.data.Dataset:
    """Leaves out, and counts, clips without frames, if that is wished: it takes a second look at every record."""
    if data.level == "video" or faults.on_empty == "error":
        return pairs

    def count(number: np.ndarray) -> np.ndarray:
        faults.num_empty += int(number)
        return number

    def keep(positions: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        empty = tf.equal(records.clip_lengths(serialized, data), 0)
        with tf.control_dependencies([tf.numpy_function(count, [tf.math.count_nonzero(empty)], tf.int64)]):
            return tf.boolean_mask(positions, ~empty), tf.boolean_mask(serialized, ~empty)

    return pairs.batch(64).map(keep).unbatch()


def _last_position(position: Any) -> int:
    """The position of a batch, or of its last part where several replicas share it."""
    return int(getattr(position, "values", (position,))[-1])
