"""Statistics of a data set that training starts from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf.data import integrity, records
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.experiment import DataConfig
from yt8m_tf.schema import MEAN_LABELS_PER_VIDEO


def class_prior(shards: Sequence[str], data: DataConfig, num_examples: int, faults: Faults) -> np.ndarray:
    """The share of videos that each class labels, estimated on the first records of every few shards.

    The counts are smoothed with one pseudo-video of `uniform_prior`, so that every share lies strictly between 0 and 1.

    Args:
      shards: labelled shards.
      data: what they hold.
      num_examples: records to look at; they are taken evenly from the shards, so that one odd shard does not decide.
      faults: damaged shards count as far as they can be read, if they are to be skipped.

    Returns:
      [C] float64.

    Raises:
      InputError: no record has a label, or a shard is damaged and is not to be skipped.
    """
    each = -(-num_examples // len(shards))
    counts, total = np.zeros(data.num_classes, np.int64), 0
    for shard in shards:
        first, looked_at = itertools.islice(integrity.good_records(shard), each), 0
        while batch := list(itertools.islice(first, 256)):
            counts += _count_labels(batch, data, shard)
            looked_at += len(batch)
        if looked_at < each and faults.on_damaged == "error" and (damage := integrity.find_damage([shard])):
            faults.meet(damage)
        total += looked_at
        if total >= num_examples:
            break
    if not counts.any():
        raise InputError(
            f"no labels in the {total} training records looked at, from '{shards[0]}' on; data.train must match"
            " labelled shards"
        )
    return (counts + uniform_prior(data.num_classes)) / (total + 1.0)


def _count_labels(serialized: list[bytes], data: DataConfig, shard: str) -> np.ndarray:
    """How many of the records each class labels: [C] int64."""
    try:
        labels = records.parse_labels(tf.constant(serialized), data).flat_values.numpy()
    except records.PARSE_FAILURES as error:
        problem = integrity.find_bad_record([shard], data, need_labels=False, need_frames=False, need_whole=False)
        raise InputError(problem or f"{shard}: {' '.join(str(error).split())}") from error
    inside = labels[(labels >= 0) & (labels < data.num_classes)]  # the others are found, and named, on reading
    return np.bincount(inside, minlength=data.num_classes)


def uniform_prior(num_classes: int) -> np.ndarray:
    """The prior without any counts: three labels a video, spread evenly; [C] float64."""
    return np.full(num_classes, min(MEAN_LABELS_PER_VIDEO / num_classes, 0.5))
