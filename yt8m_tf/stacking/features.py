"""Candidate rows of a shard and their features, without a loop over videos.

A table [N, C + 1] takes part in everything: its last column is where padding (class -1) goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yt8m_tf.score_shards.reading import ShardScores
from yt8m_tf.stacking.settings import StackConfig


def candidates(scores: Sequence[ShardScores], top: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes that are among the highest of at least one model.

    Args:
      scores: of the models that may name candidates, for the same N videos in the same order.
      top: how many classes of each model.
      num_classes: C.

    Returns:
      [R] int32 number of the video of each row, ascending, and [R] int32 class ids, ascending within a video.
    """
    num_videos = len(scores[0].ids)
    chosen = np.zeros((num_videos, num_classes + 1), bool)
    rows = np.arange(num_videos)[:, None]
    for model in scores:
        chosen[rows, model.classes[:, :top]] = True
    videos, classes = np.nonzero(chosen[:, :num_classes])
    return videos.astype(np.int32), classes.astype(np.int32)


def feature_names(models: Sequence[str], config: StackConfig) -> list[str]:
    """The columns of `features`, in order."""
    ranks = [f"rank of {name}" for name in models] if config.ranks else []
    return [*models, *ranks, *(["mean", "maximum", "models"] if config.aggregates else [])]


def features(
    scores: Sequence[ShardScores], videos: np.ndarray, classes: np.ndarray, num_classes: int, config: StackConfig
) -> np.ndarray:
    """The features of candidate rows, but for the class id.

    Args:
      scores: of all M models, for the same N videos in the same order.
      videos, classes: [R], see `candidates`.
      num_classes: C.
      config: which columns.

    Returns:
      [R, F] float16 as `feature_names`: each model's score, NaN where it does not list the class; then what `config`
      adds. Float16 holds all of them exactly but the mean.
    """
    num_models, num_rows = len(scores), len(videos)
    slots = np.full((len(scores[0].ids), num_classes + 1), -1, np.int32)
    slots[videos, classes] = np.arange(num_rows, dtype=np.int32)
    # Columns lie one after the other in memory while they are filled.
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
    """[M, R] scores, NaN where a class is not listed -> [3, R] float16: mean, maximum, models that do."""
    own = scores.astype(np.float32)
    missing = np.isnan(own)
    filled = np.where(missing, np.float32(0), own)
    count = len(own) - missing.sum(axis=0)
    return np.stack([filled.mean(axis=0), filled.max(axis=0), count]).astype(np.float16)
