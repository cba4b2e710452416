"""Lists shards: glob patterns, folds, shares of workers. Only paths with a scheme, such as "gs://", need TensorFlow."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence

from yt8m_tf import files
from yt8m_tf.config.data import DataConfig
from yt8m_tf.console.quiet import import_quietly
from yt8m_tf.errors import InputError
from yt8m_tf.pretrained import packaged
from yt8m_tf.regular import check_regular

# If a pattern matches nothing: how many paths below it to look at, and how many directories to name.
_LOOKED_AT_BELOW, _SHOWN = 1000, 5


def list_shards(patterns: Sequence[str], data_dir: str = "", source: str = "") -> list[str]:
    """Returns the shards that match patterns, sorted; a file that matches under several names is listed once.

    Args:
      patterns: see `files.find`; or a word for records that come with the package (`packaged.shards`).
      data_dir: the directory of relative patterns; a pattern with a scheme, such as "gs://", is never relative.
      source: the flag or configuration key that the patterns come from, for messages.

    Raises:
      InputError: there is no pattern, or a pattern cannot be listed or matches nothing, only directories, a broken
        link, or a named pipe or device.
    """
    shards: dict[str, str] = {}
    real: Callable[[str], str] = functools.cache(os.path.realpath)  # a directory has thousands of shards
    where = f"{source}: " if source else ""
    if not patterns:
        raise InputError(f"{where}no pattern; name the shards to read")
    for given in patterns:
        pattern = packaged.shards(given, source)
        full = files.below(data_dir, pattern)
        found = _find_remote(full, where) if files.has_scheme(full) else files.find(pattern, data_dir)
        matched = [path for path in found if not _is_directory(path)]
        if not matched and found:
            raise InputError(
                f"{where}'{full}' is a directory; give a pattern for the shards in it, such as"
                f" '{os.path.join(full, '*.tfrecord')}'"
            )
        if not matched:
            hint = _hint_below(pattern, data_dir) or _pattern_hint(patterns, data_dir, source)
            raise InputError(f"{where}no file matches '{full}'; {hint}")
        for path in matched:
            if os.path.islink(path) and not os.path.exists(path):
                raise InputError(
                    f"{where}'{path}' is a link to '{os.readlink(path)}', which does not exist; fix or remove it"
                )
            check_regular(path, where)
            shards.setdefault(identity(path, real), path)
    return sorted(shards.values())


def _find_remote(full: str, where: str) -> list[str]:
    import_quietly()
    import tensorflow as tf

    try:
        return files.find(full)
    except tf.errors.OpError as error:
        reason = files.why_unreadable(error)
        raise InputError(f"{where}cannot list '{full}' ({reason}); check the path, or give local shards") from error


def _is_directory(path: str) -> bool:
    if not files.has_scheme(path):
        return os.path.isdir(path)
    import tensorflow as tf  # already imported, to find the path

    return bool(tf.io.gfile.isdir(path))


def size_of(shard: str) -> int:
    """Returns the bytes of a shard."""
    if not files.has_scheme(shard):
        return os.path.getsize(shard)
    import tensorflow as tf  # already imported, to find the shard

    return int(tf.io.gfile.stat(shard).length)


def _pattern_hint(patterns: Sequence[str], data_dir: str, source: str) -> str:
    """Returns the advice for a pattern that matches nothing."""
    hint = "check --data_dir and the pattern" if data_dir else "check the pattern"
    if source.startswith("--") and len(patterns) > 1:
        hint += files.comma_hint(source)
    return hint


def _hint_below(pattern: str, data_dir: str) -> str:
    """Returns a hint that names directories up to two levels down with files that match; "" for none."""
    full = files.below(data_dir, pattern)
    if files.has_scheme(full):
        return ""
    is_relative = bool(data_dir) and not os.path.isabs(os.path.expanduser(pattern))
    top, name = (os.path.expanduser(data_dir), pattern) if is_relative else os.path.split(full)
    below = itertools.islice(itertools.chain(files.find("*", top), files.find("*/*", top)), _LOOKED_AT_BELOW)
    found = [path for path in below if os.path.isdir(path) and files.find(name, path)]
    if not found:
        return ""
    listed = ", ".join(f"{os.path.relpath(path, top or '.')}/" for path in found[:_SHOWN])
    give = f"--data_dir={found[0]}" if is_relative else f"'{os.path.join(found[0], name)}'"
    return f"below it there are such files in {listed}; give {give}"


def identity(path: str, real: Callable[[str], str] = os.path.realpath) -> str:
    """Returns the same string for all names of a file: its real path, or a path with a scheme as it is.

    Args:
      path: a file.
      real: `os.path.realpath`, or a cache of it.
    """
    if files.has_scheme(path):
        return path
    directory, name = os.path.split(path)
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(real(directory), name)


def assign_folds(shards: Sequence[str], num_folds: int) -> dict[str, int]:
    """Assigns shards, sorted by (sha256 of the base name, base name), to folds 0, 1, ... round-robin.

    Videos are spread over shards at random, so folds of whole shards are random samples. They need no copy of the data
    and no index.

    Returns:
      The fold of each shard, 0 to num_folds - 1, by base name.

    Raises:
      InputError: fewer than two folds, fewer shards than folds, or two shards of the same base name.
    """
    names = [os.path.basename(path) for path in shards]
    if not 2 <= num_folds <= len(names):
        raise InputError(f"num_folds must be from 2 to the number of shards, {len(names)}; got {num_folds}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two shards are named '{twice}'; folds are assigned by base name; rename one")
    dealt = sorted(names, key=lambda name: (hashlib.sha256(name.encode()).hexdigest(), name))
    return {name: position % num_folds for position, name in enumerate(dealt)}


def split_shards(data: DataConfig, data_dir: str) -> tuple[list[str], list[str], dict[str, int]]:
    """Returns the training and validation shards of a run.

    Returns:
      The training shards, the validation shards, and the fold of each shard of `data.train` by base name. With
      `data.num_folds`, fold `data.fold` is the validation set; otherwise there are no folds.

    Raises:
      InputError: see `list_shards` and `assign_folds`; or a shard is in both the training and the validation set.
    """
    training = list_shards(data.train, data_dir, "data.train")
    if not data.num_folds:
        validation = list_shards(data.validation, data_dir, "data.validation")
        seen = {identity(path) for path in training}
        if both := [path for path in validation if identity(path) in seen]:
            raise InputError(
                f"data.train and data.validation both match '{both[0]}'"
                f"{f' and {len(both) - 1} more' if len(both) > 1 else ''}; validation would say nothing about new"
                " videos: change one of the patterns, or hold out a fold with data.num_folds"
            )
        return training, validation, {}
    folds = assign_folds(training, data.num_folds)
    held_out = [path for path in training if folds[os.path.basename(path)] == data.fold]
    return [path for path in training if path not in set(held_out)], held_out, folds


def worker_share(shards: Sequence[str], worker: int, num_workers: int) -> list[str]:
    """Returns the shards that one of several workers reads: every `num_workers`-th, starting at `worker`."""
    return list(shards[worker::num_workers])
