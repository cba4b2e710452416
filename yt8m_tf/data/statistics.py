"""Statistics of the training data, computed before training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import integrity, records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.ratings import parse_ratings
from yt8m_tf.errors import InputError
from yt8m_tf.schema import MEAN_LABELS_PER_VIDEO


def class_prior(
    shards: Sequence[str], data: DataConfig, num_examples: int, faults: Faults, membership: np.ndarray | None = None
) -> np.ndarray:
    """Estimates the share of videos that have each class, and each tag, from the first records of the shards.

    The counts are smoothed with one pseudo-video of `uniform_prior`, so every share is strictly between 0 and 1.

    Args:
      shards: labelled shards.
      data: what they contain.
      num_examples: records to read, spread evenly over the shards, so that one odd shard does not dominate.
      faults: whether damaged shards are skipped; their records before the damage then count.
      membership: [C, V], nonzero where a class belongs to a tag. A video with several classes of a tag counts once.

    Returns:
      [C] float64, or with `membership` [C + V].

    Raises:
      InputError: no record has a label, or a shard is damaged and is not to be skipped.
    """
    each = -(-num_examples // len(shards))
    if membership is None:
        membership = np.zeros((data.num_classes, 0))
    counts, total, labelled = np.zeros(sum(membership.shape), np.int64), 0, 0
    for shard in shards:
        first, looked_at = itertools.islice(integrity.good_records(shard), each), 0
        while batch := list(itertools.islice(first, 256)):
            found, num_labelled = _count_labels(batch, data, shard, membership, faults)
            counts, looked_at, labelled = counts + found, looked_at + len(batch), labelled + num_labelled
        if looked_at < each and faults.on_damaged == "error" and (damage := integrity.find_damage([shard])):
            faults.skip_damage(damage)
        total += looked_at
        if total >= num_examples:
            break
    if not counts.any():
        remedy = "data.train must match labelled shards"
        faults.check_any(total, shards, "no training record was read", remedy)
        raise InputError(f"no labels in the {total} training records looked at, from '{shards[0]}' on; {remedy}")
    videos = labelled if faults.on_unlabelled == "skip" else total
    return (counts + uniform_prior(data.num_classes, membership)) / (videos + 1.0)


def rating_prior(shards: Sequence[str], data: DataConfig, num_examples: int, faults: Faults) -> np.ndarray:
    """Estimates the mean rating of each class in the segments where it was rated, from the first records of the shards.

    Each mean is smoothed with one pseudo-rating of `uniform_prior`, which is also the value of a class without ratings.

    Args:
      shards: shards with ratings.
      data: what they contain.
      num_examples: records to read, spread evenly over the shards.
      faults: decides what counts as an error in a bad record.

    Returns:
      [C] float64, strictly between 0 and 1.

    Raises:
      InputError: ratings do not fit `data`.
    """
    each = -(-num_examples // len(shards))
    sums, counts, total = np.zeros(data.num_classes), np.zeros(data.num_classes), 0
    for shard in shards:
        first = itertools.islice(integrity.good_records(shard), each)
        while batch := list(itertools.islice(first, 256)):
            try:
                _, _, classes, ratings = (values.numpy() for values in parse_ratings(tf.constant(batch), data))
            except records.PARSE_FAILURES as error:
                problem = faults.find_bad_record([shard], data, need_whole=False)
                raise InputError(problem or f"{shard}: {' '.join(str(error).split())}") from error
            sums += np.bincount(classes, ratings, minlength=data.num_classes)
            counts += np.bincount(classes, minlength=data.num_classes)
            total += len(batch)
        if total >= num_examples:
            break
    return (sums + uniform_prior(data.num_classes)) / (counts + 1.0)


def _count_labels(
    serialized: list[bytes], data: DataConfig, shard: str, membership: np.ndarray, faults: Faults
) -> tuple[np.ndarray, int]:
    """Counts the records of each class and each tag, [C + V] int64, and the records that have labels at all."""
    try:
        parsed = records.parse_labels(tf.constant(serialized), data.labels_key)
        labels, rows = parsed.flat_values.numpy(), parsed.value_rowids().numpy()
    except records.PARSE_FAILURES as error:
        problem = faults.find_bad_record([shard], data, need_labels=False, need_whole=False)
        raise InputError(problem or f"{shard}: {' '.join(str(error).split())}") from error
    num_labelled = len(np.unique(rows))
    inside = (labels >= 0) & (labels < data.num_classes)  # the others are reported when training reads them
    labels, rows = labels[inside], rows[inside]
    tags = np.zeros((len(serialized), membership.shape[1]), bool)
    np.logical_or.at(tags, rows, membership[labels] != 0)
    return np.concatenate([np.bincount(labels, minlength=data.num_classes), tags.sum(axis=0)]), num_labelled


def uniform_prior(num_classes: int, membership: np.ndarray | None = None) -> np.ndarray:
    """Returns the prior without any counts: three labels per video, spread evenly; tags as if labels were independent.

    Args:
      num_classes: C.
      membership: [C, V], nonzero where a class belongs to a tag.

    Returns:
      [C] float64, or with `membership` [C + V].
    """
    share = min(MEAN_LABELS_PER_VIDEO / num_classes, 0.5)
    sizes = np.zeros(0) if membership is None else np.count_nonzero(membership, axis=0)  # [V]
    return np.concatenate([np.full(num_classes, share), 1.0 - (1.0 - share) ** sizes])


def target_weights(prior: np.ndarray, power: float) -> np.ndarray:
    """Returns target weights that make frequent classes count less: (p_min / p_c) ** power, in (0, 1].

    Args:
      prior: [C], the share of videos with each class, above 0.
      power: 0 leaves all targets as they are, 1 makes all classes count equally.

    Returns:
      [C], 1 for the rarest class.
    """
    return (prior.min() / prior) ** power
