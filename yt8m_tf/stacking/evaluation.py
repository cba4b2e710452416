"""GAP@20 of single models, of their means and of the boosters, computed shard by shard."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import schema
from yt8m_tf.console.progress import Progress
from yt8m_tf.data.threads import in_order
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.metrics.gap_histogram import GapHistogram, top_pairs
from yt8m_tf.score_shards.manifest import Manifest
from yt8m_tf.score_shards.reading import ShardScores, read_shard
from yt8m_tf.stacking import means
from yt8m_tf.stacking.inputs import ShardInputs, StackInputs
from yt8m_tf.stacking.rows import Rows, load_rows
from yt8m_tf.stacking.settings import COMBINATIONS, LIGHTGBM, LOGIT_MEAN, MEAN, WEIGHTED_MEAN

# Rows on which the weights of the mean are fitted: 0.4 GB with a hundred models.
_FITTED_ROWS = 1_000_000
# Lower bounds of the bands of `LabelMass`, by the number of labels of a class.
_BANDS = (0, 1, 10, 30, 100, 300, 1000, 3000, 10_000)


def model_gaps(inputs: StackInputs, progress: bool = True) -> list[float]:
    """Returns GAP@20 of each model; NaN if the shards have no labels."""
    histograms = [GapHistogram() for _ in inputs.names]
    shards = Progress(inputs.shards, desc="GAP of models", unit=" shards", disable=not progress, leave=False)
    for shard in in_order(inputs.read, shards):
        for histogram, scores in zip(histograms, shard.scores, strict=True):
            add_lists(histogram, scores, shard)
    return [histogram.gap() for histogram in histograms]


def add_lists(histogram: GapHistogram, scores: ShardScores, shard: ShardInputs) -> None:
    """Adds the 20 highest scores of a shard's videos."""
    classes, top = scores.classes[:, :TOP_K], scores.scores[:, :TOP_K]  # [N, k]
    listed = classes >= 0
    hits = (classes[:, :, None] == shard.labels[:, None, :]).any(axis=2)
    histogram.add(top[listed], hits[listed], shard.num_labels)


def sample_rows(paths: Sequence[Path], num_models: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples scores [R, M] float16 and labels [R] of at most about a million rows, the same share of each shard."""
    scores, labels = [], []
    share = None
    for path in paths:
        rows = load_rows(path)
        if share is None:
            share = min(1.0, _FITTED_ROWS / max(1, len(rows.labels) * len(paths)))
        rng = np.random.default_rng([seed, *path.name.encode()])
        kept = rng.random(len(rows.labels)) < share
        scores.append(rows.features[kept, :num_models])
        labels.append(rows.labels[kept])
    return np.concatenate(scores), np.concatenate(labels)


class LabelMass:
    """The share of labels that the boosters' scores cover, for rare and for frequent classes.

    A class that no model lists among its highest is 0 in the soft labels, so students cannot learn it from them.
    """

    def __init__(self, num_classes: int):
        self._labels, self._candidates, self._expected = np.zeros((3, num_classes))

    def add(self, rows: Rows, scores: np.ndarray, labels: np.ndarray) -> None:
        """Adds a shard: its rows, their scores [R], and all labels [N, L], padded with -1."""
        count = len(self._labels)
        self._labels += np.bincount(labels[labels != schema.NO_LABEL], minlength=count)
        self._candidates += np.bincount(rows.classes[rows.labels], minlength=count)
        self._expected += np.bincount(rows.classes, scores.astype(np.float64), minlength=count)

    def bands(self) -> list[dict[str, float | None]]:
        """Returns sums over bands of classes by their number of labels.

        Returns:
          For each band, "from" and "to" (numbers of labels; "to" is None in the last band), "classes", "labels",
          "candidates" (labels that are candidate rows), and "expected", the sum of all scores.
        """
        found: list[dict[str, float | None]] = []
        for first, following in zip(_BANDS, [*_BANDS[1:], None], strict=True):
            band = (self._labels >= first) & (self._labels < (following or np.inf))
            sums = {"labels": self._labels, "candidates": self._candidates, "expected": self._expected}
            bounds = {"from": first, "to": None if following is None else following - 1, "classes": int(band.sum())}
            found.append({**bounds, **{name: float(values[band].sum()) for name, values in sums.items()}})
        return [band for band in found if band["classes"]]


def combination_gaps(
    inputs: StackInputs,
    paths: Sequence[Path],
    weights: np.ndarray,
    stacked: Path,
    manifest: Manifest,
    mass: LabelMass | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Computes GAP@20 of the plain mean, the mean of logits, the weighted mean and the stacked scores.

    Args:
      inputs: inputs of a split.
      paths: files of rows of all shards of the split.
      weights: [M], weights of the weighted mean.
      stacked: directory of the boosters' score shards.
      manifest: manifest of these score shards.
      mass: accumulates the stacked scores, if given.
      progress: whether to show a progress bar.
    """
    histograms = {name: GapHistogram() for name in COMBINATIONS}
    bar = Progress(paths, desc="GAP of means", unit=" shards", disable=not progress, leave=False)
    for shard, path in zip(inputs.shards, bar, strict=True):
        rows = load_rows(path)
        scores = rows.features[:, : len(inputs.names)]
        combined = {
            MEAN: means.plain_mean(scores),
            LOGIT_MEAN: means.logit_mean(scores),
            WEIGHTED_MEAN: means.weighted_mean(scores, weights),
            LIGHTGBM: _scores_of_rows(rows, read_shard(stacked, path.stem, manifest)),
        }
        for name, values in combined.items():
            add_rows(histograms[name], rows, values)
        if mass is not None:
            mass.add(rows, combined[LIGHTGBM], inputs.labels(shard)[1])
    return {name: histogram.gap() for name, histogram in histograms.items()}


def add_rows(histogram: GapHistogram, rows: Rows, scores: np.ndarray) -> None:
    """Adds each video's 20 highest scores of a shard's rows, [R], rounded to float16 as in score shards."""
    rounded = np.minimum(scores, 1).astype(np.float16)
    kept, _ = top_pairs(rows.videos, rows.classes, rounded)
    histogram.add(rounded[kept], rows.labels[kept], rows.num_labels)


def _scores_of_rows(rows: Rows, scores: ShardScores) -> np.ndarray:
    """Returns the scores of rows in a score shard, [R] float16; 0 for classes that it does not list."""
    listed = scores.classes >= 0
    numbers = np.broadcast_to(np.arange(len(scores.ids))[:, None], listed.shape)
    keys = numbers[listed].astype(np.int64) << 32 | scores.classes[listed]
    order = np.argsort(keys)
    wanted = rows.videos.astype(np.int64) << 32 | rows.classes
    if not len(keys):
        return np.zeros(len(wanted), np.float16)
    found = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    return np.where(keys[order][found] == wanted, scores.scores[listed][order][found], np.float16(0))


def best(gaps: Mapping[str, float]) -> str:
    """Returns the name with the highest GAP@20."""
    return max(gaps, key=lambda name: gaps[name])


def row_paths(directory: Path, shards: Sequence[str]) -> list[Path]:
    """Returns the files of the shards' rows."""
    return [directory / f"{os.path.basename(shard)}.npz" for shard in shards]
