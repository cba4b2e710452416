"""Candidates for members of a pack: run directories, and the score shards that belong to them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from yt8m_tf import run_dir
from yt8m_tf.data.shards import list_shards
from yt8m_tf.ensembling import weighted_mean
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards.manifest import Manifest, read_manifest
from yt8m_tf.scoring.predictors import Predictor, find_predictor


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trained model.

    Attributes:
      name: name of the model, the same for all of its folds.
      workdir: its run directory.
      which: "best" or "last" checkpoint.
      predictor: the model as a function, not loaded yet.
      scores: directory of its score shards; only scores of shards that it has not seen are used.
      manifest: manifest of the score shards.
    """

    name: str
    workdir: Path
    which: str
    predictor: Predictor
    scores: Path
    manifest: Manifest


def find_candidates(workdirs: Sequence[Path], scores: Sequence[Path], which: str = "best") -> list[Candidate]:
    """Matches runs with score shards, and checks that one graph can contain all of them.

    Args:
      workdirs: run directories: `NAME`, or `NAME/fold_K` as in a pipeline.
      scores: directories of score shards: `NAME`, or `NAME/SPLIT` as in a pipeline; those of other names are
        ignored. If no name fits, and there are as many as runs, they are matched by order.
      which: "best" or "last" checkpoints.

    Raises:
      InputError: a path is not a run directory, a directory or name is given twice, a run has no scores, or runs differ
        in folds or data.
    """
    names = [path.parent.name if path.name.startswith("fold_") else path.name for path in workdirs]
    for number, (name, workdir) in enumerate(zip(names, workdirs, strict=True)):
        if not workdir.is_dir():
            raise InputError(f"--candidates: no directory matches {workdir}; name runs of yt8m-train")
        if not (workdir / run_dir.CONFIG).is_file():
            raise InputError(
                f"--candidates: {workdir} is not a run directory of yt8m-train (it has no {run_dir.CONFIG}); name one"
            )
        if name in names[:number]:
            twin = workdirs[names.index(name)]
            raise InputError(f"--candidates: {twin} and {workdir} are both named '{name}'; name a model once")
    directories = _match(names, scores)
    predictors = [find_predictor(workdir, which) for workdir in workdirs]
    weighted_mean.common_data(workdirs, [predictor.data for predictor in predictors])
    first = predictors[0]
    for predictor in predictors[1:]:
        if predictor.data.level != first.data.level:
            raise InputError(
                f"--candidates: {predictor.path} and {first.path} have different data.level; name runs of one level"
            )
        if (predictor.folds, predictor.data.fold) != (first.folds, first.data.fold):
            raise InputError(
                f"--candidates: {predictor.path} and {first.path} hold out other shards; name runs of the same fold of"
                " the same training shards"
            )
    return [
        Candidate(name, workdir, which, predictor, directory, read_manifest(directory, "--scores"))
        for name, workdir, predictor, directory in zip(names, workdirs, predictors, directories, strict=True)
    ]


def held_out_shards(candidate: Candidate, data_dir: str) -> list[str]:
    """Returns the shards that no candidate of this fold has seen: those of the fold, or the validation shards.

    Raises:
      InputError: see `list_shards`; or there is no shard of the fold.
    """
    data, folds = candidate.predictor.data, candidate.predictor.folds
    if not folds:
        return list_shards(data.validation, data_dir, "data.validation")
    shards = list_shards(data.train, data_dir, "data.train")
    held_out = [shard for shard in shards if folds.get(os.path.basename(shard)) == data.fold]
    if not held_out:
        raise InputError(
            f"--data_dir={data_dir}: none of the shards there is of fold {data.fold}, which {candidate.workdir} has not"
            " seen; give the data that it was trained on"
        )
    return held_out


def enough_shards(shards: Sequence[str], candidate: Candidate, num_videos: int) -> list[str]:
    """Returns the first of `shards` that together have `num_videos` videos, or all of them."""
    kept: list[str] = []
    for shard in shards:
        if num_videos <= 0:
            break
        kept.append(shard)
        num_videos -= candidate.manifest.shards.get(os.path.basename(shard), 0)
    return kept


def _match(names: Sequence[str], scores: Sequence[Path]) -> list[Path]:
    found = {name: [path for path in scores if name in (path.name, path.parent.name)] for name in names}
    if not any(found.values()) and len(scores) == len(names):
        return list(scores)
    for name, paths in found.items():
        if len(paths) != 1:
            reason = f"{paths[0]} and {paths[1]} both match" if paths else "no directory matches"
            raise InputError(
                f"--scores: '{name}' of --candidates needs one directory, NAME or NAME/SPLIT, but {reason}; score it"
                " with yt8m-score, and name every model once"
            )
    return [paths[0] for paths in found.values()]
