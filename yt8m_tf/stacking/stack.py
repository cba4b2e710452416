"""The steps of a stacking: rows, boosters, stacked scores, report; a step is skipped if its files exist."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.console.progress import Progress
from yt8m_tf.data.threads import in_order
from yt8m_tf.errors import InputError
from yt8m_tf.locks import exclusive
from yt8m_tf.metrics.gap_histogram import top_pairs
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.stacking import boosting, evaluation, means
from yt8m_tf.stacking.beginning import begin
from yt8m_tf.stacking.features import feature_names
from yt8m_tf.stacking.folds import Bar, TrainFold, train_folds
from yt8m_tf.stacking.inputs import LeftOut, StackInputs
from yt8m_tf.stacking.rows import Rows, load_rows, make_rows, save_rows
from yt8m_tf.stacking.settings import COMBINATIONS, OUT_OF_FOLD, REPORT, WEIGHTS, StackConfig


@dataclasses.dataclass(frozen=True)
class StackResult:
    """The result of a stacking.

    Attributes:
      gaps: for each split (`OUT_OF_FOLD`, and those to which the boosters were applied), GAP@20 by name of model or
        combination; only splits with labels.
      weights: weights of the weighted mean, by name of model.
      num_trees: number of trees of each fold's booster.
      importances: share of each column in the boosters' total gain.
      curves: for each fold, the loss after each tree on "training" and "held out" rows.
      soft_labels: `evaluation.LabelMass.bands` of the out-of-fold scores.
      left_out: counts of videos without labels or scores, and damaged shards, of the splits that have any.
    """

    gaps: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float]
    num_trees: Sequence[int]
    importances: Mapping[str, float]
    curves: Sequence[Mapping[str, Sequence[float]]]
    soft_labels: Sequence[Mapping[str, Any]]
    left_out: Mapping[str, LeftOut]


def stack(
    training: StackInputs,
    applied: Mapping[str, StackInputs],
    output: Path,
    config: StackConfig,
    *,
    num_threads: int = 0,
    train_fold: TrainFold | None = None,
    progress: bool = True,
) -> StackResult:
    """Trains a booster for each fold, and writes their predictions for all videos as score shards.

    Writes `output/train/` (out of fold) and `output/<split>/` (mean of the boosters) as score shards, `boosters/`,
    `weights.json` of the weighted mean and `report.json`. Except for LightGBM's own memory, which is one byte per value
    of the binned rows and about 30 bytes per row, memory does not grow with the number of videos.

    Args:
      training: out-of-fold scores of labelled shards.
      applied: other splits of the same models, by name.
      output: the directory to write to; an interrupted stacking of the same inputs is continued.
      config: options of candidates, features and trees.
      num_threads: threads of LightGBM; 0: all cores.
      train_fold: trains a fold; None: `boosting.train`.
      progress: whether to show progress bars.

    Raises:
      InputError: a model has the name of a combination, scores have no folds, a split is of other models, the directory
        has another stacking, or a file is damaged.
    """
    folds = _check(training, applied, config)
    with exclusive(output, "--output", "stacks"):
        return _stack(training, applied, folds, output, config, num_threads, train_fold, progress)


def _stack(
    training: StackInputs,
    applied: Mapping[str, StackInputs],
    folds: Mapping[str, int],
    output: Path,
    config: StackConfig,
    num_threads: int,
    train_fold: TrainFold | None,
    progress: bool,
) -> StackResult:
    fingerprint = _fingerprint(training, applied, config)
    begin(output, config, fingerprint, training)
    splits = {OUT_OF_FOLD: training, **applied}
    for split, inputs in splits.items():
        inputs.cache_labels(output / "labels" / split)
    left_out = {split: inputs.check_labels(needed=split == OUT_OF_FOLD) for split, inputs in splits.items()}
    gaps = {
        split: dict(zip(training.names, _gaps(output, split, inputs, progress), strict=True))
        for split, inputs in splits.items()
    }
    best = training.names.index(evaluation.best(gaps[OUT_OF_FOLD])) if config.candidates == "best_model" else None
    for split, inputs in splits.items():
        _make_rows(output / "rows" / split, inputs, config, best, progress)
    names = feature_names(training.names, config)
    rows_of_training = evaluation.row_paths(output / "rows" / OUT_OF_FOLD, training.shards)
    bar = Bar("fold {}", leave=True, shown=progress)
    boosters = train_folds(output / "boosters", rows_of_training, folds, names, config, num_threads, train_fold, bar)
    manifest = Manifest(
        (str(output),),
        fingerprint,
        training.num_classes,
        min(score_records.DEFAULT_TOP_K, training.num_classes),
        "video",
        keys=training.keys,
    )
    weights = means.fit_weights(*evaluation.sample_rows(rows_of_training, len(training.names), config.seed))
    mass = evaluation.LabelMass(training.num_classes)
    for split, inputs in splits.items():
        own = dataclasses.replace(manifest, folds=folds if split == OUT_OF_FOLD else {})
        written = _predict(output, split, inputs, boosters, own, num_threads, progress)
        paths = evaluation.row_paths(output / "rows" / split, inputs.shards)
        own_mass = mass if split == OUT_OF_FOLD else None
        gaps[split] |= evaluation.combination_gaps(inputs, paths, weights, output / split, written, own_mass, progress)
    result = StackResult(
        {split: found for split, found in gaps.items() if not np.isnan(found["mean"])},
        dict(zip(training.names, weights.tolist(), strict=True)),
        [trained.num_trees for trained in boosters],
        _importances([trained.booster for trained in boosters]),
        [trained.curves for trained in boosters],
        mass.bands(),
        {split: counts for split, counts in left_out.items() if counts.summary("")},
    )
    files.write_json(output / WEIGHTS, result.weights)
    files.write_json(output / REPORT, dataclasses.asdict(result))
    return result


def _check(training: StackInputs, applied: Mapping[str, StackInputs], config: StackConfig) -> dict[str, int]:
    """Checks the inputs, and returns the fold of each training shard."""
    columns = feature_names(training.names, config)[len(training.names) :]
    if taken := set(training.names) & {*COMBINATIONS, *columns}:
        raise InputError(
            f"--scores: a model is named '{min(taken)}', a name that stacking uses for its own combinations; rename its"
            " directory"
        )
    outside = [shard for shard in training.shards if os.path.basename(shard) not in training.folds]
    if outside:
        reason = "its models were trained without folds" if not training.folds else "it is in none of the folds"
        raise InputError(
            f"--input: no out-of-fold scores of '{outside[0]}': {reason}; train with --num_folds, and give the shards"
            " of data.train; those of another split go into --apply=SPLIT:PATTERN"
        )
    folds = {os.path.basename(shard): training.folds[os.path.basename(shard)] for shard in training.shards}
    if len(set(folds.values())) < 2:
        raise InputError("--input: all shards are of one fold; give shards of two or more folds")
    for split, inputs in applied.items():
        if split == OUT_OF_FOLD:
            raise InputError(f"--apply: '{OUT_OF_FOLD}' is the name of the out-of-fold scores; choose another one")
        if inputs.fingerprints != training.fingerprints:
            different = next(
                name
                for name, mine, other in zip(training.names, training.fingerprints, inputs.fingerprints, strict=True)
                if mine != other
            )
            raise InputError(
                f"--apply: the scores of '{different}' in split '{split}' come from another model than those that were"
                " stacked; score the split again"
            )
    return folds


def _fingerprint(training: StackInputs, applied: Mapping[str, StackInputs], config: StackConfig) -> str:
    splits = {split: [os.path.basename(s) for s in inputs.shards] for split, inputs in applied.items()}
    everything = [strict_yaml.to_dict(config), training.fingerprints, training.names, training.shards, splits]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _gaps(output: Path, split: str, inputs: StackInputs, progress: bool) -> list[float]:
    path = output / "rows" / f"{split}.json"
    path.parent.mkdir(exist_ok=True)
    if not path.is_file():
        files.write_json(path, evaluation.model_gaps(inputs, progress))
    try:
        gaps = json.loads(path.read_text(encoding="utf-8"))
        return [float(gap) for gap in gaps]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove the file and repeat the command") from error


def _make_rows(directory: Path, inputs: StackInputs, config: StackConfig, best: int | None, progress: bool) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    paths = dict(zip(inputs.shards, evaluation.row_paths(directory, inputs.shards), strict=True))
    missing = [shard for shard in inputs.shards if not paths[shard].is_file()]

    def make(shard: str) -> tuple[str, Rows]:
        return shard, make_rows(inputs.read(shard), inputs.num_classes, config, best)

    bar = Progress(missing, desc=f"rows of {directory.name}", unit=" shards", disable=not progress, leave=False)
    for shard, rows in in_order(make, bar):
        save_rows(paths[shard], rows)


def _predict(
    output: Path,
    split: str,
    inputs: StackInputs,
    boosters: Sequence[boosting.Trained],
    manifest: Manifest,
    num_threads: int,
    progress: bool,
) -> Manifest:
    """Writes the score shards of a split: each fold's from its own booster; without folds, the mean of all boosters."""
    start(output / split, manifest)
    counts = {}
    of_fold = dict(zip(sorted(set(manifest.folds.values())), boosters, strict=False))  # empty without folds
    shards = list(zip(inputs.shards, evaluation.row_paths(output / "rows" / split, inputs.shards), strict=True))
    for shard, path in Progress(shards, desc=f"scores of {split}", unit=" shards", disable=not progress, leave=False):
        name = os.path.basename(shard)
        rows = load_rows(path)
        counts[name] = len(rows.ids)
        if not (output / split / name).is_file():
            used = [of_fold[manifest.folds[name]]] if manifest.folds else boosters
            scores = boosting.predict([trained.booster for trained in used], rows, num_threads)
            score_records.write_shard(output / split / name, _lists(rows, scores, manifest.top_k))
    return finish(output / split, dataclasses.replace(manifest, shards=counts))


def _lists(rows: Rows, scores: np.ndarray, top_k: int) -> list[tuple[bytes, np.ndarray, np.ndarray]]:
    """Returns (id, classes, scores) for the score record of each video."""
    rounded = scores.astype(np.float16)
    kept, _ = top_pairs(rows.videos, rows.classes, rounded, top_k)
    bounds = np.searchsorted(rows.videos[kept], np.arange(len(rows.ids) + 1))
    return [
        (bytes(video), rows.classes[kept[first:last]], rounded[kept[first:last]])
        for video, first, last in zip(rows.ids, bounds, bounds[1:], strict=False)
    ]


def _importances(boosters: Sequence[lightgbm.Booster]) -> dict[str, float]:
    gains = np.sum([booster.feature_importance("gain") for booster in boosters], axis=0)
    shares = gains / max(float(gains.sum()), 1e-30)
    return dict(zip(boosters[0].feature_name(), shares.tolist(), strict=True))
