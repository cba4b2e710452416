"""A model's highest scores of validation videos, with their labels: from score shards, or computed by the model."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import schema
from yt8m_tf.data.shards import list_shards
from yt8m_tf.data.threads import in_order
from yt8m_tf.report.workdir import Workdir
from yt8m_tf.score_shards.manifest import MANIFEST, read_manifest
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.scoring.score import score
from yt8m_tf.stacking.inputs import StackInputs

STACKED = "LightGBM"
_SPLIT = "validation"


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Scores and labels of N videos.

    Attributes:
      ids: [N] bytes objects.
      labels: [N, L] int32 class ids, padded with -1.
      classes: [N, K] int32, highest score first, padded with -1.
      scores: [N, K] float16 in [0, 1], padded with 0.
      num_classes: C.
      shards: how many shards the videos are from, and how many there are.
    """

    ids: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    num_classes: int
    shards: tuple[int, int]

    def hits(self, top_k: int) -> np.ndarray:
        """Returns which of the `top_k` highest classes are labels, [N, k] bool."""
        classes = self.classes[:, :top_k]
        return (classes[:, :, None] == self.labels[:, None, :]).any(axis=2) & (classes != schema.NO_LABEL)

    @property
    def num_labels(self) -> np.ndarray:
        """Returns the number of labels of each video, [N]."""
        return (self.labels != schema.NO_LABEL).sum(axis=1)


def find_predictions(
    workdir: Workdir, name: str, data_dir: str | None, num_shards: int, progress: bool = True
) -> Predictions | None:
    """Returns a model's predictions for validation videos.

    The model's score shards are read if there are any, with the labels that stacking kept or those of the validation
    shards. Otherwise the run's best checkpoint scores the validation shards.

    Args:
      workdir: from `sources.read_workdir`.
      name: the name of a run, or `STACKED`.
      data_dir: directory of the validation shards; None if they are not available.
      num_shards: largest number of shards, evenly spread over all; 0: all.
      progress: whether to show a progress bar.

    Returns:
      The predictions; None if scores or labels are missing and cannot be created, as without `data_dir`.

    Raises:
      InputError: a file is damaged, or there are no shards in `data_dir`.
    """
    path = workdir.path
    directory = path / "stacked" / _SPLIT if name == STACKED else path / "scores" / name / _SPLIT
    if (directory / MANIFEST).is_file():
        shards = sorted(read_manifest(directory, "scores").shards)
        labels = path / "stacked" / "labels" / _SPLIT
        if all((labels / f"{shard}.npz").is_file() for shard in shards):
            return _read(directory, _spread(shards, num_shards), len(shards), labels)
        if data_dir is None:
            return None
        run = workdir.runs.get(name) or next(iter(workdir.runs.values()))
        listed = {os.path.basename(shard): shard for shard in _listed(run.experiment.data.validation, data_dir)}
        known = [listed[shard] for shard in shards if shard in listed]
        return _read(directory, _spread(known, num_shards), len(known)) if known else None
    if data_dir is None or name not in workdir.runs or workdir.runs[name].best_step is None:
        return None
    run = workdir.runs[name]
    shards = _listed(run.experiment.data.validation, data_dir)
    chosen = _spread(shards, num_shards)
    with tempfile.TemporaryDirectory() as scratch:
        score([find_predictor(run.directories[0])], chosen, Path(scratch, "scores"), progress=progress)
        return _read(Path(scratch, "scores"), chosen, len(shards))


def _listed(patterns: Sequence[str], data_dir: str) -> list[str]:
    return list_shards(patterns, data_dir, "--data_dir: data.validation")


def _spread(shards: Sequence[str], count: int) -> list[str]:
    """Returns `count` of the shards, evenly spaced; all of them if `count` is 0 or too large."""
    if not count or count >= len(shards):
        return list(shards)
    return [shards[position * len(shards) // count] for position in range(count)]


def _read(directory: Path, shards: Sequence[str], total: int, labels: Path | None = None) -> Predictions:
    inputs = StackInputs([directory], [directory.name], shards)
    if labels is not None:
        inputs.use_labels(labels)
    found = list(in_order(inputs.read, shards))
    longest = max(part.labels.shape[1] for part in found)
    padded = [
        np.pad(part.labels, ((0, 0), (0, longest - part.labels.shape[1])), constant_values=schema.NO_LABEL)
        for part in found
    ]
    return Predictions(
        np.concatenate([part.ids for part in found]),
        np.concatenate(padded),
        np.concatenate([part.scores[0].classes for part in found]),
        np.concatenate([part.scores[0].scores for part in found]),
        inputs.num_classes,
        (len(shards), total),
    )
