"""Finds video files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from yt8m_tf import files
from yt8m_tf.conversion.rows import is_table
from yt8m_tf.conversion.tables import LabelTable
from yt8m_tf.errors import InputError
from yt8m_tf.regular import check_regular


def find_videos(
    patterns: Sequence[str], table: LabelTable | None, leave_out: Path, flag: str = "--input"
) -> dict[str, Path]:
    """Finds video files, by the ids of the videos.

    The id is the file's name without its suffix, or with the suffix if the table lists it so.

    Args:
      patterns: files, patterns, or directories, which stand for all files in and below them that are neither hidden nor
        tables.
      table: the table of labels, if there is one.
      leave_out: a directory whose files are not videos, because shards are written there.
      flag: the flag that names the patterns, for messages.

    Raises:
      InputError: there is no file, a path or pattern matches nothing, or two files have the same id.
    """
    found: dict[str, Path] = {}
    for path in _files(patterns, flag):
        if leave_out.resolve() in path.resolve().parents:
            continue
        video_id = path.name if table is not None and path.name in table.rows else path.stem
        same = found.setdefault(video_id, path)
        if same.resolve() != path.resolve():  # one file by two names is one video
            raise InputError(f"{flag}: {same} and {path} have the same id, '{video_id}'; rename one of them")
    if not found:
        raise InputError(f"{flag}={','.join(patterns)}: no file there; name a directory of videos, or a pattern")
    return found


def _files(patterns: Sequence[str], flag: str) -> Iterator[Path]:
    for path in files.matching(patterns, flag):
        if not path.exists():
            problem = f"a link to '{path.readlink()}', which does not exist" if path.is_symlink() else "no such file"
            raise InputError(f"{flag}={path}: {problem}; name videos, a directory of them, or a pattern")
        if not path.is_dir():
            check_regular(path, f"{flag}: ")
            yield path
            continue
        for folder, below, names in os.walk(path):
            below[:] = sorted(name for name in below if not name.startswith("."))
            inside = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
            for file in inside:
                if not is_table(file):
                    check_regular(file, f"{flag}: ")
                    yield file
