"""GAP@20 of float16 scores in constant memory.

A float16 probability is one of 15,361 values, so the pooled list of GAP reduces to two counts for each value.
"""

from __future__ import annotations

import numpy as np

from yt8m_tf.metrics.batch_statistics import TOP_K

_ONE = int(np.float16(1).view(np.uint16))


class GapHistogram:
    """Accumulates each video's highest scores, and computes exactly the GAP of `global_average_precision`."""

    def __init__(self) -> None:
        self._misses = np.zeros(_ONE + 1, np.int64)
        self._hits = np.zeros(_ONE + 1, np.int64)
        self.num_labels = 0

    def add(self, scores: np.ndarray, hits: np.ndarray, num_labels: int) -> None:
        """Adds pairs of videos.

        Args:
          scores: float16 in [0, 1], any shape: the 20 highest of each video.
          hits: bool, of the same shape: whether the class of each score is a label.
          num_labels: number of all labels of these videos.
        """
        keys = scores.astype(np.float16).ravel().view(np.uint16)  # in the order of the scores
        hits = hits.ravel()
        self._hits += np.bincount(keys[hits], minlength=_ONE + 1)
        self._misses += np.bincount(keys[~hits], minlength=_ONE + 1)
        self.num_labels += num_labels

    def merge(self, other: GapHistogram) -> None:
        """Adds the counts of another histogram."""
        self._hits += other._hits
        self._misses += other._misses
        self.num_labels += other.num_labels

    def gap(self) -> float:
        """Computes GAP@20; among equal scores misses rank first. NaN if there are no labels."""
        if not self.num_labels:
            return float("nan")
        total, ranked, found = 0.0, 0, 0
        for key in np.flatnonzero(self._hits + self._misses)[::-1]:
            ranked += self._misses[key]
            hits = int(self._hits[key])
            steps = np.arange(1, hits + 1)
            total += float(((found + steps) / (ranked + steps)).sum())
            ranked, found = ranked + hits, found + hits
        return total / self.num_labels


def top_pairs(
    videos: np.ndarray, classes: np.ndarray, scores: np.ndarray, top_k: int = TOP_K
) -> tuple[np.ndarray, np.ndarray]:
    """Selects the highest rows of each video.

    Args:
      videos: [R], the index of each row's video, ascending.
      classes: [R] class ids.
      scores: [R] float16, higher is better; equal ones rank by lower class id.
      top_k: the largest number of rows of a video.

    Returns:
      [r] indices of rows, by video and rank; [r] ranks, from 0.
    """
    # The bits of non-negative floats have the order of the floats, so one integer sorts by video, score and class.
    descending = np.uint64(0xFFFF) - scores.astype(np.float16).view(np.uint16)
    keys = (videos.astype(np.uint64) << np.uint64(32)) | (descending << np.uint64(16)) | classes.astype(np.uint64)
    order = np.argsort(keys)
    first = np.searchsorted(videos, videos)  # the first row of each row's video
    ranks = np.arange(len(videos)) - first  # of the sorted rows: sorting keeps each video's rows in the same range
    kept = ranks < top_k
    return order[kept], ranks[kept]
