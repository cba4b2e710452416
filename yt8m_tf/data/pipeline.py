"""Streams of parsed batches from shards: endless and shuffled for training, one pass in order for everything else.

The order of the training records is a function of (seed, position) alone (`order`), so a killed run goes on with the
very next record.

Failures are told from the inside: when TensorFlow's reader or parser fails, a slow and exact search over the shards
that were being read (`integrity`) names the shard, the record and the reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig, RecordsConfig, targets_of
from yt8m_tf.data import clip_reader, integrity, records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.order import ShardGroups, group_of, serialized_records
from yt8m_tf.data.record_check import check_record
from yt8m_tf.errors import InputError
from yt8m_tf.schema import NO_LABEL, Level

Batch = dict[str, Any]

# Records to draw the next one from where the configuration does not say: some 40 MB of videos, 70 MB of clips.
_SHUFFLE_RECORDS = {"video": 8192, "frame": 256}
_LOOKED_AT = 32  # shards of which the first record is looked at before a run begins
# Batches parsed at the same time.
_PARSERS = min(16, max(2, os.cpu_count() or 2))


class BesideRecords(Protocol):
    """What a training stream reads beside the records, such as soft labels (`score_shards.soft_labels`).

    Attributes:
      replaces_labels: whether the labels of the records do not matter.
    """

    @property
    def replaces_labels(self) -> bool: ...

    def attach(self, index: tf.Tensor, serialized: tf.data.Dataset) -> tf.data.Dataset:
        """The records of shard `index`, each as a tuple of itself and of strings beside it."""

    def decode(self, *strings: tf.Tensor) -> Batch:
        """What a batch has of these strings, each [B]."""

    def find_problem(self, shards: Iterable[str]) -> str | None:
        """What keeps it from being read beside these shards, in one line; None where nothing does."""


class BatchStream:
    """An iterator over batches that knows its position, explains failures, and can go on after damage.

    Args:
      make_dataset: makes the dataset of batches (each with a "position") that starts at a position and reads
        no more than so many records of each shard.
      groups: the order of the shards.
      data: what the records hold.
      faults: what to do about damage; what is skipped is recorded here.
      position: where to start.
      beside: what else may be at fault.

    Attributes:
      position: just after the last batch delivered.
      seconds_waited: the time spent on waiting for batches.
    """

    def __init__(
        self,
        make_dataset: Callable[[int, Sequence[int]], Any],
        groups: ShardGroups,
        data: RecordsConfig,
        faults: Faults,
        position: int = 0,
        beside: BesideRecords | None = None,
    ):
        self.position, self.seconds_waited = position, 0.0
        self._make_dataset, self._groups, self._data, self._faults = make_dataset, groups, data, faults
        self._beside = beside
        self._iterator = self._restart()

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        while True:
            try:
                batch = next(self._iterator)
                break
            except (*integrity.READ_FAILURES, *records.PARSE_FAILURES) as error:
                self._explain_or_skip(error)
                self._iterator = self._restart()
        self.position = _last(batch.pop("position"))
        if "num_unlabelled" in batch:
            self._faults.num_unlabelled += _last(batch.pop("num_unlabelled"))
        self.seconds_waited += time.perf_counter() - start
        return batch

    def _restart(self) -> Iterator[Batch]:
        damaged = self._faults.damaged
        good = [damaged[shard].record if shard in damaged else -1 for shard in self._groups.shards]
        if not any(good):
            first = damaged[self._groups.shards[0]]
            raise InputError(f"every shard is damaged at its first record ({first}, for one); fetch them again")
        return iter(self._make_dataset(self.position, good))

    def _explain_or_skip(self, error: Exception) -> None:
        """Records the damage that is to be skipped; raises what names the record in every other case."""
        group, known = group_of(self.position), self._faults.damaged
        if isinstance(error, records.PARSE_FAILURES):
            problem = self._faults.find_bad_record(
                self._groups.following(group), self._data, need_labels=_need_labels(self._beside), need_whole=False
            )
            if problem:
                raise InputError(problem) from error
        damage = integrity.find_damage(shard for shard in self._groups.following(group) if shard not in known)
        if damage is None and self._beside and (problem := self._beside.find_problem(self._groups.shards)):
            raise InputError(problem) from error
        if damage is None:
            raise error
        self._faults.meet(damage)


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
    beside: Callable[[Sequence[str]], BesideRecords] | None = None,
    distribute: Callable[[Callable[[Any], tf.data.Dataset]], Any] | None = None,
) -> BatchStream:
    """An endless, shuffled stream of training batches.

    Args:
      shards: all training shards, the same list in every worker.
      data: what the records hold and how they are shuffled and split.
      batch_size: examples of a batch, over all workers and their replicas.
      seed: of the order.
      faults: what to do about damage, clips without frames and videos without labels.
      position: the `BatchStream.position` to go on from.
      worker, num_workers: which share of the data is read here (`data.split`).
      beside: makes what is read beside the records of the given shards, such as soft labels.
      replicas: devices of this worker; the dataset's elements are their parts of the batch, in turn.
      distribute: `strategy.distribute_datasets_from_function`, where there are several replicas.

    Returns:
      Batches of `records.parse_records` without the id, and with what is read beside the records,
      as `distribute` gives them to the replicas.

    Raises:
      InputError: a batch that cannot be shared evenly, fewer shards than workers, or no usable record in any shard;
        while reading, whatever is wrong with a record.
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
    attached = beside(own) if beside else None
    need_labels = _need_labels(attached)
    _check_any_record(own, data, faults)
    groups = ShardGroups(own, data.shuffle_shards, seed)
    window = _SHUFFLE_RECORDS[data.level] if data.shuffle_records is None else data.shuffle_records
    read_size = batch_size // num_workers if by_shard else batch_size
    part = slice(None)
    if not by_shard and num_workers > 1:
        share = batch_size // num_workers
        part = slice(worker * share, (worker + 1) * share)

    def parse(positions: tf.Tensor, found: Any) -> Batch:
        serialized, *others = [values[part] for values in tf.nest.flatten(found)]
        batch = _parse_checked(serialized, data, faults, need_labels)
        del batch["id"]
        scalars = {"position": positions[-1]}
        if need_labels and faults.on_unlabelled == "negative":
            scalars["num_unlabelled"] = tf.math.count_nonzero(_unlabelled(batch["labels"]))
        if attached:
            batch |= attached.decode(*others)
        if replicas > 1:
            batch = {name: tf.stack(tf.split(value, replicas)) for name, value in batch.items()}
            scalars = {name: tf.repeat(value, replicas) for name, value in scalars.items()}
        return batch | scalars

    def read_directly(start: int, good: Sequence[int]) -> Iterator[Batch]:
        pairs = serialized_records(groups, start, window, good, open_shard=clip_reader.locators(own))
        found = _untuned(pairs.batch(read_size, drop_remainder=True).prefetch(2)).as_numpy_iterator()
        located = ((positions[-1], rows[part]) for positions, rows in found)
        for position, batch in _read_clips(own, data, located, faults, need_labels):
            del batch["id"]
            yield batch | {"position": position}

    def make_dataset(start: int, good: Sequence[int]) -> Any:
        # A window of clips holds less than a shard.
        attach = attached.attach if attached else None
        pairs = serialized_records(groups, start, window, good, interleave=data.level == "frame", attach=attach)
        pairs = _usable_records(pairs, data, faults, need_labels)
        serialized = pairs.batch(read_size, drop_remainder=True)
        dataset = serialized.map(parse, num_parallel_calls=_PARSERS, deterministic=True)
        dataset = _untuned((dataset.unbatch() if replicas > 1 else dataset).prefetch(2 * replicas))
        return distribute(lambda context: dataset) if distribute else dataset

    alone = attached is None and distribute is None and replicas == 1
    make = read_directly if alone and _reads_directly(own, data, faults, need_labels) else make_dataset
    return BatchStream(make, groups, data, faults, position, attached)


