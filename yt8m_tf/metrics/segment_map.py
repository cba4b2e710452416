"""MAP@K of the segments of each class, and the K best segments of each class in bounded memory, with NumPy only.

Callers number the segments. Whether an unrated (segment, class) pair is correct is unknown: it counts towards the K of
its class, and is then left out of the ranking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

MAX_SEGMENTS = 100_000  # K of the 2019 challenge
_SPARE = 8  # a class has space for K / _SPARE additional pairs, so that pairs are dropped in bulk


@dataclasses.dataclass(frozen=True)
class ClassRatings:
    """The rated segments of one class.

    Attributes:
      segments: [M] int64, ascending, each once.
      present: [M] bool, whether the class was rated present.
    """

    segments: np.ndarray
    present: np.ndarray

    @property
    def num_positives(self) -> int:
        """The number of segments in which the class was rated present."""
        return int(np.count_nonzero(self.present))

    def hits(self, ranked: np.ndarray) -> np.ndarray:
        """Returns whether the class is present, for each rated segment of a ranked list; others are left out.

        Args:
          ranked: [N] int, segments, each once.

        Returns:
          [R] bool, R at most M.
        """
        places = np.minimum(np.searchsorted(self.segments, ranked), len(self.segments) - 1)
        return self.present[places[self.segments[places] == ranked]]


def ratings_by_class(segments: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> dict[int, ClassRatings]:
    """Groups ratings by class.

    Args:
      segments, classes: [N] int, the rated pairs; if a pair occurs several times, the mean rating counts.
      scores: [N] ratings from 0 (absent) to 1 (present); a class is present if its rating is at least 0.5.
    """
    if not len(segments):
        return {}
    order = np.lexsort((segments, classes))
    segments, classes, scores = np.asarray(segments, np.int64)[order], np.asarray(classes)[order], scores[order]
    differs = (segments[1:] != segments[:-1]) | (classes[1:] != classes[:-1])
    first = np.flatnonzero(np.concatenate([[True], differs]))
    sums = np.add.reduceat(scores.astype(np.float64), first)
    present = sums / np.diff([*first, len(segments)]) >= 0.5
    found, starts = np.unique(classes[first], return_index=True)
    parts = zip(found.tolist(), np.split(segments[first], starts[1:]), np.split(present, starts[1:]), strict=True)
    return {class_id: ClassRatings(own, hits) for class_id, own, hits in parts}


@dataclasses.dataclass(frozen=True)
class SegmentMap:
    """The result of `mean_average_precision`.

    Attributes:
      average_precision: AP of every class with a positive rating, in [0, 1]; 0 for classes without a list.
      listed: the classes of `average_precision` that have a list.
      num_rated: number of rated pairs of these classes in the lists.
    """

    average_precision: Mapping[int, float]
    listed: frozenset[int]
    num_rated: int

    @property
    def mean(self) -> float:
        """The mean over all classes with a positive rating."""
        return float(np.mean(list(self.average_precision.values())))

    @property
    def mean_of_listed(self) -> float:
        """The mean over classes with a list and a positive rating, as in the starter code; 0 if there are none."""
        return float(np.mean([self.average_precision[own] for own in sorted(self.listed)])) if self.listed else 0.0


def average_precision(hits: np.ndarray, num_positives: int) -> float:
    """Computes the sum of the precision at every hit, divided by the number of all positives.

    Args:
      hits: [R] bool, for the rated segments, best first.
      num_positives: at least 1.
    """
    ranks = np.flatnonzero(hits) + 1
    return float(np.sum(np.arange(1, len(ranks) + 1) / ranks) / num_positives)


def mean_average_precision(
    lists: Iterable[tuple[int, np.ndarray]], ratings: Mapping[int, ClassRatings], k: int = MAX_SEGMENTS
) -> SegmentMap:
    """Computes MAP@K: the mean over classes of the average precision of the rated pairs among a list's first K.

    Classes without a positive rating are left out, whether or not they have a list.

    Args:
      lists: classes, each once, with their segments [N] int, best first, each once; they are read one at a time.
      ratings: ratings by class.
      k: K.

    Raises:
      ValueError: no class has a positive rating.
    """
    positives = {class_id: own for class_id, own in ratings.items() if own.num_positives}
    if not positives:
        raise ValueError("no class has a positive rating")
    found = dict.fromkeys(positives, 0.0)
    listed, num_rated = set(), 0
    for class_id, ranked in lists:
        if (own := positives.get(class_id)) is not None:
            listed.add(class_id)
            hits = own.hits(ranked[:k])
            num_rated += len(hits)
            found[class_id] = average_precision(hits, own.num_positives)
    return SegmentMap(found, frozenset(listed), num_rated)


class TopSegments:
    """Collects the K segments of each class with the highest scores.

    Equal scores rank in the order in which they were added, so lists do not depend on the division into calls.

    A pair takes 8 bytes, and a class has at most 9 / 8 K pairs: at most 0.9 GB for 1,000 classes and K = 100,000,
    regardless of the number of segments. Memory grows with the pairs up to this limit (docs/BENCHMARKS.md).

    Args:
      num_classes: C.
      k: K.
    """

    def __init__(self, num_classes: int, k: int = MAX_SEGMENTS) -> None:
        self.k = k
        self._capacity = k + max(k // _SPARE, 1)
        # One growing array per class: with a single array, huge pages would allocate all memory at once.
        self._scores = [np.empty(0, np.float32)] * num_classes
        self._segments = [np.empty(0, np.int32)] * num_classes
        self._counts = np.zeros(num_classes, np.int64)
        self._floor = np.full(num_classes, -np.inf, np.float32)  # only higher scores are kept

    def add(self, segments: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> None:
        """Adds (segment, class) pairs; no pair may be added twice.

        Args:
          segments: [N] int, from 0 to below 2 ** 31.
          classes: [N] int, from 0 to below C.
          scores: [N] float32, finite.
        """
        keep = np.flatnonzero(scores > self._floor[classes])
        # Small integers sort faster (docs/BENCHMARKS.md).
        classes = classes[keep].astype(np.uint16 if len(self._counts) <= 1 << 16 else np.int64)
        order = np.argsort(classes, kind="stable")
        segments, classes, scores = segments[keep][order], classes[order], scores[keep][order]
        found, starts = np.unique(classes, return_index=True)
        stops = [*starts.tolist(), len(classes)][1:]
        for class_id, start, stop in zip(found.tolist(), starts.tolist(), stops, strict=True):
            self._append(class_id, segments[start:stop], scores[start:stop])

    def ranked(self, class_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a class's best segments, [N] int32, and their scores, [N] float32, highest first, with N <= K."""
        count = self._counts[class_id]
        segments, scores = self._segments[class_id][:count], self._scores[class_id][:count]
        order = np.argsort(-scores, kind="stable")[: self.k]
        return segments[order], scores[order]

    def _append(self, class_id: int, segments: np.ndarray, scores: np.ndarray) -> None:
        while len(segments):
            count = int(self._counts[class_id])
            taken = min(self._capacity - count, len(segments))
            self._grow(class_id, count, count + taken)
            self._segments[class_id][count : count + taken] = segments[:taken]
            self._scores[class_id][count : count + taken] = scores[:taken]
            self._counts[class_id] = count + taken
            segments, scores = segments[taken:], scores[taken:]
            if count + taken == self._capacity:
                self._drop(class_id)

    def _grow(self, class_id: int, count: int, wanted: int) -> None:
        """Makes room for `wanted` pairs of a class that has `count`."""
        if wanted > len(self._scores[class_id]):
            more = min(wanted + wanted // 2, self._capacity) - count
            self._scores[class_id] = np.append(self._scores[class_id][:count], np.empty(more, np.float32))
            self._segments[class_id] = np.append(self._segments[class_id][:count], np.empty(more, np.int32))

    def _drop(self, class_id: int) -> None:
        """Keeps the K best pairs of a class that is full, in the order in which they were added."""
        segments, scores = self._segments[class_id], self._scores[class_id]
        kth = np.partition(scores, len(scores) - self.k)[len(scores) - self.k]
        keep = scores > kth
        keep[np.flatnonzero(scores == kth)[: self.k - np.count_nonzero(keep)]] = True
        segments[: self.k], scores[: self.k] = segments[keep], scores[keep]
        self._counts[class_id], self._floor[class_id] = self.k, kth
