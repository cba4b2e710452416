"""What a run directory holds, and writing into it so that a file is there only when it is whole.

config.yaml         the resolved configuration
folds.json          base name of each training shard to its fold, if there are folds
history.jsonl       one line for each evaluation
checkpoints/        step_00001000/ (variables.index, variables.data-*, state.json), ...
tensorboard/        event files; a trace of --profile, the projector's class weights
evaluation/         metrics.json and classes.csv of the best checkpoint
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from yt8m_tf import config
from yt8m_tf.errors import InputError
from yt8m_tf.experiment import ExperimentConfig, parse_experiment

CONFIG = "config.yaml"
FOLDS = "folds.json"
HISTORY = "history.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; the file written there takes the final name if the block ends well."""
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, contents: Any) -> None:
    """Writes a JSON file, which is there only when it is whole."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """The same for a directory, which must not exist yet under its final name."""
    temporary = _temporary(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    # Not the process id: workers in containers share storage, and all have the same one.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def prepare(workdir: Path, experiment: ExperimentConfig) -> None:
    """Makes the run directory, or checks that an existing one is of the same configuration.

    A run that ended before its first checkpoint, on a mistake in its configuration perhaps, is started afresh.

    Raises:
      InputError: it holds another configuration (the message shows the differences), or cannot be written.
    """
    path = workdir / CONFIG
    values = config.to_dict(experiment)
    if path.exists():
        differences = config.differences(config.to_dict(read_experiment(workdir)), values)
        if differences and any(workdir.glob(f"{CHECKPOINTS}/step_*")):
            raise InputError(
                f"--workdir={workdir} holds a run of another configuration; name another directory, or restore:"
                f" {'; '.join(differences)}"
            )
        if not differences:
            return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--workdir={workdir}: cannot be written ({error.strerror}); name another directory"
        ) from error


def read_experiment(workdir: Path) -> ExperimentConfig:
    """The configuration of a run.

    Raises:
      InputError: no run there, or its configuration cannot be read.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise InputError(f"--workdir={workdir}: no run there ({CONFIG} is missing); yt8m-train makes one")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return parse_experiment(values if values is not None else {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def keep_folds(workdir: Path, folds: Mapping[str, int]) -> None:
    """Writes the folds of a run's training shards, or checks that they are those that it was started with.

    Raises:
      InputError: the training shards are not those that the run was started with.
    """
    known = read_folds(workdir)
    if changed := sorted(name for name in {*known, *folds} if known.get(name) != folds.get(name)):
        if any(workdir.glob(f"{CHECKPOINTS}/step_*")):
            raise InputError(
                f"--workdir={workdir}: the training shards are not those that the run was started with: {len(changed)}"
                f" are new, gone or of another fold, '{changed[0]}' for one; restore them, or name another directory"
            )
        write_json(workdir / FOLDS, folds)


def read_folds(workdir: Path) -> dict[str, int]:
    """Base name of each training shard to its fold; empty where a run has no folds."""
    path = workdir / FOLDS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def append_history(workdir: Path, entry: Mapping[str, Any]) -> None:
    """Adds the line of one evaluation; lines of later steps, left by a run that was killed, are replaced."""
    kept = [line for line in read_history(workdir) if line["step"] < entry["step"]]
    with whole_file(workdir / HISTORY) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in [*kept, entry]), encoding="utf-8")


def read_history(workdir: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, in order."""
    path = workdir / HISTORY
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
