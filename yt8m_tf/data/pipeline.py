"""Streams of parsed batches from shards: endless and shuffled for training, one pass in order for everything else.

The order of the training records is a function of only (seed, position) (`order`), so a killed run resumes with the
very next record.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig, RecordsConfig, ratings_of
from yt8m_tf.data import integrity, records, segments
from yt8m_tf.data.batch_stream import Batch, BatchStream, BesideRecords
from yt8m_tf.data.checked_batches import left_out, reads_directly
from yt8m_tf.data.evaluation_reader import EvaluationReader
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.order import ShardGroups
from yt8m_tf.data.record_check import check_record
from yt8m_tf.data.training_reader import TrainingReader
from yt8m_tf.errors import InputError
from yt8m_tf.schema import Level

# Default shuffle window in records: about 40 MB of videos, 70 MB of clips.
_SHUFFLE_RECORDS = {"video": 8192, "frame": 256}
_SHUFFLE_SEGMENTS = 2048  # 12 MB of five-frame segments, 150 MB with 30 frames of context on either side
_LOOKED_AT = 32  # shards whose first record is checked before a run begins


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
    single_pass: int | None = None,
) -> BatchStream:
    """An endless, shuffled stream of training batches, or one pass of it.

    Args:
      shards: all training shards, the same list in every worker.
      data: what the records contain and how they are shuffled and split.
      batch_size: examples per batch, over all workers and their replicas.
      seed: seed of the order.
      faults: what to do about damage, clips without frames and videos without labels.
      position: the `BatchStream.position` to resume from.
      worker, num_workers: the share of the data to read here (`data.split`).
      beside: makes the data to read alongside the records of the given shards, such as soft labels.
      replicas: devices of this worker, which share its batches.
      single_pass: read only this pass over the shards, 0 being the first, instead of resuming from `position`; its
        last batch may have fewer examples. For one worker and one replica.

    Returns:
      Batches as `records.parse_records` or `segments.parse_segments` returns them, without the id but with the data of
      `beside`.

    Raises:
      InputError: the batch cannot be shared evenly, there are fewer shards than workers, or no shard has a usable
        record; while reading, a record is bad.
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
    need_labels = attached is None or not attached.replaces_labels
    check_any_record(own, data, faults, need_labels=need_labels)
    window = _SHUFFLE_SEGMENTS if data.segments else _SHUFFLE_RECORDS[data.level]
    groups = ShardGroups(own, data.shuffle_shards, seed)
    end = None
    if single_pass is not None:
        position, end = groups.pass_range(single_pass)
    part = slice(None)
    if not by_shard and num_workers > 1:
        share = batch_size // num_workers
        part = slice(worker * share, (worker + 1) * share)
    reader = TrainingReader(
        groups,
        data,
        faults,
        window=window if data.shuffle_records is None else data.shuffle_records,
        batch_size=batch_size // num_workers if by_shard else batch_size,
        part=part,
        beside=attached,
        end=end,
    )
    make = reader.read_directly if reads_directly(own, data) else reader.parse
    return BatchStream(make, groups, data, faults, position, reader.need_labels)


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
      data: what the records contain.
      batch_size: rows per batch.
      faults: what to do about damage, clips without frames and, if labels are read, videos without them.
      records_per_shard: read only this many records of each shard.

    Returns:
      Batches as `records.parse_records` (with `data.segments`, `segments.parse_segments`) returns them, and "valid"
      [B] bool: the last batch is padded with copies of its first row, which are not valid, so that all batches have the
      same shape.
    """
    groups = ShardGroups(shards, 1, None)
    reader = EvaluationReader(groups, data, faults, batch_size, records_per_shard)
    make = reader.read_directly if reads_directly(shards, data) else reader.dataset
    return BatchStream(make, groups, data, faults)


def limited(batches: Iterable[Batch], limit: int | None) -> Iterator[Batch]:
    """The batches up to the first `limit` rows that are "valid" ([B] bool), or all of them if it is None."""
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


def at_least_one(
    batches: Iterable[Batch], shards: Sequence[str], faults: Faults, done: str, remedy: str = "give other shards"
) -> Iterator[Batch]:
    """The batches of `evaluation_stream` over shards; raises InputError (`Faults.check_any`) if there is none."""
    found = 0
    for batch in batches:
        found = 1
        yield batch
    faults.check_any(found, shards, done, remedy)


def scoring_batch_size(level: Level) -> int:
    """The default number of examples to score together: a clip has as many values as 300 video-level records."""
    return {"video": 1024, "frame": 128}[level]


def check_first_records(shards: Sequence[str], data: RecordsConfig, faults: Faults, need_labels: bool = True) -> None:
    """Checks the first record of some evenly spread shards, so that a run fails at its start, not after hours.

    Args:
      shards: paths.
      data: what the records should contain.
      faults: which faults are tolerated.
      need_labels: whether a video without labels is an error, if `data` has labels at all.

    Raises:
      InputError: a first record is damaged or does not fit, or no shard has a record.
    """
    found = 0
    for shard in shards[:: -(-len(shards) // _LOOKED_AT)]:
        first = next(integrity.good_records(shard), None)
        if first is None:
            if shard not in faults.damaged and (damage := integrity.find_damage([shard])):
                faults.skip_damage(damage)
            continue
        found += 1
        if problem := faults.check_record(first, data, need_labels=need_labels):
            raise InputError(f"{shard}: record 0{integrity.named(first, data.id_keys)}: {problem}")
    if not found and integrity.first_record(shards) is None:
        faults.check_any(0, shards, "no record was read")
    if rated := ratings_of(data):
        _check_any_segment(shards, rated)


def check_any_record(
    shards: Sequence[str], data: DataConfig, faults: Faults, key: str = "data.train", need_labels: bool = True
) -> None:
    """Checks that a shard has a usable record: otherwise a training stream would search forever for the first one.

    Args:
      shards: paths.
      data: what the records should contain.
      faults: which faults are tolerated.
      key: the configuration key of the shards, for messages.
      need_labels: whether videos without labels are left out, if `faults` says so.

    Raises:
      InputError: no shard has a usable record.
    """
    if rated := ratings_of(data):
        return _check_any_segment(shards, rated)
    found, (skip_empty, skip_unlabelled) = faults.anew(), left_out(data, faults, need_labels)
    for shard in shards:
        for record in integrity.good_records(shard):
            if skip_empty and _lacks(record, data, need_frames=True):
                found.num_empty += 1
            elif skip_unlabelled and _lacks(record, data, need_labels=True):
                found.num_unlabelled += 1
            else:
                return
    reason = found.nothing_usable(shards)  # with the path of a damaged or empty shard
    place = "" if "/" in reason else f"for example, '{shards[0]}': "
    raise InputError(f"{key}: no usable record in {len(shards)} shards ({place}{reason}); correct {key}")


def _lacks(record: bytes, data: DataConfig, *, need_labels: bool = False, need_frames: bool = False) -> bool:
    """Returns whether a record has all that is needed but labels, or frames."""
    if check_record(record, data, need_labels=need_labels, need_frames=need_frames) is None:
        return False
    return check_record(record, data, need_labels=False, need_frames=False) is None


def _check_any_segment(shards: Sequence[str], data: DataConfig) -> None:
    """Raises if no shard has a rated segment."""
    for shard in shards:
        left = integrity.good_records(shard)
        while some := list(itertools.islice(left, 64)):
            with contextlib.suppress(*records.PARSE_FAILURES):  # the stream reports which record does not fit
                if not segments.any_inside(some, data):
                    continue
            return
    raise InputError(
        f"no clip of {len(shards)} shards has a rated segment inside it (for example '{shards[0]}'); give shards with"
        f" '{schema.SEGMENT_STARTS_KEY}', such as those of 3/frame/validate, or set data.segments: null"
    )
