"""For each class the score from which on predicting it gives the best F1, from the pairs that GAP@20 ranks.

A pair beyond a video's 20 highest scores counts as not predicted, as in everything that yt8m-infer writes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

MIN_POSITIVES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class BestThresholds:
    """The thresholds of C classes and the counts that they rest on.

    Attributes:
      scores: [C] float32; a class is predicted for a video where its score is this or more.
      own: [C] bool, whether the threshold is the best of the class itself; else it is `shared`.
      shared: the threshold that gives the best F1 of all pairs of all classes together.
      num_positives: [C] int64, the videos of each class.
      num_predicted: [C] int64, the videos that it is predicted for with its threshold.
      num_correct: [C] int64, those of them that are of the class.
    """

    scores: np.ndarray
    own: np.ndarray
    shared: float
    num_positives: np.ndarray
    num_predicted: np.ndarray
    num_correct: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """[C] float64: 2 correct / (predicted + positives); 0 where both are 0."""
        total = self.num_predicted + self.num_positives
        return 2 * self.num_correct / np.maximum(total, 1)


def best_thresholds(
    keys: np.ndarray, classes: np.ndarray, num_positives: np.ndarray, min_positives: int = MIN_POSITIVES
) -> BestThresholds:
    """The thresholds of the best F1.

    A threshold lies halfway between the lowest score that is predicted and the next one below it, and of several equal
    F1 the highest one is taken. A class of fewer than `min_positives` positives, or of none among the pairs, shares one
    threshold with the others of its kind: that of the best F1 of all pairs.

    Beside the pairs it needs 400 bytes a video of 20 pairs, while it runs.

    Args:
      keys: [N] uint32, the pairs' scores and whether they miss, as `accumulator` packs them; not changed.
      classes: [N] unsigned integers, the pairs' classes.
      num_positives: [C] int64, all positives, those without a pair included; not all 0.
      min_positives: positives that a threshold of a class's own must rest on, at least 1.
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
    """The best threshold of pairs of inverted keys [N] in ascending order; how many it predicts, how many rightly."""
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
    """The scores of inverted keys [N] uint32: float32."""
    return (~inverted >> 1).astype(np.uint32).view(np.float32)
