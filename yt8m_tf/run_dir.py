"""The files of a run directory.

config.yaml         the resolved configuration
folds.json          base name of each training shard to its fold, if there are folds
history.jsonl       one line for each evaluation
sessions.jsonl      one line for each time that training was started: when, on what, with which versions, how long
checkpoints/        step_00001000/ (variables.index, variables.data-*, state.json), ...
events.out.*        TensorBoard's event files (`event_directory`)
plugins/profile/    traces of --profile
projector/          the projector's class weights
evaluation/         metrics.json and classes.csv of the best checkpoint
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from yt8m_tf import files
from yt8m_tf.config import stored, strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig, LabelsConfig
from yt8m_tf.console.command_line import list_flag
from yt8m_tf.errors import InputError

CONFIG = "config.yaml"
FOLDS = "folds.json"
HISTORY = "history.jsonl"
SESSIONS = "sessions.jsonl"
CHECKPOINTS = "checkpoints"
PROJECTOR = "projector"
_OLD_EVENTS = "tensorboard"

Parser = Callable[[Mapping[str, Any]], ExperimentConfig]


def parse_stored(values: Mapping[str, Any]) -> ExperimentConfig:
    """Parses a run's stored configuration, without checking the model's options.

    Raises:
      InputError: a key is unknown, or a value has the wrong type or is out of range.
    """
    return strict_yaml.parse(ExperimentConfig, values, "")


def event_directory(workdir: Path) -> Path:
    """Returns the directory of a run's event files: the run directory, so that TensorBoard shows the run by its name.

    Runs of earlier releases keep their event files in `tensorboard/`.
    """
    old = workdir / _OLD_EVENTS
    return old if old.is_dir() else workdir


def prepare(workdir: Path, experiment: ExperimentConfig, parse: Parser = parse_stored) -> None:
    """Creates the run directory, or checks that an existing one has the same configuration.

    The paths of soft labels and teachers may differ, because a resumed run identifies them by fingerprints
    (`training.inputs`). A run that ended before its first checkpoint, perhaps because of a mistake in its
    configuration, starts over.

    Args:
      workdir: the run directory.
      experiment: the configuration.
      parse: parses the existing configuration (`read_experiment`).

    Raises:
      InputError: the directory has another configuration (the message shows the differences), or cannot be written.
    """
    path = workdir / CONFIG
    values = strict_yaml.to_dict(experiment)
    if path.exists():
        known = strict_yaml.to_dict(read_experiment(workdir, parse))
        if known == values:
            return
        for name in LabelsConfig.PLACES:
            if known["labels"].get(name) is not None and values["labels"][name] is not None:
                known = strict_yaml.merge(known, {"labels": {name: values["labels"][name]}})
        differences = strict_yaml.differences(known, values)
        if differences and any(workdir.glob(f"{CHECKPOINTS}/step_*")):
            raise InputError(
                f"--workdir={workdir} contains a run of another configuration; name another directory, where"
                f" {list_flag('init_from', workdir)} starts with its weights, or restore: {'; '.join(differences)}"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with files.whole_file(path) as temporary:
            temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--workdir={workdir}: cannot be written ({error.strerror}); name another directory"
        ) from error


@contextlib.contextmanager
def prepared(workdir: Path, experiment: ExperimentConfig, parse: Parser = parse_stored) -> Iterator[None]:
    """Prepares the run directory (`prepare`), and undoes this if the block raises InputError for a new run."""
    new = not (workdir / CONFIG).exists()
    prepare(workdir, experiment, parse)
    try:
        yield
    except InputError:
        if new:
            for name in (CONFIG, FOLDS):
                (workdir / name).unlink(missing_ok=True)
        raise


def read_experiment(workdir: Path, parse: Parser = parse_stored) -> ExperimentConfig:
    """Reads the configuration of a run.

    Keys added since the run's release get the values that keep the run's behaviour (`config.stored`).

    Args:
      workdir: the run directory.
      parse: parses plain values; `models.registry.parse_experiment` also checks and completes the model's options.

    Raises:
      InputError: there is no run, or its configuration cannot be read.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise InputError(f"--workdir={workdir}: no run there ({CONFIG} is missing); yt8m-train makes one")
    try:
        values = strict_yaml.read_yaml(path.read_text(encoding="utf-8"))
        return parse(stored.completed(values if values is not None else {}))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore it") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def keep_folds(workdir: Path, folds: Mapping[str, int]) -> None:
    """Writes the folds of a run's training shards, or checks that they are those that it was started with.

    Raises:
      InputError: the training shards are not those that the run was started with, or the stored folds cannot be read.
    """
    known = read_folds(workdir)
    if changed := sorted(name for name in {*known, *folds} if known.get(name) != folds.get(name)):
        if any(workdir.glob(f"{CHECKPOINTS}/step_*")):
            raise InputError(
                f"--workdir={workdir}: the training shards are not those that the run was started with: {len(changed)}"
                f" are new, missing or of another fold, for example '{changed[0]}'; restore them, or name another"
                " directory"
            )
        files.write_json(workdir / FOLDS, folds)


def read_folds(workdir: Path) -> dict[str, int]:
    """Reads the fold of each training shard, by base name; empty for a run without folds."""
    path = workdir / FOLDS
    if not path.exists():
        return {}
    return strict_yaml.read_json(path, Mapping[str, int], "remove it, and yt8m-train with the same flags writes it")


def append_history(workdir: Path, entry: Mapping[str, Any]) -> None:
    """Adds the line of an evaluation, and removes lines of the same or later steps, which a killed run left."""
    kept = [line for line in read_history(workdir) if line["step"] < entry["step"]]
    _write_lines(workdir / HISTORY, [*kept, entry])


def read_history(workdir: Path) -> list[dict[str, Any]]:
    """Reads the evaluations of a run, in order.

    Raises:
      InputError: a line is not an evaluation; the message names it.
    """
    return _read_lines(workdir / HISTORY, "evaluation")


def write_sessions(workdir: Path, sessions: Sequence[Mapping[str, Any]]) -> None:
    """Writes the sessions of a run (`training.sessions`)."""
    _write_lines(workdir / SESSIONS, sessions)


def read_sessions(workdir: Path) -> list[dict[str, Any]]:
    """Reads the sessions of a run, in order; empty if the release that trained it did not write them.

    Raises:
      InputError: a line is not a session; the message names it.
    """
    return _read_lines(workdir / SESSIONS, "session")


def _write_lines(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    with files.whole_file(path) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def _read_lines(path: Path, kind: str) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); make it readable, and run the command again"
        ) from error
    return [
        _entry(line, f"{path}: line {number} is not a valid {kind} of a run") for number, line in enumerate(lines, 1)
    ]


def _entry(line: bytes, wrong: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        if type(entry["step"]) is int:
            return entry
        reason = f"its step is {entry['step']!r}"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    raise InputError(f"{wrong} ({reason}); remove the line")
