"""Resolves paths that users give, and writes files that appear only once they are complete."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fnmatch
import functools
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from yt8m_tf.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_WILDCARDS = "*?["
# Constants of Linux's renameat2.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# The start of a remote path; one slash suffices, because `Path` merges two into one.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def has_scheme(path: str) -> bool:
    """Returns whether a path has a scheme, such as "gs://bucket/x", which only `tf.io.gfile` reads."""
    return "://" in path


def below(data_dir: str, path: str) -> str:
    """Resolves `path` relative to `data_dir`, unless it is absolute or has a scheme ("gs://"); `~` is the home."""
    return os.path.join("" if has_scheme(path) else os.path.expanduser(data_dir), os.path.expanduser(path))


def local_path(value: str, option: str) -> Path:
    """Converts the name of an output or a run directory that a user gave; `~` is the home.

    Args:
      value: the name.
      option: the flag, such as "--output", for messages.

    Raises:
      InputError: the name is empty, or has a scheme such as "gs://", for which a local directory would be created.
    """
    if not value.strip():
        raise InputError(f"{option}={value}: names nothing; give a path")
    if _SCHEME.match(value):
        raise InputError(f"{option}={value}: not a local path; mount the bucket, and name the mounted directory")
    return Path(value).expanduser()


def find(pattern: str, directory: str = "") -> list[str]:
    """Returns the paths that a pattern matches, sorted; [] if there are none.

    A part of the pattern between slashes is taken literally if a file or directory of that name exists, whatever its
    characters; otherwise it is a pattern of `*`, `?` and `[...]`. Only patterns that begin with a dot match names that
    do.

    Args:
      pattern: relative to `directory` unless it is absolute; `~` is the home. With a scheme, such as "gs://", it is a
        pattern of `tf.io.gfile.glob`, which has no literal `[`.
      directory: a path, never a pattern.

    Raises:
      tf.errors.OpError: a directory with a scheme cannot be listed.
    """
    if has_scheme(path := below(directory, pattern)):
        import tensorflow as tf

        return sorted(tf.io.gfile.glob(path))
    pattern = os.path.expanduser(pattern)
    found = ["/" if os.path.isabs(pattern) else os.path.expanduser(directory)] if pattern else []
    for part in filter(None, pattern.split("/")):
        found = [path for base in found for path in _matching_part(base, part)]
    return sorted(found)


def _matching_part(base: str, part: str) -> list[str]:
    literal = os.path.join(base, part)
    if os.path.lexists(literal):
        return [literal]
    if not any(character in part for character in _WILDCARDS) or not os.path.isdir(base or "."):
        return []
    names = [name for name in os.listdir(base or ".") if not name.startswith(".") or part.startswith(".")]
    return [os.path.join(base, name) for name in fnmatch.filter(names, part)]


def matching(patterns: Iterable[str], option: str) -> list[Path]:
    """Returns the local paths that patterns match (`find`); a single pattern without matches is kept, for messages.

    Raises:
      InputError: see `local_path` and `check_listed`; or there is no pattern.
    """
    patterns, found = list(patterns), []
    if not patterns:
        raise InputError(f"{option}: names nothing; give a path")
    for pattern in patterns:
        itself = local_path(pattern, option)
        found += [Path(path) for path in find(pattern)] or [itself]
    check_listed(found if len(patterns) > 1 else (), option)
    return found


def check_listed(paths: Sequence[Path], option: str) -> None:
    """Checks that the paths of a list exist, because commas may have split the only path.

    Raises:
      InputError: there are several paths, and one does not exist.
    """
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing and len(paths) > 1:
        raise InputError(f"{option}={missing[0]}: no such file or directory; check the path{comma_hint(option)}")


def comma_hint(option: str) -> str:
    """Returns the advice for a flag that takes a list, of which a value does not exist."""
    return f"; write a path with a comma in double quotes: {option}='\"a,b\"'"


def is_saved_model(directory: Path) -> bool:
    """Returns whether a directory contains a SavedModel, by its graph file."""
    return (directory / "saved_model.pb").is_file()


def missing_directories(directory: Path) -> list[Path]:
    """Returns the directories, innermost first, that must be created for `directory`."""
    return [path for path in (directory, *directory.parents) if not path.exists()]


def remove_empty(directories: Iterable[Path]) -> None:
    """Removes those of the directories that exist and are empty."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def check_no_input(outputs: Iterable[str | os.PathLike[str]], inputs: Iterable[str], flag: str) -> None:
    """Refuses outputs that would overwrite inputs.

    Args:
      outputs: files that will be written.
      inputs: files that are read; a directory stands for all files in it.
      flag: the user's flag for the output, such as "--output=scores".

    Raises:
      InputError: a file is both.
    """
    read = {os.path.realpath(os.path.expanduser(path)) for path in inputs if not has_scheme(path)}
    directories = [path for path in read if os.path.isdir(path)]
    for output in outputs:
        place = os.path.realpath(output)
        inside = any(os.path.commonpath([directory, place]) == directory for directory in directories)
        if place not in read and not (inside and os.path.isfile(place)):
            continue
        raise InputError(f"{flag}: would write over '{os.fspath(output)}', which is to be read; choose another place")


