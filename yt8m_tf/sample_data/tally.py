"""The best reachable GAP of a split of the sample data, and its label statistics, in NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def top_pairs(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 20 highest of the scores [N, C] of each video, and whether each is a label; both [N * 20]."""
    columns = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    return np.take_along_axis(scores, columns, axis=1).ravel(), np.take_along_axis(labels, columns, axis=1).ravel()


def global_average_precision(scores: np.ndarray, hits: np.ndarray, num_positives: int) -> float:
    """Computes GAP of pooled pairs, in float64; equal scores share the rank of the last of them.

    Args:
      scores, hits: [M], see `top_pairs`.
      num_positives: number of labels of all videos, including those outside the top 20.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    ranks = np.searchsorted(-scores, -scores, side="right")  # [M] pairs with at least this score
    precision = np.cumsum(hits)[ranks - 1] / ranks
    return float(precision[hits].sum() / num_positives)


class Tally:
    """Counts the labels of a split, and collects the 20 highest pairs of each video for its GAPs.

    Args:
      num_classes: C.

    Attributes:
      num_videos: number of videos of the split.
      class_counts: [C], number of videos with each class.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_videos = 0
        self.class_counts = np.zeros(num_classes, np.int64)
        self._pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> None:
        """Adds the labels [N, C] of a shard, and the best scores [N, C] by level; "prior" is the class prior."""
        self.num_videos += len(labels)
        self.class_counts += labels.sum(axis=0)
        for key, values in scores.items():
            self._pairs.setdefault(key, []).append(top_pairs(values, labels))

    def statistics(self) -> dict[str, float]:
        """Returns the numbers of videos, of labels per video, and of classes with videos."""
        labels = int(self.class_counts.sum())
        classes = int(np.count_nonzero(self.class_counts))
        mean = labels / max(self.num_videos, 1)
        return {"num_videos": self.num_videos, "labels_per_video": mean, "classes_with_videos": classes}

    def gaps(self) -> dict[str, float]:
        """Returns GAP by level; empty for a split without videos."""
        return {key: self._gap(key) for key in self._pairs if key != "prior"}

    def prior_gap(self) -> float | None:
        """Returns GAP of the class prior; None for a split without videos."""
        return self._gap("prior") if self._pairs else None

    def _gap(self, key: str) -> float:
        scores, hits = (np.concatenate(parts) for parts in zip(*self._pairs[key], strict=True))
        return global_average_precision(scores, hits, int(self.class_counts.sum()))
