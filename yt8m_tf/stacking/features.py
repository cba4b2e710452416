"""Candidate rows of a shard and their features, without a loop over videos.

Rows are looked up in tables [N, C + 1], whose last column takes the padding (class -1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yt8m_tf.score_shards.reading import ShardScores
from yt8m_tf.stacking.settings import StackConfig


def candidates(scores: Sequence[ShardScores], top: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes that are among the highest of at least one model.

    Args:
      scores: scores of the models that may name candidates, for the same N videos in the same order.
      top: the number of classes from each model.
      num_classes: C.

    Returns:
      [R] int32, the index of each row's video, ascending; and [R] int32 class ids, ascending within a video.
    """
    num_videos = len(scores[0].ids)
    chosen = np.zeros((num_videos, num_classes + 1), bool)
    rows = np.arange(num_videos)[:, None]
    for model in scores:
        chosen[rows, model.classes[:, :top]] = True
    videos, classes = np.nonzero(chosen[:, :num_classes])
    return videos.astype(np.int32), classes.astype(np.int32)


def feature_names(models: Sequence[str], config: StackConfig) -> list[str]:
    """Returns the names of the columns of `features`, in order."""
    ranks = [f"rank of {name}" for name in models] if config.ranks else []
    return [*models, *ranks, *(["mean", "maximum", "models"] if config.aggregates else [])]


def features(
    scores: Sequence[ShardScores], videos: np.ndarray, classes: np.ndarray, num_classes: int, config: StackConfig
) -> np.ndarray:
    """Returns the features of candidate rows, without the class id.

    Args:
      scores: scores of all M models, for the same N videos in the same order.
      videos, classes: [R], see `candidates`.
      num_classes: C.
      config: chooses the columns.

    Returns:
      [R, F] float16, with the columns of `feature_names`: each model's score, NaN if it does not list the class, then
      the columns that `config` adds. Float16 represents all of them exactly except the mean.
    """
    num_models, num_rows = len(scores), len(videos)
    slots = np.full((len(scores[0].ids), num_classes + 1), -1, np.int32)
    slots[videos, classes] = np.arange(num_rows, dtype=np.int32)
    # Column-major while it is filled, so that each model's column is contiguous.
    columns = np.full((num_models * (2 if config.ranks else 1), num_rows), np.nan, np.float16)
    numbers = np.arange(len(scores[0].ids))[:, None]
    for model, (column, given) in enumerate(zip(columns, scores, strict=False)):
        rows = slots[numbers, given.classes]  # [N, K]
        listed = rows >= 0
        column[rows[listed]] = given.scores[listed]
        if config.ranks:
            ranks = np.broadcast_to(np.arange(1, rows.shape[1] + 1, dtype=np.float16), rows.shape)
            columns[num_models + model][rows[listed]] = ranks[listed]
    if not config.aggregates:
        return np.ascontiguousarray(columns.T)
    return np.ascontiguousarray(np.concatenate([columns, aggregates(columns[:num_models])]).T)


def aggregates(scores: np.ndarray) -> np.ndarray:
    """Maps scores [M, R], NaN if unlisted, to [3, R] float16: mean, maximum, number of models that list the class."""
    own = scores.astype(np.float32)
    missing = np.isnan(own)
    filled = np.where(missing, np.float32(0), own)
    count = len(own) - missing.sum(axis=0)
    return np.stack([filled.mean(axis=0), filled.max(axis=0), count]).astype(np.float16)
