"""GAP@20 of LightGBM and of means against the number of models, from the rows of a finished stacking.

An ensemble equals a stacking of only its models: its rows are the classes among the highest of at least one of them,
and its weights and boosters are fitted to these rows, out of fold. Neither the scores of single models nor the data are
needed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.console.progress import Progress
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.gap_histogram import GapHistogram
from yt8m_tf.stacking import boosting, evaluation, means
from yt8m_tf.stacking.features import feature_names
from yt8m_tf.stacking.finished import Stacking
from yt8m_tf.stacking.folds import Bar, train_folds
from yt8m_tf.stacking.rows import load_rows, rows_of_models, save_rows
from yt8m_tf.stacking.settings import LIGHTGBM, MEAN, OUT_OF_FOLD, WEIGHTED_MEAN, StackConfig
from yt8m_tf.stacking.subsets import Ensemble, best_first, ensembles

SIZES = "ensemble_sizes.json"
_FOLDER = "ensemble_sizes"
SINGLE = "best single model"
METHODS = (SINGLE, MEAN, WEIGHTED_MEAN, LIGHTGBM)


def ensemble_sizes(
    stacking: Stacking,
    overrides: Sequence[str] = (),
    *,
    num_weak: int | None = None,
    random_orders: int = 1,
    num_threads: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measures ensembles of 1, 2, 4, ... models in several orders, and writes `SIZES` into the stacking's directory.

    The results of an ensemble are kept in `ensemble_sizes/` when it is done, and boosters as soon as they are trained,
    so the same call continues an interrupted one. The rows of one ensemble at a time are on disk, until it is done.

    Args:
      stacking: from `finished.read_stacking`.
      overrides: changes of its configuration for the boosters of the ensembles, such as "learning_rate=0.1".
      num_weak: number of weak models, those with the lowest GAP; None: half of the models.
      random_orders: number of random orders, in addition to best first and worst first.
      num_threads: threads of LightGBM; 0: all cores.
      progress: whether to show progress bars.

    Returns:
      The contents of the file: "config" of the boosters; "models", GAP@20 out of fold by name, highest first; "weak",
      names; "points", for each ensemble its "order", "size", "strong" (see `Ensemble`), "models", "weights",
      "num_trees", and "gaps", for each split GAP@20 by name from `METHODS`. The best single model is the one that is
      best out of fold.

    Raises:
      InputError: an override needs other rows, `num_weak` is wrong, rows are missing, or a file is damaged.
    """
    missing = [path for split in stacking.gaps for path in stacking.rows(split) if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]} is missing; stack again, with --scores and --input")
    config = _configuration(stacking.config, overrides)
    count = len(stacking.models)
    num_weak = count // 2 if num_weak is None else num_weak
    if not 0 <= num_weak < count:
        raise InputError(f"--sizes_weak={num_weak}: the stacking has {count} models; give 0 to {count - 1}")
    single = [stacking.gaps[OUT_OF_FOLD][name] for name in stacking.models]
    wanted = ensembles(single, num_weak, random_orders, config.seed)
    # The largest ones last, so that many results are available early.
    distinct = sorted({ensemble.members for ensemble in wanted}, key=lambda members: (len(members), members))
    measured: dict[tuple[int, ...], dict[str, Any]] = {}
    with Progress(distinct, desc="ensembles", unit="", disable=not progress) as bar:
        for members in bar:
            bar.set_postfix_str(f"{len(members)} models", refresh=True)
            measured[members] = _kept(stacking, members, config, num_threads, progress)
    best = best_first(single)
    contents = {
        "config": strict_yaml.to_dict(config),
        "models": {stacking.models[number]: single[number] for number in best},
        "weak": [stacking.models[number] for number in best[count - num_weak :]],
        "points": [_point(stacking, ensemble, measured[ensemble.members]) for ensemble in wanted],
    }
    files.write_json(stacking.output / SIZES, contents)
    return contents


