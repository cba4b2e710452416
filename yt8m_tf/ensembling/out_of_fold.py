"""Fits the weights of a mean of logits out of fold, on float32 logits of the fold models.

Stored scores are float16 probabilities of the 100 highest classes: their logits are coarse near 0 and 1, and unknown
for other classes. So the fold models score some shards again, each those of its held-out fold.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import optimize

from yt8m_tf import run_dir
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import clips, pipeline
from yt8m_tf.data.clips import prepare_clips
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.stacking.rows import Rows, load_rows
from yt8m_tf.training import distribution
from yt8m_tf.training.checkpoints import load_trained
from yt8m_tf.training.evaluation_step import NOT_FEATURES

MAX_VIDEOS = 20_000  # weights are fitted on about this many, in whole shards of each fold
_MOST = 30.0  # the largest magnitude of a logit: larger ones do not change a loss in float64


@dataclasses.dataclass(frozen=True)
class FittedWeights:
    """Result of a fit.

    Attributes:
      weights: weights by name of the model, 0 or more. Their sum is the sharpness that maximises the likelihood of the
        labels; GAP does not depend on it.
      videos: number of videos of the fit; no video was scored by a model that was trained on it.
      loss: mean cross-entropy of the candidates, in nats.
      loss_equal: the same with equal weights of sum 1.
    """

    weights: Mapping[str, float]
    videos: int
    loss: float
    loss_equal: float


def fit_logit_weights(
    runs: Mapping[str, Sequence[Path]],
    rows: Path,
    data_dir: str,
    *,
    xla: bool = True,
    progress: bool = True,
) -> FittedWeights:
    """Fits the weights of a mean of logits out of fold.

    Args:
      runs: run directories of the folds of each model, by name of the model.
      rows: directory of the candidate rows of the training shards, which stacking made (`stacked/rows/train`).
      data_dir: the directory to which the runs' `data.train` is relative.
      xla: whether to compile forward passes with XLA, where XLA can.
      progress: whether to show progress bars.

    Raises:
      InputError: a run cannot be read or has no folds, rows are missing, a shard lacks a video or is damaged.
    """
    folds = run_dir.read_folds(next(iter(runs.values()))[0])
    chosen = _chosen(folds, rows)
    labels = np.concatenate([own.labels for own in chosen.values()])
    columns = []
    for name, directories in runs.items():
        found: dict[str, np.ndarray] = {}
        for directory in directories:
            found |= _fold_logits(name, directory, folds, chosen, data_dir, xla, progress)
        if missing := sorted(set(chosen) - set(found)):
            raise InputError(
                f"'{name}' has no run of fold {folds[missing[0]]}: only that run has not seen {missing[0]}; give the"
                " runs of all folds"
            )
        columns.append(np.concatenate([found[shard] for shard in chosen]))
    logits = np.stack(columns, axis=1)
    weights = fit(logits, labels)
    equal = np.full(len(runs), 1 / len(runs))
    return FittedWeights(
        dict(zip(runs, weights.tolist(), strict=True)),
        sum(len(own.ids) for own in chosen.values()),
        _loss(weights, logits, labels)[0],
        _loss(equal, logits, labels)[0],
    )


def fit(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits non-negative weights [M] float64, with which the sum of logits [R, M] makes labels [R] bool most likely.

    The loss is convex in the weights.
    """
    num_models = logits.shape[1]
    found = optimize.minimize(
        _loss,
        np.full(num_models, 1 / num_models),
        args=(logits, labels),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * num_models,
        options={"ftol": 1e-12, "gtol": 1e-8, "maxiter": 500},
    )
    return found.x


def _loss(weights: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the mean cross-entropy and its gradient."""
    mixed = np.clip(logits, -_MOST, _MOST).astype(np.float64) @ weights
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-mixed))
    loss = float((np.logaddexp(0, mixed) - mixed * labels).mean())
    return loss, np.clip(logits, -_MOST, _MOST).T @ (probabilities - labels) / len(labels)


def _chosen(folds: Mapping[str, int], rows: Path) -> dict[str, Rows]:
    """Returns the rows of the first shards of each fold, by shard: enough shards for `MAX_VIDEOS` in total."""
    if not folds:
        raise InputError("the models were trained without folds; weights need videos that a model has not seen")
    numbers = sorted(set(folds.values()))
    chosen: dict[str, Rows] = {}
    for fold in numbers:
        count = 0
        for shard in sorted(name for name in folds if folds[name] == fold):
            if count >= MAX_VIDEOS / len(numbers):
                break
            chosen[shard] = load_rows(rows / f"{shard}.npz")
            count += len(chosen[shard].ids)
    return chosen


def _fold_logits(
    name: str,
    directory: Path,
    folds: Mapping[str, int],
    chosen: Mapping[str, Rows],
    data_dir: str,
    xla: bool,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Returns the logits [R] float32 of the rows of each shard of a run's fold, by shard."""
    trained = load_trained(directory)
    data = trained.experiment.data
    if run_dir.read_folds(directory) != folds:
        raise InputError(
            f"{directory}: its folds differ from those of the other runs; train all with the same --num_folds"
        )

    @tf.function(autograph=False, jit_compile=xla and distribution.compiles_with_xla(trained.model))
    def forward(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.cast(trained.model(clips.decode_features(features, data.spec), training=False), tf.float32)

    own = [
        path
        for path in list_shards(data.train, data_dir, "data.train")
        if os.path.basename(path) in chosen and folds[os.path.basename(path)] == data.fold
    ]
    found = {}
    faults = Faults(on_damaged="skip", on_empty="skip", on_unlabelled="negative")  # the rows decide which videos count
    faults.of_model(f"the model in {directory}")
    title = f"{name} fold {data.fold}"
    for path in Progress(own, desc=title, unit=" shards", disable=not progress, leave=False):
        rows = chosen[os.path.basename(path)]
        first = {video: row for row, video in enumerate(rows.ids.tolist())}
        bounds = np.searchsorted(rows.videos, np.arange(len(rows.ids) + 1))
        values = np.full(len(rows.videos), np.nan, np.float32)
        for batch in pipeline.evaluation_stream([path], data, pipeline.scoring_batch_size(data.level), faults=faults):
            features = {key: value for key, value in batch.items() if key not in NOT_FEATURES and key != "id"}
            logits = forward(prepare_clips(features, data.spec)).numpy()
            for number, video in enumerate(np.asarray(batch["id"]).tolist()):
                if batch["valid"][number] and (row := first.get(video)) is not None:
                    part = slice(bounds[row], bounds[row + 1])
                    values[part] = logits[number, rows.classes[part]]
        if np.isnan(values).any():
            video = rows.ids[rows.videos[np.argmax(np.isnan(values))]].decode(errors="replace")
            raise InputError(f"{path}: no score of video '{video}' by {directory}; give the shards that were stacked")
        found[os.path.basename(path)] = values
    return found