def _reads_directly(shards: Sequence[str], data: RecordsConfig, faults: Faults, need_labels: bool = True) -> bool:
    """Whether batches are read by `clip_reader`: local clips of which none is to be left out."""
    skips = faults.on_empty == "skip" or (need_labels and targets_of(data) and faults.on_unlabelled != "error")
    return data.level == "frame" and clip_reader.is_local(shards) and not skips


def _read_clips(
    shards: Sequence[str],
    data: RecordsConfig,
    located: Iterable[tuple[Any, np.ndarray]],
    faults: Faults,
    need_labels: bool = True,
) -> Iterator[tuple[Any, Batch]]:
    """`clip_reader.read_batches`, with the same checks as `_parse_checked`."""

    def parse(serialized: tf.Tensor) -> Batch:
        return _parse_checked(serialized, data, faults, need_labels)

    return clip_reader.read_batches(shards, data, located, parse, need_labels, _PARSERS)


def limited(batches: Iterable[Batch], limit: int | None) -> Iterator[Batch]:
    """Batches up to the first `limit` rows that are "valid" ([B] bool); None: all of them."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        valid = batch["valid"] & (tf.cumsum(tf.cast(batch["valid"], tf.int32)) <= left)
        left -= int(tf.math.count_nonzero(valid))
        yield {**batch, "valid": valid}
        if not left:
            return


def scoring_batch_size(level: Level) -> int:
    """Examples that are scored together unless somebody says otherwise: a clip is as large as 300 videos' means."""
    return {"video": 1024, "frame": 128}[level]


