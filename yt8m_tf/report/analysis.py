"""Analyses of predictions beyond the metrics: precision-recall curve, confusions, example videos, ensembles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from yt8m_tf import schema
from yt8m_tf.console.progress import Progress
from yt8m_tf.metrics.accumulator import global_average_precision, pair_keys
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.metrics.bootstrap import Interval, RankedVideos, difference_interval
from yt8m_tf.metrics.gap_histogram import GapHistogram
from yt8m_tf.report.predictions import Predictions
from yt8m_tf.stacking import means
from yt8m_tf.stacking.evaluation import add_rows
from yt8m_tf.stacking.rows import load_rows


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of the 20 highest scores of all videos, pooled and ranked.

    Attributes:
      recall, precision: [H], at each rank with a label; recall counts all labels, those outside the 20 included.
      thresholds: [H] the scores at these ranks.
      gap: the area under the curve, which is GAP@20.
    """

    recall: np.ndarray
    precision: np.ndarray
    thresholds: np.ndarray
    gap: float

    def at(self, threshold: float) -> tuple[float, float]:
        """Returns precision and recall of scores of at least `threshold`; NaN and 0 if no label has such a score."""
        last = int((self.thresholds >= threshold).sum()) - 1
        return (float(self.precision[last]), float(self.recall[last])) if last >= 0 else (float("nan"), 0.0)


def precision_recall(predictions: Predictions) -> Curve:
    """Computes the curve of a model; among equal scores, wrong ones rank first, as in GAP@20."""
    listed = predictions.classes[:, :TOP_K] != schema.NO_LABEL
    scores = predictions.scores[:, :TOP_K][listed].astype(np.float32)
    hits = predictions.hits(TOP_K)[listed]
    num_labels = int(predictions.num_labels.sum())
    order = np.lexsort((hits, -scores))
    ranks = np.flatnonzero(hits[order]) + 1  # of the labels
    found = np.arange(1, len(ranks) + 1)
    gap = global_average_precision(scores, hits, num_labels)
    return Curve(found / num_labels, found / ranks, scores[order][ranks - 1], gap)


def paired_interval(predictions: Predictions, others: Predictions) -> Interval | None:
    """Returns the paired interval of the difference of two models' GAP@20; None if their videos differ."""
    own, other = _ranked(predictions), _ranked(others)
    assert own.ids is not None
    joined = other.in_order_of(own.ids)
    if joined is None or (joined.num_labels != own.num_labels).any() or not own.num_labels.any():
        return None
    return difference_interval(own, joined)


def _ranked(predictions: Predictions) -> RankedVideos:
    """Converts predictions for `Interval`s; empty places of lists become wrong scores of 0, which changes nothing."""
    scores = predictions.scores[:, :TOP_K].astype(np.float32)
    return RankedVideos(
        pair_keys(scores, predictions.hits(TOP_K)),
        predictions.num_labels.astype(np.uint32),
        predictions.ids.astype(np.bytes_),
    )


