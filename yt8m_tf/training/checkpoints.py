"""Checkpoints in TensorFlow's own format, with plain names, each in a directory that appears once it is complete.

`checkpoints/step_00001000/variables.{index,data-00000-of-00001}` contains the variables of `TrainState.named`, readable
by `tf.train.load_checkpoint`; `state.json` contains the rest of a run's state (`State`). An incomplete checkpoint is
never loaded, and never removed: it is moved aside when its step is saved again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf import files, models, run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training.inputs import Inputs
from yt8m_tf.training.schedule import Plateau

VARIABLES = "variables"
STATE = "state.json"
# In addition to the best one: the last, and the one before it, in case a disk error damages the last.
_KEPT = 2
# TensorFlow's errors for a file of a checkpoint that is damaged, missing or too short.
READ_FAILURES = (tf.errors.OpError, OSError, ValueError, IndexError)

_INDEX, _DATA = f"{VARIABLES}.index", f"{VARIABLES}.data-00000-of-00001"  # as `save` writes them
_STEP = re.compile(r"step_(\d{8,})")

# The float32 value of a variable of a trained model.
ReadWeight = Callable[[keras.Variable], np.ndarray]


@dataclasses.dataclass(frozen=True)
class State:
    """State of a run in addition to its variables, as needed to continue.

    Attributes:
      step: number of updates.
      best_step: step of the checkpoint with the highest GAP; 0 before the first evaluation.
      positions: each worker's position in the training data.
      plateau: state of the learning-rate schedule.
      evaluation_due: the run was saved before an evaluation, which comes first when it continues.
      inputs: training and validation data; None for runs of releases that did not record them.
    """

    step: int
    best_step: int = 0
    positions: tuple[int, ...] = (0,)
    plateau: Plateau = dataclasses.field(default_factory=Plateau)
    evaluation_due: bool = False
    inputs: Inputs | None = None


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, for evaluation and export.

    Attributes:
      model: a model with the checkpoint's weights, or their moving averages if the run keeps them, in float32; it
        predicts only the classes, without tags.
      experiment: the run's configuration.
      checkpoint: the checkpoint's prefix, for `tf.train.load_checkpoint`.
      step: number of updates.
    """

    model: keras.Model
    experiment: ExperimentConfig
    checkpoint: Path
    step: int