def _configuration(given: StackConfig, overrides: Sequence[str]) -> StackConfig:
    config = strict_yaml.parse(
        StackConfig, strict_yaml.apply_overrides(StackConfig, strict_yaml.to_dict(given), overrides), ""
    )
    for name in ("candidates", "top", "ranks"):
        if getattr(config, name) != getattr(given, name):
            raise InputError(
                f"--sizes_set: {name} is {getattr(given, name)} in the rows of this stacking; stack into another"
                f" directory with --set={name}={getattr(config, name)}"
            )
    if config.candidates != "union":
        raise InputError(
            "--sizes: the rows of this stacking are candidates of its best model only, and cannot measure ensembles"
            " without it; stack into another directory with --set=candidates=union"
        )
    return config


def _kept(
    stacking: Stacking, members: Sequence[int], config: StackConfig, num_threads: int, progress: bool
) -> dict[str, Any]:
    """Returns the stored measurement of an ensemble; measures and stores it first if there is none."""
    everything = [stacking.fingerprint, list(stacking.gaps), strict_yaml.to_dict(config), list(members)]
    key = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:20]
    path = stacking.output / _FOLDER / f"{key}.json"
    if path.is_file():
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read ({error}); remove it and repeat the command") from error
    directory = path.with_suffix("")
    directory.mkdir(parents=True, exist_ok=True)
    found = _measure(stacking, members, directory, config, num_threads, progress)
    files.write_json(path, found)
    shutil.rmtree(directory)
    return found


def _measure(
    stacking: Stacking, members: Sequence[int], directory: Path, config: StackConfig, num_threads: int, progress: bool
) -> dict[str, Any]:
    paths = {
        split: _make_rows(stacking, split, members, directory / split, config, progress) for split in stacking.gaps
    }
    names = feature_names([stacking.models[number] for number in members], config)
    bar = Bar(f"{len(members)} models, fold {{}}", leave=False, shown=progress)
    folds = {path.stem: stacking.folds[path.stem] for path in paths[OUT_OF_FOLD]}
    trained = train_folds(directory / "boosters", paths[OUT_OF_FOLD], folds, names, config, num_threads, None, bar)
    boosters = [found.booster for found in trained]
    of_fold = dict(zip(sorted(set(folds.values())), boosters, strict=True))
    weights = means.fit_weights(*evaluation.sample_rows(paths[OUT_OF_FOLD], len(members), config.seed))
    gaps = {}
    for split, own in paths.items():
        histograms = {name: GapHistogram() for name in METHODS[1:]}
        for path in Progress(own, f"GAP of {split}", unit=" shards", disable=not progress, leave=False):
            rows = load_rows(path)
            used = [of_fold[folds[path.stem]]] if split == OUT_OF_FOLD else boosters
            scores = rows.features[:, : len(members)]
            combined = (
                means.plain_mean(scores),
                means.weighted_mean(scores, weights),
                boosting.predict(used, rows, num_threads),
            )
            for histogram, values in zip(histograms.values(), combined, strict=True):
                evaluation.add_rows(histogram, rows, values)
        gaps[split] = {name: histogram.gap() for name, histogram in histograms.items()}
    return {"gaps": gaps, "weights": weights.tolist(), "num_trees": [found.num_trees for found in trained]}


def _make_rows(
    stacking: Stacking, split: str, members: Sequence[int], directory: Path, config: StackConfig, progress: bool
) -> list[Path]:
    directory.mkdir(exist_ok=True)
    paths = [directory / source.name for source in stacking.rows(split)]
    sources = Progress(stacking.rows(split), f"rows of {split}", unit=" shards", disable=not progress, leave=False)
    for source, path in zip(sources, paths, strict=True):
        if not path.is_file():
            save_rows(path, rows_of_models(load_rows(source), members, len(stacking.models), config))
    return paths


def _point(stacking: Stacking, ensemble: Ensemble, found: Mapping[str, Any]) -> dict[str, Any]:
    names = [stacking.models[number] for number in ensemble.members]
    best = max(names, key=lambda name: stacking.gaps[OUT_OF_FOLD][name])
    gaps = {split: {SINGLE: stacking.gaps[split][best], **own} for split, own in found["gaps"].items()}
    return {
        "order": ensemble.order,
        "size": len(names),
        "strong": ensemble.strong,
        "models": names,
        "gaps": gaps,
        "weights": dict(zip(names, found["weights"], strict=True)),
        "num_trees": found["num_trees"],
    }
