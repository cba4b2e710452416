"""Where files are that are named relative to a data directory, local or remote, and why one cannot be read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

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
    return "no such file" if isinstance(error, tf.errors.NotFoundError) else " ".join(error.message.split())
