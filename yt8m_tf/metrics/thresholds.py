"""Thresholds of scores with the best F1 for each class, computed from the pairs that GAP@20 ranks.

Pairs outside a video's 20 highest scores count as not predicted, as in all outputs of yt8m-infer.
"""

from __future__ import annotations

import dataclasses

import numpy as np

MIN_POSITIVES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class BestThresholds:
    """Thresholds of C classes, and the counts from which they are computed.

    Attributes:
      scores: [C] float32; a class is predicted for a video if its score is at least its threshold.
      own: [C] bool, whether the threshold is the best one of the class itself; otherwise it is `shared`.
      shared: the threshold with the best F1 over the pairs of all classes.
      num_positives: [C] int64, number of videos of each class.
      num_predicted: [C] int64, number of videos for which the class is predicted.
      num_correct: [C] int64, number of these videos that have the class.
    """

    scores: np.ndarray
    own: np.ndarray
    shared: float
    num_positives: np.ndarray
    num_predicted: np.ndarray
    num_correct: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """[C] float64: 2 correct / (predicted + positives); 0 if both are 0."""
        total = self.num_predicted + self.num_positives
        return 2 * self.num_correct / np.maximum(total, 1)


def best_thresholds(
    keys: np.ndarray, classes: np.ndarray, num_positives: np.ndarray, min_positives: int = MIN_POSITIVES
) -> BestThresholds:
    """Computes the thresholds with the best F1.

    A threshold is halfway between the lowest predicted score and the next lower score. If several thresholds have the
    best F1, the highest is used. Classes with fewer than `min_positives` positives, or with none among the pairs, share
    the threshold with the best F1 over all pairs.

    Memory: 400 bytes per video with 20 pairs, in addition to the pairs.

    Args:
      keys: [N] uint32, keys of pairs (`accumulator.pair_keys`); not changed.
      classes: [N] unsigned integers, classes of the pairs.
      num_positives: [C] int64, all positives, including those that are not among the pairs; not all 0.
      min_positives: the number of positives that a class needs for its own threshold, at least 1.
    """
    num_classes = len(num_positives)
    shared = _best(np.sort(~keys), int(num_positives.sum()))[0]
    ordered = classes.astype(np.uint64)
    ordered <<= np.uint64(32)
    ordered |= ~keys
    ordered.sort()  # by class, then highest score first
    borders = np.searchsorted(ordered, np.arange(num_classes + 1, dtype=np.uint64) << np.uint64(32))
    scores = np.full(num_classes, shared, np.float32)
    own = np.zeros(num_classes, bool)
    predicted, correct = np.zeros((2, num_classes), np.int64)
    for index in np.flatnonzero(np.diff(borders)):
        pairs = ordered[borders[index] : borders[index + 1]].astype(np.uint32)
        hits = int(np.count_nonzero(pairs & 1))
        if hits and num_positives[index] >= min_positives:
            scores[index], predicted[index], correct[index] = _best(pairs, int(num_positives[index]))
            own[index] = True
        else:
            reached = _scores(pairs) >= scores[index]
            predicted[index] = np.count_nonzero(reached)
            correct[index] = np.count_nonzero(reached & (pairs & 1).astype(bool))
    return BestThresholds(scores, own, float(shared), num_positives.copy(), predicted, correct)


def _best(inverted: np.ndarray, num_positives: int) -> tuple[np.float32, int, int]:
    """Returns the best threshold for inverted keys [N] in ascending order, and its numbers of predictions and hits."""
    # Candidates: the last pair of each score.
    last = np.flatnonzero(np.append(inverted[1:] >> 1 != inverted[:-1] >> 1, True))
    hits = np.cumsum(inverted & 1, dtype=np.uint32)[last]
    best = int(np.argmax(2.0 * hits / (last + (1.0 + num_positives))))
    score = _scores(inverted[last[best : best + 1]])[0]
    if best + 1 < len(last):
        below = _scores(inverted[last[best + 1 : best + 2]])[0]
        halfway = np.float32((float(score) + float(below)) / 2)
        score = halfway if halfway > below else score
    return score, int(last[best]) + 1, int(hits[best])


def _scores(inverted: np.ndarray) -> np.ndarray:
    """Returns the scores of inverted keys, [N] uint32, as float32."""
    return (~inverted >> 1).astype(np.uint32).view(np.float32)