def prior_gap(num_positives: Sequence[int], num_videos: int) -> float:
    """Returns GAP@20 of a model that knows only the frequencies of classes: every video gets the same 20 scores.

    Args:
      num_positives: number of labels of each class, at least 1 in all.
      num_videos: number of videos with these labels.
    """
    counts = np.sort(np.asarray(num_positives))[::-1][:TOP_K]
    rank = found = total = 0.0
    for count, classes in zip(*np.unique(-counts, return_counts=True), strict=True):
        hits = -count * classes
        rank += max(num_videos * classes - hits, 0)  # among equal scores, wrong ones rank first
        total += ((found + np.arange(1, hits + 1)) / (rank + np.arange(1, hits + 1))).sum()
        found, rank = found + hits, rank + hits
    return float(total / np.sum(num_positives))


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Videos with the label `meant` whose highest score is for the class `predicted`, which is not a label of theirs.

    Attributes:
      meant, predicted: class ids.
      count: number of such videos.
      videos: number of videos with the label `meant`.
      together: number of videos with both labels; if it is large, the two co-occur, and labels may be missing.
    """

    meant: int
    predicted: int
    count: int
    videos: int
    together: int


def confusions(predictions: Predictions, most: int) -> list[Confusion]:
    """Returns the most frequent confusions; equal counts by share of the videos of `meant`, then by class ids."""
    videos, columns = np.nonzero(predictions.labels != schema.NO_LABEL)
    labels = predictions.labels[videos, columns]
    shape = (len(predictions.ids), predictions.num_classes)
    is_label = sparse.csr_matrix((np.ones(len(labels), np.int64), (videos, labels)), shape)
    is_label.data[:] = 1  # a label that occurs twice in a record counts once
    highest = predictions.classes[:, 0]
    missed = ~predictions.hits(1)[:, 0] & (highest != schema.NO_LABEL)
    predicted = sparse.csr_matrix(
        (np.ones(int(missed.sum()), np.int64), (np.flatnonzero(missed), highest[missed])), shape
    )
    counts = (is_label.T @ predicted).tocoo()  # [C, C]
    together, totals = (is_label.T @ is_label).tocsr(), np.asarray(is_label.sum(axis=0)).ravel()
    found = [
        Confusion(int(meant), int(other), int(count), int(totals[meant]), int(together[meant, other]))
        for meant, other, count in _largest(counts, most)
    ]
    found.sort(key=lambda pair: (-pair.count, pair.videos, pair.meant, pair.predicted))
    return found[:most]


def _largest(counts: sparse.coo_matrix, most: int) -> list[tuple[int, int, int]]:
    """Returns all entries that are at least as large as the one at rank `most`."""
    if not counts.nnz:
        return []
    lowest = np.sort(counts.data)[::-1][min(most, counts.nnz) - 1]
    kept = counts.data >= lowest
    return list(zip(counts.row[kept], counts.col[kept], counts.data[kept], strict=True))


def video_average_precision(predictions: Predictions) -> np.ndarray:
    """Returns each video's average precision, [N] float64; NaN for videos without labels.

    It is the sum of the precision at the ranks of labels among the 20 highest scores, divided by min(labels, 20).
    """
    hits = predictions.hits(TOP_K)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    possible = np.minimum(predictions.num_labels, TOP_K)
    sums = (precision * hits).sum(axis=1)
    return np.divide(sums, possible, out=np.full(len(sums), np.nan), where=possible > 0)


def example_videos(predictions: Predictions, count: int, seed: int) -> dict[str, np.ndarray]:
    """Returns the rows of labelled videos to show: "best", "worst" and "random", up to `count` each.

    The best have the highest average precision, those with more labels first; the worst have the lowest, those with the
    highest wrong score first.
    """
    precision, labelled = video_average_precision(predictions), np.flatnonzero(predictions.num_labels)
    own = precision[labelled]
    best = labelled[np.lexsort((-predictions.num_labels[labelled], -own))]
    worst = labelled[np.lexsort((-predictions.scores[labelled, 0].astype(np.float32), own))]
    drawn = np.random.default_rng(seed).permutation(labelled)
    return {"best": best[:count], "worst": worst[:count], "random": drawn[:count]}


def ensemble_gaps(
    directory: Path, models: Sequence[str], gaps: Mapping[str, float], num_shards: int, progress: bool = True
) -> tuple[list[int], dict[str, list[float]]]:
    """Computes GAP@20 of the unweighted mean of 1, 2, 4, ... stacked models, from the rows that stacking kept.

    Args:
      directory: directory of the rows of a split.
      models: names of the models, in the order of the rows' columns.
      gaps: GAP@20 of each model out of fold, by which they are ordered.
      num_shards: largest number of shards to read; 0: all.
      progress: whether to show a progress bar.

    Returns:
      The sizes, and for "best first" and "worst first" GAP@20 of each.
    """
    count = len(models)
    sizes = list(range(1, count + 1)) if count <= 8 else sorted({*(2**n for n in range(count.bit_length())), count})
    best = sorted(range(count), key=lambda number: -gaps[models[number]])
    orders = {"best first": best, "worst first": best[::-1]}
    histograms = {name: [GapHistogram() for _ in sizes] for name in orders}
    paths = sorted(directory.glob("*.npz"))
    for path in Progress(
        paths[: num_shards or None], desc="ensembles", unit=" shards", disable=not progress, leave=False
    ):
        rows = load_rows(path)
        for name, order in orders.items():
            for histogram, size in zip(histograms[name], sizes, strict=True):
                add_rows(histogram, rows, means.plain_mean(rows.features[:, order[:size]]))
    return sizes, {name: [histogram.gap() for histogram in found] for name, found in histograms.items()}