def evaluation_stream(
    shards: Sequence[str],
    data: RecordsConfig,
    batch_size: int,
    *,
    faults: Faults,
    records_per_shard: int | None = None,
) -> BatchStream:
    """One pass over shards, in order.

    Args:
      shards: paths.
      data: what the records hold (`records.parse_records`).
      batch_size: rows of every batch.
      faults: what to do about damage, clips without frames and, if labels are read, videos without them.
      records_per_shard: read only the first so many of each shard.

    Returns:
      Batches of `records.parse_records` and "valid" [B] bool: the last batch is filled up with copies of its first row,
      which are not valid, so that every batch has one shape.
    """
    groups = ShardGroups(shards, 1, None)

    def parse(positions: tf.Tensor, serialized: tf.Tensor) -> Batch:
        missing = batch_size - tf.shape(serialized)[0]
        filled = tf.concat([serialized, tf.repeat(serialized[:1], missing)], axis=0)
        batch = _parse_checked(filled, data, faults)
        valid = tf.range(batch_size) < batch_size - missing
        if "labels" in batch and faults.on_unlabelled == "negative":
            batch["num_unlabelled"] = tf.math.count_nonzero(valid & _unlabelled(batch["labels"]))
        return batch | {"valid": valid, "position": positions[-1]}

    def limits(good: Sequence[int]) -> Sequence[int]:
        if records_per_shard is None:
            return good
        return [records_per_shard if limit < 0 else min(limit, records_per_shard) for limit in good]

    def fill(found: tuple[np.ndarray, np.ndarray]) -> tuple[tuple[Any, int], np.ndarray]:
        positions, rows = found
        missing = batch_size - len(rows)
        return (positions[-1], len(rows)), np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)])

    def make_dataset(start: int, good: Sequence[int]) -> tf.data.Dataset:
        pairs = serialized_records(groups, start, 0, limits(good), num_groups=len(groups.shards))
        pairs = _usable_records(pairs, data, faults)
        parsed = pairs.batch(batch_size).map(parse, num_parallel_calls=_PARSERS, deterministic=True)
        return _untuned(parsed.prefetch(2))

    def read_directly(start: int, good: Sequence[int]) -> Iterator[Batch]:
        pairs = serialized_records(
            groups, start, 0, limits(good), len(groups.shards), open_shard=clip_reader.locators(groups.shards)
        )
        for (position, count), batch in _read_clips(
            groups.shards, data, map(fill, _untuned(pairs.batch(batch_size).prefetch(2)).as_numpy_iterator()), faults
        ):
            yield batch | {"valid": tf.range(batch_size) < count, "position": position}

    make = read_directly if _reads_directly(shards, data, faults) else make_dataset
    return BatchStream(make, groups, data, faults)