def save(workdir: Path, step: int, variables: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, and removes those that are no longer needed.

    If the step's variables are saved already, only the state is written again.

    Args:
      workdir: the run directory.
      step: updates made.
      variables: variables by name, as in `TrainState.named`.
      state: the attributes of `State`, ready for JSON; "best_step" names the checkpoint that must be kept.

    Raises:
      InputError: it cannot be written, on a full disk for example; earlier checkpoints stay.
    """
    directory = _prefix(workdir, step).parent
    contents = {"step": step, **state}
    try:
        if directory.exists() and fault(directory):
            directory.rename(_free_name(directory))
        if directory.exists():
            files.write_json(directory / STATE, contents)
        else:
            names = sorted(variables)
            values = [tf.convert_to_tensor(local_value(variables[name])) for name in names]
            with files.whole_directory(directory) as temporary:
                prefix = str(temporary / VARIABLES)
                tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
                (temporary / STATE).write_text(json.dumps(contents), encoding="utf-8")
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(error.message.split())
        raise InputError(
            f"checkpoint '{directory}' cannot be written ({reason}); earlier ones are intact: free disk space or repair"
            " the directory, then continue with the same command"
        ) from error
    steps = [own for own in saved_steps(workdir) if fault(_prefix(workdir, own).parent) is None]
    for old in set(steps[:-_KEPT]) - {state.get("best_step")}:
        shutil.rmtree(_prefix(workdir, old).parent)


def remove_unfinished(workdir: Path) -> None:
    """Removes files of processes that were killed while saving. The caller must hold the run directory's lock."""
    for unfinished in (workdir / run_dir.CHECKPOINTS).glob(".step_*.tmp"):
        shutil.rmtree(unfinished)


def _free_name(directory: Path) -> Path:
    """Returns a free name, in the same directory, to which an incomplete checkpoint can be moved."""
    names = (directory.with_name(f"{directory.name}.broken{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def save_run(workdir: Path, experiment: ExperimentConfig, variables: Mapping[str, keras.Variable | tf.Tensor]) -> None:
    """Writes a run directory with the given weights, by path, for evaluation, scoring and export.

    Raises:
      InputError: see `run_dir.prepare` and `save`.
    """
    run_dir.prepare(workdir, experiment)
    named = {f"model/{path}": keras.ops.convert_to_tensor(variable) for path, variable in variables.items()}
    save(workdir, 0, named, {"best_step": 0, "positions": [0], "plateau": {}})


def latest_state(workdir: Path) -> State | None:
    """Returns the state of the last checkpoint; None if there is none yet.

    Raises:
      InputError: the last checkpoint is incomplete.
    """
    steps = saved_steps(workdir)
    return read_state(_prefix(workdir, steps[-1]).parent) if steps else None


def has(workdir: Path, step: int) -> bool:
    """Returns whether there is a checkpoint of this step."""
    return step in saved_steps(workdir)


def is_complete(workdir: Path, step: int) -> bool:
    """Returns whether there is a checkpoint of this step without a visible fault (`fault`)."""
    return has(workdir, step) and fault(_prefix(workdir, step).parent) is None


def write_state(workdir: Path, state: State) -> None:
    """Replaces the state of the checkpoint of `state.step`."""
    files.write_json(_prefix(workdir, state.step).with_name(STATE), dataclasses.asdict(state))


def fault(directory: Path) -> str | None:
    """Returns why a checkpoint's directory is incomplete; None if no fault is visible without reading the variables.

    TensorFlow checks the bytes of a variable when it reads them.
    """
    for name in (_INDEX, _DATA, STATE):
        if not (directory / name).is_file():
            return f"'{name}' is missing"
    prefix = directory / VARIABLES
    try:
        _parse_state(prefix)
        reader = tf.train.load_checkpoint(readable(prefix))
        dtypes = reader.get_variable_to_dtype_map()
        shapes = reader.get_variable_to_shape_map()
    except READ_FAILURES as error:
        return " ".join(str(error).split())
    needed = sum(dtypes[name].size * math.prod(shape) for name, shape in shapes.items())
    found = (directory / _DATA).stat().st_size
    return f"'{_DATA}' has {found:,} of {needed:,} bytes" if found < needed else None


def restore(workdir: Path, step: int, variables: Mapping[str, Any]) -> None:
    """Reads a checkpoint of the same run into `variables`.

    Raises:
      InputError: the checkpoint is of another model, or damaged.
    """
    _assign(_prefix(workdir, step), variables, {name: name for name in variables})


def find_checkpoint(workdir: Path, which: str = "best", option: str = "--workdir") -> tuple[Path, int]:
    """Returns the prefix and the step of a run's checkpoint.

    Args:
      workdir: the run directory.
      which: "best" (highest GAP on the validation set) or "last".
      option: the flag that names the run, for messages.

    Raises:
      InputError: there is no checkpoint, or the best one is missing.
    """
    state = latest_state(workdir)
    if state is None:
        raise InputError(f"{option}={workdir}: no checkpoint yet; run yt8m-train up to its first evaluation")
    step = (state.best_step or state.step) if which == "best" else state.step
    if not has(workdir, step):
        newest = "--checkpoint=last" if option == "--workdir" else f"{option}={_prefix(workdir, state.step).parent}"
        raise InputError(
            f"{option}={workdir}: its best checkpoint, that of step {step}, is missing; put it back, or take the newest"
            f" one with {newest}"
        )
    return _prefix(workdir, step), step


def load_trained(workdir: str | Path, which: str = "best") -> Trained:
    """Builds a run's model and reads its weights.

    Args:
      workdir, which: see `find_checkpoint`.

    Raises:
      InputError: there is no run or no checkpoint, or it does not fit the run's configuration.
    """
    trained, read = _open(Path(workdir), which, models.build_model)
    for variable in trained.model.weights:
        variable.assign(read(variable))
    return trained


def open_trained(workdir: str | Path, which: str = "best") -> tuple[Trained, ReadWeight]:
    """Opens a trained model whose variables have shapes but no values, with a function that reads each value.

    A caller that needs another form of the weights thereby avoids a float32 copy in memory.
    """
    return _open(Path(workdir), which, models.build_without_weights)


def _open(workdir: Path, which: str, build: Callable[..., keras.Model]) -> tuple[Trained, ReadWeight]:
    experiment = run_dir.read_experiment(workdir, parse_experiment)
    prefix, step = find_checkpoint(workdir, which)
    model = build(experiment.model, experiment.data.spec)
    saved = {name for name, _ in list_variables(prefix)}
    sources = {v.path: f"ema/{v.path}" if f"ema/{v.path}" in saved else f"model/{v.path}" for v in model.weights}
    reader = checked_reader(prefix, {sources[variable.path]: variable.shape for variable in model.weights})
    if experiment.data.spec.num_tags:  # the same layers and variables, and a slice of the output
        model = keras.Model(model.input, model.output[:, : experiment.data.num_classes], name=model.name)
    return Trained(model, experiment, prefix, step), lambda variable: reader(sources[variable.path])


def _assign(prefix: Path, variables: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    reader = checked_reader(prefix, {source: variables[name].shape for name, source in sources.items()})
    for name, source in sources.items():
        variables[name].assign(reader(source))


def checked_reader(prefix: Path, wanted: Mapping[str, Sequence[int]]) -> Callable[[str], np.ndarray]:
    """Returns a function that reads a checkpoint's tensors by name; all `wanted` ones must exist in these shapes."""
    shapes = dict(list_variables(prefix))
    for source, shape in wanted.items():
        if shapes.get(source) != list(shape):
            found = f"has it as {shapes[source]}" if source in shapes else "does not have it"
            raise InputError(
                f"checkpoint '{prefix.parent}' is of another model: '{source}' {list(shape)} is needed,"
                f" the checkpoint {found}; give a checkpoint of this model"
            )
    reader = tf.train.load_checkpoint(readable(prefix))

    def read(source: str) -> np.ndarray:
        try:
            return reader.get_tensor(source)
        except READ_FAILURES as error:
            raise unreadable(prefix, error) from error

    return read


def list_variables(prefix: Path) -> list[tuple[str, list[int]]]:
    """Lists names and shapes of the variables of a checkpoint."""
    try:
        return tf.train.list_variables(readable(prefix))
    except READ_FAILURES as error:
        raise unreadable(prefix, error) from error


def readable(prefix: Path) -> str:
    """Returns a checkpoint's prefix with special characters escaped, so that TensorFlow finds it."""
    return files.plain_prefix(prefix)


def _prefix(workdir: Path, step: int) -> Path:
    return workdir / run_dir.CHECKPOINTS / f"step_{step:08d}" / VARIABLES


def saved_steps(workdir: Path) -> list[int]:
    """Returns the steps in the names of checkpoints, complete or not, in order."""
    found = (_STEP.fullmatch(path.name) for path in (workdir / run_dir.CHECKPOINTS).glob("step_*"))
    return sorted(int(match[1]) for match in found if match)


def read_state(directory: Path) -> State:
    """Reads the state of a checkpoint's directory.

    Raises:
      InputError: it is missing, or cannot be read.
    """
    prefix = directory / VARIABLES
    try:
        return _parse_state(prefix)
    except InputError as error:
        raise unreadable(prefix, error) from error


def _parse_state(prefix: Path) -> State:
    state = strict_yaml.read_json(prefix.with_name(STATE), State, "")
    name = prefix.parent.name
    if _STEP.fullmatch(name) and name != f"step_{state.step:08d}":
        raise InputError(f"{STATE} is of step {state.step}")
    return state


def unreadable(prefix: Path, error: Exception) -> InputError:
    """Returns the error for an unreadable checkpoint; it advises moving it away only if it is known to be damaged."""
    where = f"checkpoint '{prefix.parent}'"
    for path in map(prefix.with_name, (_INDEX, _DATA, STATE)):
        if not path.is_file():
            return InputError(f"{where} is incomplete: '{path.name}' is missing; {_remedy(prefix)}")
        if not os.access(path, os.R_OK):
            return InputError(
                f"{where} cannot be read: no permission to read '{path.name}'; grant it, and run the command again"
            )
    return InputError(f"{where} is damaged ({' '.join(str(error).split()).rstrip('; ')}); {_remedy(prefix)}")


def _remedy(prefix: Path) -> str:
    """Returns the remedy for an incomplete checkpoint, which depends on the other checkpoints beside it."""
    steps = saved_steps(prefix.parent / "../..") if _STEP.fullmatch(prefix.parent.name) else []
    if len(steps) < 2:
        return "the run has no other checkpoint: fetch it again, or start over in another directory"
    if prefix.parent.name == f"step_{steps[-1]:08d}":
        return "move it away to continue from the checkpoint before it"
    return "move it away, and take the newest one with --checkpoint=last"


def local_value(variable: Any) -> Any:
    """Returns this process's first copy of a variable, which may be distributed over replicas."""
    return variable.values[0] if hasattr(variable, "values") else variable
