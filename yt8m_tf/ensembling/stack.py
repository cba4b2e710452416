"""Combines a stacking's first-level models and boosters into one model, in a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import locks, models, run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.ensembling.weighted_mean import common_data, member_options
from yt8m_tf.errors import InputError
from yt8m_tf.layers.trees import Forest
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.stacking import boosting
from yt8m_tf.stacking.features import feature_names
from yt8m_tf.stacking.finished import Stacking, read_stacking
from yt8m_tf.stacking.forest import make_forest
from yt8m_tf.training import checkpoints


def find_members(
    models: Sequence[str], paths: Sequence[Path], names: Sequence[str] | None = None
) -> list[tuple[int, Path]]:
    """Finds the runs of the first-level models of a stacking.

    Args:
      models: names of the models.
      paths: run directories, `NAME` or `NAME/fold_K`, or directories of the runs on all folds.
      names: the model of each path; None: the names of the directories say it.

    Returns:
      Pairs of the index of the model and a run directory, sorted by model.

    Raises:
      InputError: a path is not a run, or not of one of the models; or a model has no run.
    """
    found: list[tuple[int, Path]] = []
    names = names or [path.parent.name if path.name.startswith("fold_") else path.name for path in paths]
    for name, path in zip(names, paths, strict=True):
        folds = sorted(path.glob(f"fold_*/{run_dir.CONFIG}"), key=lambda config: (len(str(config)), config))
        runs = [path] if (path / run_dir.CONFIG).is_file() else [config.parent for config in folds]
        if not runs:
            raise InputError(
                f"--members: {path} is not a run directory of yt8m-train (it has no {run_dir.CONFIG}), and has no"
                " runs of folds; name a run, or the directory of its folds"
            )
        if name not in models:
            raise InputError(
                f"--members: {path} is called '{name}', which is not one of the stacked models; they are"
                f" {', '.join(models)}"
            )
        found += [(models.index(name), run) for run in runs]
    if missing := [name for number, name in enumerate(models) if number not in {number for number, _ in found}]:
        raise InputError(
            f"--members: no run of '{missing[0]}', {len(missing)} of the {len(models)} stacked models; name runs of all"
            f" of them, such as --members='runs/*'"
        )
    return sorted(found)


def combine_stack(
    stacked: Path, members: Sequence[Path], output: Path, which: str = "best", names: Sequence[str] | None = None
) -> tuple[ExperimentConfig, list[tuple[str, Path]]]:
    """Writes a run whose scores are those of a stacking.

    Args:
      stacked: directory of yt8m-stack.
      members: run directories of its first-level models; see `find_members`. The score of a model with several runs is
        their mean; yt8m-score averages fold runs in the same way for videos that none of them was trained on.
      output: the new run directory.
      which: "best" or "last" checkpoints.
      names: see `find_members`.

    Returns:
      The configuration of the new run, and name and run directory of each member.

    Raises:
      InputError: the stacking is incomplete, or a graph cannot represent its boosters or has other columns; a member is
        missing or cannot be read; the members' data differs; `output` has a run already.
    """
    stacking = read_stacking(stacked, "--stack")
    found = find_members(stacking.models, members, names)
    forest = _read_forest(stacked, stacking)
    with locks.exclusive(output, "--workdir", "makes a run"):
        if (output / run_dir.CONFIG).exists():
            raise InputError(f"--workdir={output}: contains a run already; name another directory")
        opened = [checkpoints.open_trained(run, which) for _, run in found]
        data = common_data([run for _, run in found], [trained.experiment.data for trained, _ in opened])
        if data.num_classes != stacking.num_classes:
            raise InputError(
                f"--members: the models have {data.num_classes:,} classes, but the stacking in {stacked} has"
                f" {stacking.num_classes:,}; name the runs that were stacked"
            )
        model: dict[str, Any] = {
            "name": "stack",
            "members": [member_options(trained, data) for trained, _ in opened],
            "first_level": [number for number, _ in found],
            "listed": list(stacking.top_k),
            "naming": list(stacking.naming),
            "top": stacking.config.num_candidates,
            "ranks": stacking.config.ranks,
            "aggregates": stacking.config.aggregates,
            "forest": strict_yaml.to_dict(forest.shape),
        }
        experiment = parse_experiment({"model": model, "data": strict_yaml.to_dict(data)})
        weights = {
            f"member_{number}_{variable.path}": tf.constant(read(variable))
            for number, (trained, read) in enumerate(opened)
            for variable in trained.model.weights
        }
        weights |= {f"trees/{name}": tf.constant(array) for name, array in forest.arrays().items()}
        built = models.build_without_weights(experiment.model, data.spec)
        assert set(weights) == {variable.path for variable in built.weights}
        checkpoints.save_run(output, experiment, weights)
    return experiment, [(stacking.models[number], run) for number, run in found]


def _read_forest(stacked: Path, stacking: Stacking) -> Forest:
    """Reads the trees of all boosters, and checks that their columns are those of the graph."""
    wanted = [boosting.CLASS_COLUMN, *map(boosting.plain, feature_names(stacking.models, stacking.config))]
    paths = sorted((stacked / "boosters").glob("fold_*.txt"), key=lambda path: (len(path.name), path.name))
    boosters = [boosting.load(path).booster for path in paths]
    for path, booster in zip(paths, boosters, strict=True):
        if (columns := booster.feature_name()) != wanted:
            odd = next(iter([name for name in columns if name not in wanted] or columns))
            raise InputError(
                f"--stack={stacked}: {path.name} has {len(columns)} columns (for example '{odd}'), but the models and"
                f" {'ranks and ' if stacking.config.ranks else ''}aggregates of this stacking make {len(wanted)};"
                " stack again"
            )
    try:
        return make_forest(boosters)
    except ValueError as error:
        raise InputError(f"--stack={stacked}: one graph cannot contain these boosters: {error}; stack again") from error
