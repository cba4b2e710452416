"""Paths that users give, and writing so that a file is there only when it is whole."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf


def below(data_dir: str, path: str) -> str:
    """`path`, relative to `data_dir` unless it is absolute or has a scheme, such as "gs://"; `~` is the home."""
    return os.path.join("" if "://" in path else os.path.expanduser(data_dir), os.path.expanduser(path))


def matching(patterns: Iterable[str]) -> list[Path]:
    """The local paths that patterns match, sorted within each; a pattern itself where it matches none, for messages."""
    expanded = [os.path.expanduser(pattern) for pattern in patterns]
    return [Path(found) for pattern in expanded for found in sorted(glob.glob(pattern)) or [pattern]]


def why_unreadable(error: tf.errors.OpError) -> str:
    """What `tf.io.gfile` says of a file that it cannot read, in a few words."""
    import tensorflow as tf  # its error is at hand, so that it is imported already

    return "no such file" if isinstance(error, tf.errors.NotFoundError) else " ".join(error.message.split())


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
