"""Strips `.keras` files of variables that inference does not read; the model's code is neither needed nor run."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py

from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.export import kinds
from yt8m_tf.export.strip_checkpoint import Stripped

_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
# Errors of zipfile, json and h5py for a damaged file.
_FAILURES = (OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error)


def strip_keras(source: Path, target: Path) -> Stripped:
    """Writes a `.keras` file that loads as a model without optimizer, loss and metrics.

    Such a file never has the states of metrics and random generators.

    Args, raises: see `strip.strip`.
    """
    if target.suffix != ".keras":
        raise InputError(f"--output={target}: Keras loads only files named NAME.keras; choose such a name")
    try:
        with files.whole_file(target) as temporary, zipfile.ZipFile(source) as archive:
            if missing := {_CONFIG, _WEIGHTS} - set(archive.namelist()):
                raise InputError(f"--input={source}: contains no {min(missing)}; save it with model.save of Keras 3")
            with zipfile.ZipFile(temporary, "w") as stripped:
                for member in archive.infolist():
                    if member.filename == _WEIGHTS:
                        before, after = _copy_weights(archive, stripped)
                    elif member.filename == _CONFIG:
                        config = _without_compilation(json.loads(archive.read(member)))
                        stripped.writestr(_CONFIG, json.dumps(config))
                    else:
                        stripped.writestr(member, archive.read(member))
    except _FAILURES as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"--input={source}: cannot be read as a .keras file ({reason}); save it again") from error
    return before, after, source.stat().st_size


def _copy_weights(archive: zipfile.ZipFile, stripped: zipfile.ZipFile) -> tuple[dict[str, int], dict[str, int]]:
    # Groups are copied into a new file, because deleting one would not free its space.
    with tempfile.TemporaryDirectory() as directory:
        old, new = Path(directory) / "old.h5", Path(directory) / "new.h5"
        with archive.open(_WEIGHTS) as packed, open(old, "wb") as file:
            shutil.copyfileobj(packed, file)
        with h5py.File(old, "r") as read, h5py.File(new, "w") as written:
            before = _bytes(read)
            _copy(read, written)
            after = _bytes(written)
        stripped.write(new, _WEIGHTS)
    return before, after


def _copy(source: h5py.Group, target: h5py.Group) -> None:
    for key, value in source.attrs.items():
        target.attrs[key] = value
    for name, item in source.items():
        if _is_optimizer(item.name):
            continue
        if isinstance(item, h5py.Group):
            _copy(item, target.create_group(name))
        else:
            source.copy(item, target, name)


def _is_optimizer(path: str) -> bool:
    """Returns whether a group is the optimizer of the model, or of a model in it; layers are below `layers/`."""
    parent, _, name = path.rpartition("/")
    return name == "optimizer" and not parent.endswith("/layers")


def _bytes(file: h5py.File) -> dict[str, int]:
    sizes: dict[str, int] = {}
    kind_of: dict[str, str] = {}

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes[path] = item.nbytes
            parts = f"/{path}".split("/")
            above = ("/".join(parts[:number]) for number in range(2, len(parts)))
            kind_of[path] = kinds.SLOTS if any(map(_is_optimizer, above)) else kinds.WEIGHTS

    file.visititems(visit)
    return kinds.bytes_by_kind(kind_of, sizes)


def _without_compilation(config: Any) -> Any:
    """Removes `compile_config` from the configuration of a model, and of models in it."""
    if isinstance(config, dict):
        gone = {"compile_config"} if "class_name" in config else set()
        return {key: _without_compilation(value) for key, value in config.items() if key not in gone}
    if isinstance(config, list):
        return [_without_compilation(value) for value in config]
    return config