def check_first_records(shards: Sequence[str], data: RecordsConfig, faults: Faults, need_labels: bool = True) -> None:
    """Looks at the first record of some shards, evenly spread: before hours of work, not after them.

    Args:
      shards: paths.
      data: what the records should hold.
      faults: what is let pass.
      need_labels: whether a video without labels is wrong, if `data` has labels at all.

    Raises:
      InputError: a first record that is damaged, or does not fit.
    """
    for shard in shards[:: -(-len(shards) // _LOOKED_AT)]:
        first = next(integrity.good_records(shard), None)
        if first is None:
            if shard not in faults.damaged and (damage := integrity.find_damage([shard])):
                faults.meet(damage)
            continue
        if problem := faults.check_record(first, data, need_labels=need_labels):
            raise InputError(f"{shard}: record 0{integrity.named(first)}: {problem}")


def _need_labels(beside: BesideRecords | None) -> bool:
    return beside is None or not beside.replaces_labels


def _check_any_record(shards: Sequence[str], data: RecordsConfig, faults: Faults) -> None:
    """Refuses shards that an endless stream would search for ever for a first record."""

    def is_left_out(record: bytes) -> bool:
        frames, labels = faults.on_empty != "skip", faults.on_unlabelled != "skip"
        if (frames and labels) or check_record(record, data, need_labels=True) is None:
            return False
        return check_record(record, data, need_frames=frames, need_labels=labels) is None

    if any(not is_left_out(record) for shard in shards for record in integrity.good_records(shard)):
        return
    damage = integrity.find_damage(shards)
    reason = str(damage) if damage else f"'{shards[0]}', for one, is empty or has only videos that are left out"
    raise InputError(f"no usable record in {len(shards)} training shards ({reason}); correct data.train")


def _parse_checked(serialized: tf.Tensor, data: RecordsConfig, faults: Faults, need_labels: bool = True) -> Batch:
    batch = records.parse_records(serialized, data)
    checks = []
    if data.level == "frame":
        checks.append(tf.debugging.Assert(tf.reduce_all(batch["num_frames"] > 0), ["a clip has no frames"]))
    if "labels" in batch and need_labels and faults.on_unlabelled == "error":
        unlabelled = tf.reduce_any(_unlabelled(batch["labels"]))
        checks.append(tf.debugging.Assert(~unlabelled, ["a video has no labels"]))
    with tf.control_dependencies(checks):
        batch["id"] = tf.identity(batch["id"])
    return batch


def _unlabelled(labels: tf.Tensor) -> tf.Tensor:
    """[B] bool: which rows of padded labels [B, L] have none."""
    return tf.reduce_all(tf.equal(labels, NO_LABEL), axis=1)


def _usable_records(
    pairs: tf.data.Dataset, data: RecordsConfig, faults: Faults, need_labels: bool = True
) -> tf.data.Dataset:
    """Leaves out, and counts, clips without frames and videos without labels, if that is wished: it takes a second look
    at every record."""
    skip_empty = data.level == "frame" and faults.on_empty == "skip"
    skip_unlabelled = need_labels and targets_of(data) is not None and faults.on_unlabelled == "skip"
    if not (skip_empty or skip_unlabelled):
        return pairs

    def count(empty: np.ndarray, num_unlabelled: np.int64) -> np.int64:
        # A feature that is missing looks empty, too; the error makes `BatchStream` look for the record.
        if any(check_record(clip, data, need_labels=False, need_frames=False) for clip in empty):
            raise ValueError("a record without one of the features")
        faults.num_empty += len(empty)
        faults.num_unlabelled += int(num_unlabelled)
        return np.int64(len(empty))

    def keep(positions: tf.Tensor, found: Any) -> tuple[tf.Tensor, Any]:
        serialized = tf.nest.flatten(found)[0]
        nothing = tf.zeros(tf.shape(serialized), tf.bool)
        empty = tf.equal(records.clip_lengths(serialized, data), 0) if skip_empty else nothing
        unlabelled = tf.equal(records.parse_labels(serialized).row_lengths(), 0) if skip_unlabelled else nothing
        counted = [tf.boolean_mask(serialized, empty), tf.math.count_nonzero(unlabelled & ~empty)]
        with tf.control_dependencies([tf.numpy_function(count, counted, tf.int64)]):
            return tf.nest.map_structure(
                lambda values: tf.boolean_mask(values, ~(empty | unlabelled)), (positions, found)
            )

    return pairs.batch(64).map(keep).unbatch()


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tf.data's autotuning: there is nothing left to tune, and its bookkeeping takes a fifth of the time."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _last(value: Any) -> int:
    """A number of a batch, or of its last part where several replicas share it."""
    return int(getattr(value, "values", (value,))[-1])
