"""Evaluates a SavedModel by the highest scores of each video, which is all that a third-party model gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.labels import LabelRule
from yt8m_tf.data.record_check import ON_UNLABELLED_HINT
from yt8m_tf.data.shards import size_of
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import MetricAccumulator, Metrics
from yt8m_tf.metrics.batch_statistics import top_score_statistics
from yt8m_tf.serving.inference import bytes_in_shards, default_batch_size, scored_batches, usable
from yt8m_tf.serving.scorer import Scorer


def evaluate_scorer(
    scorer: Scorer,
    shards: Sequence[str],
    *,
    batch_size: int | None = None,
    faults: Faults,
    min_positives: int | None = None,
    keep_ids: bool = False,
    progress: bool = True,
) -> Metrics:
    """Computes metrics from the highest scores of each video; a class that is not among them counts as not predicted.

    Args:
      scorer: from `load_scorer`, with the number of classes.
      shards: paths of labelled shards, of the level that the model reads.
      batch_size: see `inference.infer`.
      faults: what to do about damaged shards and, if the model states that it reads clips, clips without frames.
      min_positives: see `MetricAccumulator.result`.
      keep_ids: whether `Metrics.videos` has ids.
      progress: whether to show a progress bar.

    Returns:
      The metrics; those that would need all scores are NaN (`Metrics`).

    Raises:
      InputError: see `inference.scored_batches`; or an id is not the record's, a label is not a class, a score is NaN,
        or there are no videos or no labels.
    """
    accumulator, num_videos = None, 0
    total = sum(size_of(shard) for shard in shards)
    batches = scored_batches(scorer, shards, batch_size or default_batch_size(scorer, shards), faults)
    rule = _rule(scorer, faults)
    with Progress(
        total=total, desc="evaluate", unit="B", unit_scale=True, mininterval=0.5, disable=not progress
    ) as bar:
        for owners, serialized, (ids, classes, scores) in batches:
            of_shards = [(shards[index], owners == index) for index in np.unique(owners)]
            # The records of a shard are contiguous.
            keep = np.concatenate([usable(scorer, s, ids[rows], scores[rows], faults) for s, rows in of_shards])
            _check_ids(scorer, ids, serialized)
            labels = rule.parse(serialized, [shard for shard, _ in of_shards])
            found = np.split(labels.flat_values.numpy(), labels.row_starts().numpy()[1:])
            keep &= _labelled(found, keep, ids, shards, owners, faults)
            labels = [row for row, kept in zip(found, keep, strict=True) if kept]
            if accumulator is None:
                accumulator = MetricAccumulator(scorer.num_classes, scores.shape[1], keep_ids)
            statistics = top_score_statistics(classes[keep], scores[keep], labels, scorer.num_classes)
            own = records.parse_ids(serialized, scorer.id_keys).numpy() if keep_ids else ids  # a model may give none
            accumulator.update(statistics, own[keep])
            num_videos += int(keep.sum())
            bar.update(bytes_in_shards(serialized))
    faults.check_any(num_videos, shards, "nothing was evaluated")
    return (accumulator or MetricAccumulator(scorer.num_classes)).result(min_positives)


def _rule(scorer: Scorer, faults: Faults) -> LabelRule:
    """Returns the rule for the labels of records: a flag gives the classes of a model that does not state them."""
    labels_key = scorer.data.labels_key if scorer.data else schema.LABELS_KEY
    faults.reader = dataclasses.replace(faults.reader, classes_flag="" if scorer.data else "--num_classes")
    return LabelRule(scorer.num_classes, scorer.id_keys, labels_key, faults.reader)


def _check_ids(scorer: Scorer, ids: np.ndarray, serialized: tf.Tensor) -> None:
    """Checks that the model's rows are those of the records, because labels are joined row by row."""
    expected = records.parse_ids(serialized, scorer.id_keys).numpy()
    if (wrong := (ids != expected) & (ids != b"")).any():
        given, own = (values[wrong][0].decode(errors="replace") for values in (ids, expected))
        raise InputError(
            f"{scorer.path}: the model gives video_id '{given}' for the record of '{own}'; its rows must be"
            " those of the records, in their order"
        )


def _labelled(
    labels: Sequence[np.ndarray],
    keep: np.ndarray,
    ids: np.ndarray,
    shards: Sequence[str],
    owners: np.ndarray,
    faults: Faults,
) -> np.ndarray:
    """Returns which of the videos in `keep` to evaluate, [B] bool, given the policy for videos without labels."""
    missing = keep & np.array([not len(own) for own in labels])
    if missing.any() and faults.on_unlabelled == "error":
        first = int(np.argmax(missing))
        raise InputError(
            f"{shards[owners[first]]}: video '{ids[first].decode(errors='replace')}' has no labels, which evaluation"
            f" needs; a test shard? give labelled ones{faults.reader.flag_hint(ON_UNLABELLED_HINT)}"
        )
    faults.num_unlabelled += int(missing.sum())
    return np.ones(len(missing), bool) if faults.on_unlabelled == "negative" else ~missing
