"""Parses batches of records with checks, and leaves out records without frames or labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import RecordsConfig, ratings_of, targets_of
from yt8m_tf.data import clip_reader, records
from yt8m_tf.data.assertions import require
from yt8m_tf.data.batch_stream import Batch
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.record_check import check_record
from yt8m_tf.schema import NO_LABEL

# Batches parsed in parallel.
PARSERS = min(16, max(2, os.cpu_count() or 2))


def parse_checked(serialized: tf.Tensor, data: RecordsConfig, faults: Faults, need_labels: bool = True) -> Batch:
    """`records.parse_records` that rejects clips without frames and, if that is an error, videos without labels."""
    batch = records.parse_records(serialized, data)
    checks = []
    if data.level == "frame":
        checks.append(require(tf.reduce_all(batch["num_frames"] > 0), "a clip has no frames"))
    if "labels" in batch and need_labels and faults.on_unlabelled == "error":
        unlabelled = tf.reduce_any(without_labels(batch["labels"]))
        checks.append(require(~unlabelled, "a video has no labels"))
    with tf.control_dependencies(checks):
        batch["id"] = tf.identity(batch["id"])
    return batch


def without_labels(labels: tf.Tensor) -> tf.Tensor:
    """Returns which rows of padded labels [B, L] have none, [B] bool."""
    return tf.reduce_all(tf.equal(labels, NO_LABEL), axis=1)


def taken_for_negative(batch: Batch, faults: Faults, valid: tf.Tensor | bool = True) -> Batch:
    """Returns the ids of `valid` rows without labels as "unlabelled_ids" if these are taken for negative, or {}."""
    if "labels" not in batch or faults.on_unlabelled != "negative":
        return {}
    return {"unlabelled_ids": tf.boolean_mask(batch["id"], valid & without_labels(batch["labels"]))}


def left_out(data: RecordsConfig, faults: Faults, need_labels: bool = True) -> tuple[bool, bool]:
    """Returns whether clips without frames, and videos without labels, are left out of batches."""
    skip_unlabelled = need_labels and targets_of(data) is not None and faults.on_unlabelled == "skip"
    return data.level == "frame" and faults.on_empty == "skip", skip_unlabelled


def usable_records(
    pairs: tf.data.Dataset,
    data: RecordsConfig,
    faults: Faults,
    need_labels: bool = True,
    located_in: Sequence[str] = (),
) -> tf.data.Dataset:
    """Leaves out and counts clips without frames and videos without labels, if `faults` says so.

    For this, every record is read a second time.

    Args:
      pairs: pairs of a position and a serialized record, or a structure that starts with one.
      data: what the records contain.
      faults: what to leave out; updated with the counts.
      need_labels: whether labels are needed.
      located_in: the shards, if `pairs` has locators (`clip_reader.locators`) instead of records.
    """
    skip_empty, skip_unlabelled = left_out(data, faults, need_labels)
    if not (skip_empty or skip_unlabelled):
        return pairs
    doubtful = clip_reader.doubtful(located_in, data, skip_unlabelled) if located_in else None

    def count(empty: np.ndarray, empty_ids: np.ndarray, unlabelled_ids: np.ndarray) -> np.int64:
        # A missing feature looks empty, too; the error makes `BatchStream` search for the record.
        if any(check_record(clip, data, need_labels=False, need_frames=False) for clip in empty):
            raise ValueError("a record without one of the features")
        faults.count_once("num_empty", empty_ids.tolist())
        faults.count_once("num_unlabelled", unlabelled_ids.tolist())
        return np.int64(len(empty))

    @tf.autograph.experimental.do_not_convert
    def keep(positions: tf.Tensor, found: Any) -> tuple[tf.Tensor, Any]:
        every = tf.nest.flatten(found)[0]
        rows, serialized = tf.range(tf.shape(every, tf.int64)[0]), every
        if doubtful:
            rows, serialized = tf.numpy_function(doubtful, [every], [tf.int64, tf.string])
            rows, serialized = tf.ensure_shape(rows, [None]), tf.ensure_shape(serialized, [None])
        nothing = tf.zeros(tf.shape(serialized), tf.bool)
        empty = tf.equal(records.clip_lengths(serialized, data), 0) if skip_empty else nothing
        unlabelled = (
            tf.equal(records.parse_labels(serialized, data.labels_key).row_lengths(), 0) if skip_unlabelled else nothing
        )
        without_frames = tf.boolean_mask(serialized, empty)
        others = tf.boolean_mask(serialized, unlabelled & ~empty)
        counted = [without_frames, *(records.parse_ids(left, data.id_keys) for left in (without_frames, others))]
        with tf.control_dependencies([tf.numpy_function(count, counted, tf.int64)]):
            stay = tf.tensor_scatter_nd_update(tf.ones_like(positions, tf.bool), rows[:, None], ~(empty | unlabelled))
            return tf.nest.map_structure(lambda values: tf.boolean_mask(values, stay), (positions, found))

    return pairs.batch(64).map(keep).unbatch()


def reads_directly(shards: Sequence[str], data: RecordsConfig) -> bool:
    """Returns whether `clip_reader` reads the batches: whole clips in lists of frames, from local shards."""
    if data.level == "video" or ratings_of(data) or any(feature.in_context for feature in data.stored.values()):
        return False
    return clip_reader.is_local(shards)


def read_clips(
    shards: Sequence[str],
    data: RecordsConfig,
    located: Iterable[tuple[Any, np.ndarray]],
    faults: Faults,
    need_labels: bool = True,
) -> Iterator[tuple[Any, Batch]]:
    """`clip_reader.read_batches`, with the same checks as `parse_checked`."""

    def parse(serialized: tf.Tensor) -> Batch:
        return parse_checked(serialized, data, faults, need_labels)

    needs_every = need_labels and faults.on_unlabelled == "error"
    return clip_reader.read_batches(shards, data, located, parse, needs_every, PARSERS)


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turns off tf.data's autotuning: there is nothing left to tune, and its bookkeeping costs time."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
