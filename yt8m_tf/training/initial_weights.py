"""Initial weights from other runs, checkpoints or exported models (`--init_from`)."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.serving.scorer import load_saved_model
from yt8m_tf.serving.weights import read_weights
from yt8m_tf.training import checkpoints


def init_from(sources: Sequence[Path], variables: Mapping[str, Any], exclude: Sequence[str] = ()) -> None:
    """Initializes weights from other runs (their best checkpoints), directories of checkpoints, or exports.

    Args:
      sources: run directories, directories of checkpoints, or SavedModels of yt8m-export, whose weights are rounded if
        they are stored in less than float32. A variable comes from the first source that has it.
      variables: the variables to initialize, by name; only names that begin with "model/" and "ema/" are read.
      exclude: patterns for paths of model variables that are left unchanged, such as "logits/*".

    Raises:
      InputError: a source has no weights; or a variable is in no source, has another shape, or is not finite.
    """
    wanted = {
        name: name.partition("/")[2]
        for name in variables
        if name.startswith(("model/", "ema/"))
        and not any(fnmatch.fnmatch(name.partition("/")[2], pattern) for pattern in exclude)
    }
    origins = [_origin(source) for source in sources]
    for number, origin in enumerate(origins):
        saved = origin.shapes.keys()
        last = number == len(origins) - 1  # variables that are missing in the last source, too, are an error
        found = {n: path for n, path in wanted.items() if last or {f"model/{path}", f"ema/{path}"} & saved}
        names = {n: f"ema/{path}" if f"ema/{path}" in saved else f"model/{path}" for n, path in found.items()}
        _check_shapes(origin, variables, names)
        for name, stored in names.items():
            variables[name].assign(origin.read(stored))
        _check_finite(sources[number], {path: variables[name] for name, path in found.items()})
        wanted = {name: path for name, path in wanted.items() if name not in found}


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Weights to start from.

    Attributes:
      where: description of the source, for messages.
      shapes: shapes of the source's variables, by their names in it.
      read: returns the value of a variable.
    """

    where: str
    shapes: Mapping[str, list[int]]
    read: Callable[[str], np.ndarray]


def _origin(source: Path) -> _Origin:
    if not files.is_saved_model(source):
        prefix = _initial_prefix(source)
        shapes, read = dict(checkpoints.list_variables(prefix)), checkpoints.checked_reader(prefix, {})
        return _Origin(f"checkpoint '{prefix.parent}'", shapes, read)
    weights = read_weights(load_saved_model(source, f"--init_from={source}"))
    if not weights:
        raise InputError(
            f"--init_from={source}: a SavedModel whose weights have no names; name one that yt8m-export wrote, or a run"
        )
    values = {f"model/{path}": value for path, value in weights.items()}
    return _Origin(
        f"SavedModel '{source}'", {name: list(value.shape) for name, value in values.items()}, values.__getitem__
    )


def _check_shapes(origin: _Origin, variables: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Checks shapes; the error names all variables of another shape, such as a head for other classes."""
    shapes = {stored: list(variables[name].shape) for name, stored in names.items()}
    others = [stored for stored in shapes if stored in origin.shapes and list(origin.shapes[stored]) != shapes[stored]]
    if others:
        first, paths = others[0], dict.fromkeys(stored.partition("/")[2] for stored in others)
        raise InputError(
            f"--init_from: {origin.where} is of another model: '{first}' {shapes[first]} is needed, but there it is"
            f" {list(origin.shapes[first])}; to initialise variables of another shape, such as the head for other"
            f" classes, give --init_exclude={','.join(paths)}"
        )
    if missing := [stored for stored in shapes if stored not in origin.shapes]:
        raise InputError(
            f"--init_from: {origin.where} is of another model: '{missing[0]}' {shapes[missing[0]]} is needed, but is"
            f" not there; name a run of the same model, or leave the variable out with --init_exclude"
        )


def _check_finite(source: Path, started: Mapping[str, Any]) -> None:
    """Checks that weights are finite: otherwise every loss would be NaN, and the learning rate would be blamed."""
    for path, variable in started.items():
        value = np.asarray(tf.convert_to_tensor(checkpoints.local_value(variable)))
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise InputError(
                f"--init_from={source}: {np.count_nonzero(~np.isfinite(value)):,} of {value.size:,} values of variable"
                f" '{path}' there are not finite; take an earlier checkpoint, or leave the variable out with"
                f" --init_exclude='{path}'"
            )


def _initial_prefix(source: Path) -> Path:
    if (source / checkpoints.STATE).is_file():
        return source / checkpoints.VARIABLES
    if not checkpoints.saved_steps(source):
        raise InputError(
            f"--init_from={source}: neither a run directory with checkpoints nor a checkpoint's directory nor a"
            " SavedModel; name one of these"
        )
    return checkpoints.find_checkpoint(source, option="--init_from")[0]
