"""Compares a written SavedModel with the float32 model that it was made from: scores, GAP@20 and speed.

The float32 model is scored first and its scores are written to a file, so the two models are never in memory together.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import global_average_precision
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.schema import NO_LABEL

# Largest accepted change of GAP@20, by precision of the stored weights.
TOLERANCE = {"cluster": 1e-3, "float16": 1e-4, "float32": 1e-6}

# Maps a batch, with the features of `data.records.parse_records`, to [B, C] float32 probabilities.
Scores = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
# Such batches, with "labels" [B, L] int32 padded with -1, and "valid" [B] bool: rows that are not valid are ignored.
Batches = Iterable[Mapping[str, tf.Tensor]]

_RATE_SECONDS, _RATE_CALLS = 0.5, 3  # minima for each batch size
# The scores of a video must not depend on the batch size. Scores in batches of these sizes, one of which may be an
# ensemble's number of members, are compared with those in a larger batch. Rounding may change scores, for example by
# choosing another nearest neighbour.
_SIZES, _SAME = (1, 2, 3), 1e-2


@dataclasses.dataclass(frozen=True)
class Reference:
    """Scores of the float32 model, for `compare`.

    Attributes:
      path: file of the float32 scores, [num_videos, C].
      num_videos, num_positives: number of videos, and of their labels.
      gap: GAP@20.
      videos_per_second: rates by batch size.
      alone: whether the scores of a video are independent of the other videos of its batch.
    """

    path: Path
    num_videos: int
    num_positives: int
    gap: float
    videos_per_second: Mapping[int, float]
    alone: bool = True


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A SavedModel against its float32 model, on the same videos.

    Attributes:
      num_videos: number of videos.
      gap: GAP@20 of the SavedModel.
      gap_float32: GAP@20 of the float32 model.
      max_difference, mean_difference: absolute differences of the scores in [0, 1], over all classes of all videos.
    """

    num_videos: int
    gap: float
    gap_float32: float
    max_difference: float
    mean_difference: float

    def check(
        self, tolerance: float, model: str = "the exported model", remedy: str = "export with a finer --precision"
    ) -> None:
        """Raises InputError if GAP changed by more than `tolerance`, up or down."""
        change = abs(self.gap - self.gap_float32)
        if not change <= tolerance:
            raise InputError(
                f"GAP@20 of {model} is {self.gap:.6f}, with float32 {self.gap_float32:.6f}: they differ by more"
                f" than --tolerance={tolerance:g}; {remedy}, or allow more"
            )


def reference(scores: Scores, batches: Batches, path: Path, sizes: Iterable[int] = (), alone: bool = True) -> Reference:
    """Scores with the float32 model.

    Args:
      scores: the float32 model.
      batches: the batches to score.
      path: the file to which scores are written; with 3,862 classes, 15 KB per video.
      sizes: batch sizes at which the speed is measured.
      alone: see `Reference`.

    Raises:
      InputError: no valid row in `batches`, none with a label, or a score that is NaN.
    """
    ranking, rated = _Ranking(), None
    with open(path, "wb") as file:
        for batch in batches:
            rated = batch if rated is None else rated
            file.write(ranking.add(scores(batch), batch).tobytes())
    gap = ranking.gap()
    rates = videos_per_second(scores, rated or {}, sizes)
    return Reference(path, ranking.num_videos, ranking.num_positives, gap, rates, alone)


