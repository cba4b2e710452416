"""A simple implementation of the metrics: video by video, with Python's heaps and lists."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import heapq
from collections.abc import Callable, Sequence

import numpy as np

TOP_K = 20

# Maps scores [C] and k to (score, class id) of the k highest, highest first.
TopPairs = Callable[[np.ndarray, int], list[tuple[float, int]]]


def heap_top(scores: np.ndarray, k: int) -> list[tuple[float, int]]:
    """Finds the highest scores with a heap."""
    return heapq.nlargest(k, zip(scores.tolist(), range(len(scores)), strict=True))


def numpy_top(scores: np.ndarray, k: int) -> list[tuple[float, int]]:
    """Finds the highest scores by partitioning the array; only these are sorted."""
    classes = np.argpartition(scores, -k)[-k:]
    return sorted(zip(scores[classes].tolist(), classes.tolist(), strict=True), reverse=True)


class HeapEvaluator:
    """Computes GAP@20, Hit@1, PERR and mAP.

    Args:
      num_classes: C.
      top: finds the highest scores of a video.
    """

    def __init__(self, num_classes: int, top: TopPairs = heap_top):
        self._top = top
        self._pairs: list[tuple[float, bool]] = []  # a heap of (-score, is a label): negatives first among equals
        self._class_pairs: list[list[tuple[float, bool]]] = [[] for _ in range(num_classes)]
        self._num_positives = np.zeros(num_classes, np.int64)
        self._num_videos, self._hits_at_1, self._perr = 0, 0, 0.0

    def update(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch: scores [B, C] float32 and labels [B, C] bool."""
        self._num_positives += labels.sum(axis=0)
        for row, row_labels in zip(scores, labels, strict=True):
            num_labels = int(row_labels.sum())
            top = self._top(row, max(TOP_K, num_labels))
            hits = [bool(row_labels[index]) for _, index in top]
            self._num_videos += 1
            self._hits_at_1 += hits[0]
            self._perr += sum(hits[:num_labels]) / num_labels if num_labels else 0.0
            for (score, index), hit in zip(top[:TOP_K], hits, strict=False):
                heapq.heappush(self._pairs, (-score, hit))
                heapq.heappush(self._class_pairs[index], (-score, hit))

    def result(self) -> dict[str, float]:
        """Returns the metrics, by the names of `metrics.Metrics.scalars`."""
        positives = self._num_positives.tolist()
        precisions = [_average_precision(p, n) for p, n in zip(self._class_pairs, positives, strict=True) if n]
        return {
            "gap_at_20": _average_precision(self._pairs, sum(positives)),
            "hit_at_1": self._hits_at_1 / self._num_videos,
            "perr": self._perr / self._num_videos,
            "map": sum(precisions) / len(precisions),
        }


def _average_precision(pairs: Sequence[tuple[float, bool]], num_positives: int) -> float:
    total, found = 0.0, 0
    for rank, (_, hit) in enumerate(sorted(pairs), start=1):
        if hit:
            found += 1
            total += found / rank
    return total / num_positives