def check_writable(path: Path, option: str) -> None:
    """Checks that a file can be written, before the work on its contents begins; creates its directory.

    Args:
      path: the file.
      option: the flag that named it, such as "--output".

    Raises:
      InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory")
    except OSError as error:
        raise InputError(f"{option}={path}: cannot be written ({error.strerror}); name another file") from error


def plain(directory: str | os.PathLike[str]) -> str:
    """Returns a name of a local directory that TensorFlow does not take for a pattern.

    TensorFlow treats the paths of checkpoints, also within SavedModels, as patterns of `*`, `?`, `[...]` and `\\`.

    Returns:
      `directory` itself or, if it has such characters, a link to it that exists until the process ends.
    """
    name = os.fspath(directory)
    if has_scheme(name) or not any(character in name for character in (*_WILDCARDS, "\\")):
        return name
    return _link_to(os.path.realpath(name))


def plain_prefix(prefix: str | os.PathLike[str]) -> str:
    """Returns a prefix of local files, such as a checkpoint's, that TensorFlow does not take for a pattern (`plain`).

    Args:
      prefix: the common beginning of their paths, such as "run/model.ckpt-1000".
    """
    directory, name = os.path.split(os.fspath(prefix))
    if not any(character in name for character in (*_WILDCARDS, "\\")):
        return os.path.join(plain(directory), name)
    links = os.path.join(_links(), uuid.uuid4().hex)
    os.mkdir(links)
    for file in os.listdir(directory or "."):
        if file.startswith(f"{name}."):
            os.symlink(
                os.path.realpath(os.path.join(directory, file)), os.path.join(links, f"files{file[len(name) :]}")
            )
    return os.path.join(links, "files")


@functools.cache
def _link_to(directory: str) -> str:
    link = os.path.join(_links(), uuid.uuid4().hex)
    os.symlink(directory, link)
    return link


@functools.cache
def _links() -> str:
    folder = tempfile.mkdtemp(prefix="yt8m_tf_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def why_unreadable(error: tf.errors.OpError) -> str:
    """Returns why `tf.io.gfile` cannot read a file, in a few words."""
    import tensorflow as tf  # already imported, because `error` is from it

    return "no such file" if isinstance(error, tf.errors.NotFoundError) else " ".join(error.message.split())


def read_arrays(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file, by name, without unpickling.

    Raises:
      ValueError: the file is of another kind, or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise TypeError(f"'{others[0]}' is not an array")
        if others := [name for name, array in arrays.items() if array.dtype.kind == "U" and not _is_text(array)]:
            raise ValueError(f"'{others[0]}' contains invalid text")
        return arrays
    except Exception as error:  # zipfile, zlib and NumPy's reader of headers raise a dozen kinds
        raise ValueError(
            f"not an .npz file of arrays: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _is_text(array: np.ndarray) -> bool:
    """Returns whether all code points of a string array are valid: NumPy does not check, and Python fails later."""
    codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    return not codes.size or int(codes.max()) <= sys.maxunicode


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there gets the final name if the block succeeds.

    It is synced to the disk first: after a power cut, the name refers to the earlier file or to the complete new one.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        give_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def give_name(written: Path, path: Path) -> None:
    """Gives a complete file beside `path` its final name, once it is on the disk."""
    _sync(written)
    os.replace(written, path)
    _sync(path.parent)


def write_json(path: Path, contents: Any) -> None:
    """Writes a JSON file, which appears once it is complete."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def whole_directory(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yields a temporary directory beside `path`, which gets the final name if the block succeeds (`whole_file`).

    Args:
      path: the final name.
      replace: replace an existing directory, in one step if the system can; otherwise it must be empty or not exist.
    """
    temporary = _temporary(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        if replace and path.exists():
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without fsync
            raise
    finally:
        os.close(descriptor)


def _exchange(first: Path, second: Path) -> None:
    """Swaps the names of two directories, if possible so that neither name is missing at any moment."""
    with contextlib.suppress(OSError, AttributeError):  # another system, C library or kernel
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
            return
    aside = _temporary(second)
    os.replace(second, aside)
    os.replace(first, second)
    os.replace(aside, first)


def _temporary(path: Path) -> Path:
    # Not the process id, because workers in containers may share storage and have the same id.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