def compare(scores: Scores, batches: Batches, expected: Reference) -> Comparison:
    """Scores the same batches with the SavedModel, and the first videos in small batches, too.

    Args:
      scores: the SavedModel.
      batches: those that `reference` was given.
      expected: the result of `reference`.

    Raises:
      InputError: the scores of a video depend on the batch size.
    """
    ranking, largest, total = _Ranking(), 0.0, 0.0
    with open(expected.path, "rb") as file:
        for batch in batches:
            rows = ranking.add(scores(batch), batch)
            if ranking.num_videos == len(rows) > 0 and expected.alone:  # the first that has any
                _check_sizes(scores, batch, rows)
            before = np.frombuffer(file.read(rows.nbytes), np.float32).reshape(rows.shape)
            difference = np.abs(rows - before)
            if difference.size:
                largest = max(largest, float(difference.max()))
                total += float(difference.mean(axis=1, dtype=np.float64).sum())
    gap = ranking.gap()
    assert ranking.num_videos == expected.num_videos
    return Comparison(ranking.num_videos, gap, expected.gap, largest, total / ranking.num_videos)


def _check_sizes(scores: Scores, batch: Mapping[str, tf.Tensor], rows: np.ndarray) -> None:
    """Raises InputError if the scores of a batch's first valid rows differ in batches of `_SIZES`."""
    for size in _SIZES:
        found = scores(_valid_rows(batch, size)).numpy()
        difference = np.abs(found - rows[np.arange(size) % len(rows)]).max()
        if not difference <= _SAME:
            raise InputError(
                f"the exported model gives the same video other scores in a batch of {size} than in one of"
                f" {len(batch['valid'])}: a score differs by {difference:.3g}; do not use it, and report it with the"
                " config.yaml of the run"
            )


def _valid_rows(batch: Mapping[str, tf.Tensor], size: int) -> dict[str, tf.Tensor]:
    """Returns the features of the first `size` valid rows, repeated from the first on if there are fewer."""
    valid = tf.where(batch["valid"])[:, 0]  # [V]
    rows = tf.gather(valid, tf.range(size, dtype=tf.int64) % len(valid))
    return {name: tf.gather(value, rows) for name, value in batch.items() if name not in ("labels", "valid")}


def videos_per_second(scores: Scores, batch: Mapping[str, tf.Tensor], sizes: Iterable[int]) -> dict[int, float]:
    """Returns the speed of scoring from and to memory, by batch size: that of the median call, after an untimed one.

    Args:
      scores: a model.
      batch: a batch with "valid", true for at least one row; rows are repeated for larger sizes.
      sizes: batch sizes.
    """
    rates = {}
    for size in sizes:
        features = _valid_rows(batch, size)
        scores(features).numpy()
        seconds: list[float] = []
        end = time.perf_counter() + _RATE_SECONDS
        while len(seconds) < _RATE_CALLS or time.perf_counter() < end:
            start = time.perf_counter()
            scores(features).numpy()
            seconds.append(time.perf_counter() - start)
        rates[size] = size / statistics.median(seconds)
    return rates


class _Ranking:
    """Accumulates GAP@20 and checks that no score is NaN."""

    def __init__(self) -> None:
        self.num_videos = self.num_positives = 0
        self._scores: list[np.ndarray] = []
        self._hits: list[np.ndarray] = []

    def add(self, scores: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> np.ndarray:
        """Adds the scores of a batch, [B, C], and returns those of its valid rows."""
        valid, labels = batch["valid"], batch["labels"]
        top, classes = tf.math.top_k(scores, min(TOP_K, scores.shape[-1]))  # [B, k]
        hits = tf.reduce_any(classes[:, :, None] == labels[:, None, :], axis=2)
        self._scores.append(top.numpy()[valid])
        self._hits.append(hits.numpy()[valid])
        self.num_videos += int(tf.math.count_nonzero(valid))
        self.num_positives += int(tf.math.count_nonzero((labels != NO_LABEL) & valid[:, None]))
        return scores.numpy()[valid]

    def gap(self) -> float:
        if not self.num_positives:
            raise InputError(
                f"data.validation: {self.num_videos} videos, none with a label; give labelled shards to measure with"
            )
        if any(np.isnan(scores).any() for scores in self._scores):
            raise InputError("the model gives scores that are NaN; train it with finite weights")
        return global_average_precision(np.concatenate(self._scores), np.concatenate(self._hits), self.num_positives)
