"""The beginning of a stacking: its directory, new or of the same stacking."""

from __future__ import annotations

import shutil
from pathlib import Path

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.errors import InputError
from yt8m_tf.stacking.finished import Begun
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.stacking.settings import CONFIG, StackConfig

# Directories of what boosters are made from.
_INPUTS = ("labels", "rows")


def begin(output: Path, config: StackConfig, fingerprint: str, training: StackInputs) -> None:
    """Writes `stack.json` into a new directory, or checks that the stacking in it is the same.

    A stacking that finished nothing is removed if it is another one.

    Raises:
      InputError: the directory has results of another stacking, or cannot be written.
    """
    path = output / CONFIG
    values = {"fingerprint": fingerprint, "config": strict_yaml.to_dict(config), "models": training.names}
    values["top_k"] = training.top_k
    try:
        output.mkdir(parents=True, exist_ok=True)
        has_results = _has_results(output)
        if path.is_file() and not _is_of(path, fingerprint, strict=has_results):
            if has_results:
                raise InputError(
                    f"--output={output}: contains a stacking of other scores or another configuration; name another"
                    " directory, or remove this one"
                )
            for name in _INPUTS:  # of a run that ended before its first booster
                shutil.rmtree(output / name, ignore_errors=True)
        files.write_json(path, values)
    except OSError as error:
        raise InputError(f"--output={output}: cannot be written ({error.strerror}); name another directory") from error


def _is_of(path: Path, fingerprint: str, strict: bool) -> bool:
    """Returns whether `stack.json` is of this stacking; a damaged one is an error if `strict`."""
    try:
        remedy = f"remove {path.parent}, or name another directory"
        return strict_yaml.read_json(path, Begun, remedy).fingerprint == fingerprint
    except InputError:
        if strict:
            raise
        return False


def _has_results(output: Path) -> bool:
    """Returns whether a directory contains anything that a run finished: a booster, a stacked shard, a report."""
    entries = [entry for entry in output.iterdir() if entry.name not in (CONFIG, *_INPUTS)]
    return any(entry.name[0] != "." and (entry.is_file() or any(entry.iterdir())) for entry in entries)
