"""Candidate rows on disk: `rows/<shard name>.npz`, written once, and read for each fold, mean and booster.

Therefore memory does not grow with the data. A row takes 200 bytes for 100 models, and a video has about 40 rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np

from yt8m_tf.errors import InputError
from yt8m_tf.metrics.gap_histogram import top_pairs
from yt8m_tf.stacking.features import aggregates, candidates, features
from yt8m_tf.stacking.inputs import ShardInputs, load_arrays, save_arrays
from yt8m_tf.stacking.settings import StackConfig

# The NumPy type kinds and numbers of dimensions of the arrays in a file.
_FORMS = {
    **{"ids": ("S", 1), "num_labels": ("i", 0), "videos": ("i", 1)},
    **{"classes": ("i", 1), "features": ("f", 2), "labels": ("b", 1)},
}
_OF_EACH_ROW = ("videos", "classes", "features", "labels")


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The candidate rows of one shard of N videos.

    Attributes:
      ids: [N] bytes.
      num_labels: the number of labels of all videos, including labels that are not candidates.
      videos: [R] int32, the index of each row's video, ascending.
      classes: [R] int32.
      features: [R, F] float16, NaN for missing values.
      labels: [R] bool, whether the class is a label of the video.
    """

    ids: np.ndarray
    num_labels: int
    videos: np.ndarray
    classes: np.ndarray
    features: np.ndarray
    labels: np.ndarray

    def matrix(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Returns some rows as a matrix for LightGBM, [r, 1 + F] float64 (as its sequences must be), class id first."""
        classes = self.classes[rows, None].astype(np.float64)
        return np.concatenate([classes, self.features[rows].astype(np.float64)], axis=1)


def make_rows(inputs: ShardInputs, num_classes: int, config: StackConfig, best_model: int | None) -> Rows:
    """Returns the rows of a shard; the model with index `best_model` names candidates, or all models if None."""
    naming = inputs.scores if best_model is None else [inputs.scores[best_model]]
    videos, classes = candidates(naming, config.num_candidates, num_classes)
    values = features(inputs.scores, videos, classes, num_classes, config)
    return Rows(
        inputs.ids.astype(np.bytes_), inputs.num_labels, videos, classes, values, inputs.is_label(videos, classes)
    )


def rows_of_models(rows: Rows, chosen: Sequence[int], num_models: int, config: StackConfig) -> Rows:
    """Selects, from the rows of all models, those that `make_rows` would return for some of the models.

    This is possible because the rows of all models include the `top` classes of each model: those with its highest
    scores, equal scores in the order of class ids, as in its list.

    Args:
      rows: rows of all models, with `candidates: union`.
      chosen: indices of the models, ascending.
      num_models: M, the number of models in `rows`.
      config: that of `rows`, except that `aggregates` may differ.
    """
    named = np.zeros(len(rows.classes), bool)
    for model in chosen:
        scores = rows.features[:, model]
        listed = np.flatnonzero(~np.isnan(scores))
        kept, _ = top_pairs(rows.videos[listed], rows.classes[listed], scores[listed], config.num_candidates)
        named[listed[kept]] = True
    columns = [*chosen, *(num_models + model for model in chosen if config.ranks)]
    values = rows.features[named][:, columns]
    if config.aggregates:
        values = np.concatenate([values, aggregates(values[:, : len(chosen)].T).T], axis=1)
    return Rows(rows.ids, rows.num_labels, rows.videos[named], rows.classes[named], values, rows.labels[named])


def save_rows(path: Path, rows: Rows) -> None:
    """Writes rows; the file appears when it is complete."""
    save_arrays(path, dataclasses.asdict(rows))


def load_rows(path: Path) -> Rows:
    """Reads what `save_rows` wrote.

    Raises:
      InputError: the file is missing or damaged.
    """
    arrays = load_arrays(path)
    found = {name: (array.dtype.kind, array.ndim) for name, array in arrays.items()}
    if found != _FORMS or len({len(arrays[name]) for name in _OF_EACH_ROW}) > 1:
        raise InputError(f"{path}: does not contain candidate rows; remove the file and repeat the command")
    num_labels = int(arrays.pop("num_labels"))
    return Rows(num_labels=num_labels, **arrays)


class ShardSequence(lightgbm.Sequence):
    """The rows of one shard for LightGBM, which first reads a sample row by row, then all rows in batches.

    Args:
      path: a file written by `save_rows`.
      negatives: the share of rows without a label that is kept.
      seed: seed of the draw.
    """

    batch_size = 1 << 16

    def __init__(self, path: Path, negatives: float, seed: int):
        self._path, self._negatives, self._seed = path, negatives, seed
        rows = load_rows(path)
        kept = self._kept(rows)
        self.labels = rows.labels[kept]
        self.weights = np.where(self.labels, 1.0, 1.0 / negatives).astype(np.float32)

    def __getitem__(self, index: int | slice | list[int]) -> np.ndarray:
        return _matrix(self)[index]

    def __len__(self) -> int:
        return len(self.labels)

    def _kept(self, rows: Rows) -> np.ndarray:
        if self._negatives == 1:
            return np.arange(len(rows.labels))
        # Seeded with the shard's name, so that the draw does not depend on other shards.
        rng = np.random.default_rng([self._seed, *self._path.name.encode()])
        return np.flatnonzero(rows.labels | (rng.random(len(rows.labels)) < self._negatives))

    def load(self) -> np.ndarray:
        """Returns the rows that were drawn, [r, 1 + F] float64."""
        rows = load_rows(self._path)
        return rows.matrix(self._kept(rows))


@functools.lru_cache(maxsize=1)
def _matrix(sequence: ShardSequence) -> np.ndarray:
    """Returns a sequence's matrix. Only the last one is cached: LightGBM reads one shard after another."""
    return sequence.load()
