"""GAP@20, Hit@1, PERR, mAP, BCE and calibration in one pass, from 20 pairs per video and a few sums.

`batch_statistics` reduces a batch of logits on the device. `MetricAccumulator` collects the results on the host and
computes `Metrics`. Rankings are sorted by integer keys and summed in float64, so that GAP and mAP depend only on the
set of videos, not on their order, the batch size, or their distribution over workers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from yt8m_tf.errors import InputError
from yt8m_tf.metrics.batch_statistics import (
    NUM_BINS,
    SUMS,
    TOP_K,
)
from yt8m_tf.metrics.bootstrap import Interval, RankedVideos, gap_interval
from yt8m_tf.metrics.thresholds import BestThresholds, best_thresholds

# Display names of `Metrics.scalars`.
TITLES = {
    "gap_at_20": "GAP@20",
    "hit_at_1": "Hit@1",
    "perr": "PERR",
    "map": "mAP",
    "bce": "BCE",
    "calibration_error": "Calibration error",
}

# Thresholds of `Metrics.pairs_above`: evenly spaced from 0 to 1, both included.
NUM_THRESHOLDS = 201


@dataclasses.dataclass(frozen=True, eq=False)
class Metrics:
    """The metrics of one evaluation; all are shares between 0 and 1 except `bce`.

    If only the highest scores of a model are known (`top_score_statistics`), `bce` and `calibration_error` are NaN and
    `calibration` is 0, and `perr` is NaN if a video has more labels than it has scores.

    Attributes:
      gap: GAP@20. Each video's 20 highest scores are pooled and ranked; the precision at the ranks of the positives is
        summed and divided by the number of all labels, including labels outside a top 20. So a single video with 25
        labels, ranked perfectly, gets 0.8. See https://www.kaggle.com/c/youtube8m-2018/overview/evaluation.
      hit_at_1: share of videos whose class with the highest score is a label.
      perr: for a video with n labels, the share of labels among its n classes with the highest scores, 0 if n = 0;
        the mean over videos.
      map: mean of `average_precision` over the classes that have positives.
      bce: mean binary cross-entropy over videos and classes, in nats.
      calibration_error: expected calibration error of all videos and classes, over 15 bins of equal width.
      num_videos: videos evaluated.
      num_labels: number of their labels, P in GAP.
      average_precision: [C] float64, from the same 20 pairs per video, over all positives of the class; NaN for classes
        without positives.
      num_positives: [C] int64.
      calibration: [3, 15] float64: per bin, the number of pairs, the sum of their scores, and the number of positives.
      pairs_above: [2, 201] int64: of the pairs that GAP ranks, how many positives and how many others have a score of
        at least i / 200. Together with `num_labels` they give the precision-recall curve, whose area approximates GAP.
      thresholds: those of the best F1, if requested.
      videos: the pairs from which GAP was computed, for intervals.
    """

    BEST_BY: ClassVar[str] = "gap_at_20"

    gap: float
    hit_at_1: float
    perr: float
    map: float
    bce: float
    calibration_error: float
    num_videos: int
    num_labels: int
    average_precision: np.ndarray
    num_positives: np.ndarray
    calibration: np.ndarray
    pairs_above: np.ndarray
    thresholds: BestThresholds | None = None
    videos: RankedVideos | None = None

    @functools.cached_property
    def gap_interval(self) -> Interval | None:
        """The bootstrap interval of `gap` over videos, computed on first access; None if `videos` is None."""
        return None if self.videos is None else gap_interval(self.videos)

    def scalars(self) -> dict[str, float]:
        """Returns the known metrics, by their names in logs and files."""
        names = {"gap_at_20": self.gap, "hit_at_1": self.hit_at_1, "perr": self.perr, "map": self.map, "bce": self.bce}
        names["calibration_error"] = self.calibration_error
        return {name: value for name, value in names.items() if not math.isnan(value)}

    def counts(self) -> dict[str, int]:
        """Returns the numbers of videos and labels, by the keys of `metrics.json`."""
        return {"num_videos": self.num_videos, "num_labels": self.num_labels}


class MetricAccumulator:
    """Accumulates the statistics of batches: 124 bytes per video (149 with spare capacity), and a few sums.

    A pair is a uint32 key of score and hit (`pair_keys`) and a uint16 class. Above 65,536 classes the class is a
    uint32, and a video takes 164 bytes (197). In addition to its pairs, a video has its number of labels and,
    optionally, its id.
    """

    UNIT: ClassVar[str] = "videos"

    def __init__(self, num_classes: int, width: int = TOP_K, keep_ids: bool = False) -> None:
        """Creates an empty accumulator.

        Args:
          num_classes: C.
          width: the number of pairs per video, if below 20.
          keep_ids: whether the `videos` of the result have ids. Then `update` must be given ids. `arrays` and `merge`
            do not pass them on.
        """
        width = min(width, TOP_K, num_classes)
        self._ids: list[np.ndarray] | None = [] if keep_ids else None
        self._num_labels = np.empty(0, np.uint32)
        self._keys = np.empty((0, width), np.uint32)
        self._classes = np.empty((0, width), np.uint16 if num_classes <= 2**16 else np.uint32)
        self._sums: dict[str, Any] = {name: np.float64(0) for name in SUMS}
        self._sums["calibration"] = np.zeros((3, NUM_BINS))
        self._sums["num_positives"] = np.zeros(num_classes, np.int64)

    @property
    def num_videos(self) -> int:
        """Number of videos added so far."""
        return int(self._sums["num_videos"])

    @property
    def num_examples(self) -> int:
        """Number of videos, under the name common to all accumulators."""
        return self.num_videos

    def update(self, statistics: Mapping[str, Any], ids: Sequence[str | bytes] | None = None) -> None:
        """Adds one batch.

        Args:
          statistics: a result of `batch_statistics` or `top_score_statistics`, as tensors or arrays.
          ids: the ids of the batch's B videos, for messages and `keep_ids`.

        Raises:
          InputError: a score is NaN, or the loss is not finite; the message names the video. Then nothing is added.
        """
        arrays = {name: np.asarray(value) for name, value in statistics.items()}
        if arrays["not_finite"].any():
            row = int(arrays["not_finite"].argmax())
            name = (
                f"number {self.num_videos + int(arrays['valid'][:row].sum()) + 1}"
                if ids is None
                else shown_id(ids[row])
            )
            raise InputError(
                f"video {name}: its scores are NaN or its loss is not finite; look for NaN in its features"
                " (yt8m-inspect), and in the training run for divergence"
            )
        valid = arrays["valid"]
        scores = arrays["top_scores"] if "top_scores" in arrays else sigmoid(arrays["top_logits"])
        keys = pair_keys(scores[valid], arrays["hits"][valid])
        if self._ids is not None:
            assert ids is not None
            self._ids.append(np.asarray(ids)[valid].astype(np.bytes_))
        sums = {name: arrays[name] for name in SUMS}
        self._add(keys, arrays["top_classes"][valid], arrays["num_labels"][valid], sums)

    def merge(self, other: MetricAccumulator) -> None:
        """Adds the contents of `other`, which must have the same number of classes."""
        count = other.num_videos
        self._add(other._keys[:count], other._classes[:count], other._num_labels[:count], other._sums)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the contents as arrays, to be sent to another process.

        Returns:
          `keys` and `classes` [num_videos, k] and `num_labels` [num_videos], int32 (TensorFlow's collectives do not
          support unsigned integers); and the sums, [1, ...] each. The arrays of several workers may be concatenated
          along the first axis.
        """
        count = self.num_videos
        pairs = {"keys": self._keys[:count].view(np.int32), "classes": self._classes[:count].astype(np.int32)}
        pairs["num_labels"] = self._num_labels[:count].astype(np.int32)
        return pairs | {name: np.asarray(value)[None] for name, value in self._sums.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> MetricAccumulator:
        """Inverts `arrays`; the concatenated arrays of several workers give the accumulator of all of them."""
        result = cls(arrays["num_positives"].shape[1], arrays["keys"].shape[1])
        sums = {name: arrays[name].sum(axis=0) for name in SUMS}
        result._add(arrays["keys"].view(np.uint32), arrays["classes"], arrays["num_labels"], sums)
        return result

    def gap(self) -> float:
        """Returns GAP@20 of all videos added; NaN if none of them has a label."""
        num_labels = int(self._sums["num_positives"].sum())
        return _gap(np.sort(self._keys[: self.num_videos].ravel()), num_labels) if num_labels else math.nan

    def result(self, min_positives: int | None = None) -> Metrics:
        """Returns the metrics of all videos added.

        Args:
          min_positives: if given, also find the thresholds of the best F1 (`thresholds.best_thresholds`).

        Raises:
          InputError: there are no videos, or none of them has a label.
        """
        sums, count, positives = self._sums, self.num_videos, self._sums["num_positives"]
        num_labels = int(positives.sum())
        if not count:
            raise InputError(
                "there are no videos to evaluate; check the glob pattern of the data, and the contents of the shards"
            )
        if not num_labels:
            raise InputError(
                f"none of the {count} videos evaluated has labels; evaluate labelled shards, not the test set"
            )
        keys, classes = self._keys[:count].ravel(), self._classes[:count].ravel()
        precisions = average_precision(keys, classes, positives)
        ordered = np.sort(keys)
        pairs, scores, hits = sums["calibration"]
        return Metrics(
            gap=_gap(ordered, num_labels),
            hit_at_1=float(sums["hit_at_1"] / count),
            perr=float(sums["perr"] / count),
            map=float(np.nanmean(precisions)),
            bce=float(sums["bce"] / count),
            calibration_error=float(np.abs(scores - hits).sum() / pairs.sum()) if pairs.any() else math.nan,
            num_videos=count,
            num_labels=num_labels,
            average_precision=precisions,
            num_positives=positives.copy(),
            calibration=sums["calibration"].copy(),
            pairs_above=_pairs_above(ordered),
            thresholds=best_thresholds(keys, classes, positives, min_positives) if min_positives else None,
            videos=RankedVideos(
                self._keys[:count], self._num_labels[:count], np.concatenate(self._ids) if self._ids else None
            ),
        )

    def _add(self, keys: np.ndarray, classes: np.ndarray, num_labels: np.ndarray, sums: Mapping[str, Any]) -> None:
        start = self.num_videos
        end = start + len(keys)
        if end > len(self._keys):
            # Growing by a fifth is a compromise between the number of copies and spare capacity.
            capacity = max(end, len(self._keys) * 6 // 5)
            self._keys = _grow(self._keys[:start], capacity)
            self._classes = _grow(self._classes[:start], capacity)
            self._num_labels = _grow(self._num_labels[:start], capacity)
        self._keys[start:end] = keys
        self._classes[start:end] = classes
        self._num_labels[start:end] = num_labels
        self._sums = {name: value + sums[name] for name, value in self._sums.items()}


def global_average_precision(scores: np.ndarray, hits: np.ndarray, num_positives: int) -> float:
    """Computes GAP of pooled pairs, in float64.

    Among equal scores, negatives rank first, so the result depends only on the set of pairs, and a model gains nothing
    from ties. A score of 0 counts like any other.

    Args:
      scores: each video's highest scores, of any shape, not negative; taken as float32.
      hits: bool, of the same shape: whether the pair's class is a label of its video.
      num_positives: number of labels of all videos, including labels outside the pairs; positive.

    Raises:
      ValueError: a score is negative or NaN.
    """
    scores = np.asarray(scores, np.float32)
    if not (scores >= 0).all():
        raise ValueError("scores must be 0 or more, and not NaN")
    return _gap(np.sort(pair_keys(scores, np.asarray(hits, bool)).ravel()), num_positives)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Computes float32 scores of logits of any shape, rounded once, so that equal logits have equal scores."""
    with np.errstate(over="ignore"):  # exp of a large number is inf, and the score 0
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def pair_keys(scores: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Encodes scores and hits as uint32 keys; in descending order, pairs rank by score, negatives first among equals.

    The bits of non-negative floats have the same order as the floats. The shift drops the sign bit, even that of -0.
    """
    return (np.ascontiguousarray(scores).view(np.uint32) << 1) | ~hits


def _gap(ordered: np.ndarray, num_positives: int) -> float:
    """Computes GAP from pairs' keys in ascending order."""
    misses = ordered[::-1] & 1
    ranks = np.flatnonzero(misses == 0) + 1.0
    return float((np.arange(1, len(ranks) + 1) / ranks).sum() / num_positives)


def _pairs_above(ordered: np.ndarray) -> np.ndarray:
    """Computes `Metrics.pairs_above` from pairs' keys in ascending order."""
    exact = np.arange(NUM_THRESHOLDS) / (NUM_THRESHOLDS - 1)
    thresholds = exact.astype(np.float32)
    # Rounding to float32 must not move a threshold below its exact value.
    thresholds = np.where(thresholds < exact, np.nextafter(thresholds, np.float32(2)), thresholds)
    lowest = thresholds.view(np.uint32) << 1  # key of a hit, which is lower than that of a miss of the same score
    hit_keys = ordered[(ordered & 1) == 0]
    hits, pairs = (len(keys) - np.searchsorted(keys, lowest) for keys in (hit_keys, ordered))
    return np.stack([hits, pairs - hits])


def average_precision(keys: np.ndarray, classes: np.ndarray, num_positives: np.ndarray) -> np.ndarray:
    """Computes the average precision of each class, with one sort of all pairs.

    Args:
      keys: [N] uint32, `pair_keys`.
      classes: [N] integers below C.
      num_positives: [C] integers, all positives of each class, including those that are not among the pairs.

    Returns:
      [C] float64; NaN where `num_positives` is 0.
    """
    num_classes = len(num_positives)
    # Ascending by class, then descending by key; the lowest bit is now 1 for a hit.
    ordered = np.sort((classes.astype(np.uint64) << 32) | ~keys)
    positions = np.flatnonzero(ordered & 1)
    owners = (ordered[positions] >> 32).astype(np.int64)
    first_pair = np.searchsorted(ordered, np.arange(num_classes, dtype=np.uint64) << 32)  # [C]
    first_hit = np.searchsorted(owners, np.arange(num_classes))  # [C]
    precision = (np.arange(1, len(owners) + 1) - first_hit[owners]) / (positions + 1 - first_pair[owners])
    sums = np.bincount(owners, precision, minlength=num_classes)
    return np.divide(sums, num_positives, out=np.full(num_classes, np.nan), where=num_positives > 0)


def _grow(array: np.ndarray, capacity: int) -> np.ndarray:
    grown = np.empty((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def shown_id(video_id: str | bytes) -> str:
    """Returns an id as text for a message."""
    return video_id.decode(errors="replace") if isinstance(video_id, bytes) else str(video_id)
