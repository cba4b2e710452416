"""Out-of-fold teachers: a video is taught by the models that were not trained on its fold."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import files, run_dir
from yt8m_tf.errors import InputError

_KEY = "labels.teacher_folds"


@dataclasses.dataclass(frozen=True)
class FoldRun:
    """A run with one fold held out.

    Attributes:
      path: its directory.
      fold: the number of the fold.
      folds: maps the base name of each shard of its training data to the shard's fold.
    """

    path: Path
    fold: int
    folds: Mapping[str, int]


def find(pattern: str, data_dir: str) -> list[FoldRun]:
    """Finds the runs that `labels.teacher_folds` names, in the order of their paths.

    Args:
      pattern: a pattern of run directories, see `files.find`.
      data_dir: the base of a relative pattern.

    Raises:
      InputError: there is no run, a run has no folds, or runs have different folds.
    """
    where = f"{_KEY}={files.below(data_dir, pattern)}"
    paths = [Path(path) for path in files.find(pattern, data_dir) if (Path(path) / run_dir.CONFIG).is_file()]
    if not paths:
        raise InputError(f"{where}: no run there; name the runs of all folds, such as 'runs/NAME/fold_*'")
    runs: list[FoldRun] = []
    for path in paths:
        folds, data = run_dir.read_folds(path), run_dir.read_experiment(path).data
        if not folds or not data.num_folds:
            raise InputError(
                f"{where}: {path} sees all shards, and holds out no fold; name runs of yt8m-train --num_folds=K"
                " --fold=..., or use one model as the teacher of all videos, with labels.teacher"
            )
        if folds != (first := runs[0] if runs else FoldRun(path, data.fold, folds)).folds:
            raise InputError(
                f"{where}: {path} and {first.path} are runs of different folds; train all on the same shards with the"
                " same data.num_folds"
            )
        runs.append(FoldRun(path, data.fold, folds))
    return runs


def check(runs: Sequence[FoldRun], train_shards: Sequence[str], validation_shards: Sequence[str] = ()) -> None:
    """Checks that each training shard has a model not trained on it, and that none was trained on validation shards.

    A student that holds out one of the teachers' folds is taught by models that were trained on that fold. They pass on
    what they learned of its labels, so the student's score there is too high.

    Args:
      runs: the teachers.
      train_shards: the student's training shards.
      validation_shards: the shards that the student is validated on.

    Raises:
      InputError: a training shard is in no fold, or no run holds out its fold; a teacher was trained on a validation
        shard.
    """
    folds, held_out = runs[0].folds, {run.fold for run in runs}
    for shard in train_shards:
        name = os.path.basename(shard)
        if name not in folds:
            raise InputError(
                f"{_KEY}: '{name}' of data.train is in no fold of {runs[0].path} (its {run_dir.FOLDS} has"
                f" {len(folds):,} shards); train the models of the folds on the shards that their student reads"
            )
        if folds[name] not in held_out:
            raise InputError(
                f"{_KEY}: no run holds out fold {folds[name]}, which has '{name}' of data.train; name the runs of all"
                f" folds, such as '{runs[0].path.parent / 'fold_*'}'"
            )
    teaching = {folds[os.path.basename(shard)] for shard in train_shards}
    for shard in validation_shards:
        name = os.path.basename(shard)
        if name in folds and (seen_by := [run for run in runs if run.fold in teaching - {folds[name]}]):
            raise InputError(
                f"{_KEY}: {seen_by[0].path} was trained on '{name}', which this run is validated on: its score there"
                " would be too high; validate on other shards (data.num_folds=0 takes data.validation), or train the"
                " teachers without these"
            )


class ShardFolds:
    """Looks up the fold of each video of a training stream, by the video's shard.

    Args:
      folds: maps the base name of a shard to its fold.
      shards: the shards of the stream.

    Attributes:
      replaces_labels: False, because training uses the records' labels, too.
    """

    replaces_labels = False

    def __init__(self, folds: Mapping[str, int], shards: Sequence[str]):
        self._folds = np.array([folds[os.path.basename(shard)] for shard in shards], np.int32)

    def look_up(self, shards: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns "teacher_fold", [B] int32: the folds of the shards whose numbers are `shards`, [B]."""
        return {"teacher_fold": self._folds[shards]}
