"""Detects the kind of feature files, and chooses their reader."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from yt8m_tf import files
from yt8m_tf.conversion import array_files, feature_tables, mediapipe
from yt8m_tf.conversion.videos import PICKLE, Chunk, Reader
from yt8m_tf.errors import InputError
from yt8m_tf.regular import check_regular

_FLAG = "--input"
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_KINDS = (mediapipe.SUFFIXES, array_files.SUFFIXES, feature_tables.SUFFIXES)


def open_source(
    patterns: Sequence[str], wanted: Sequence[str] | None, id_column: str, other_columns: Sequence[str]
) -> tuple[Reader, list[Chunk]]:
    """Chooses the reader of feature files, and lists its parts in a deterministic order.

    Args:
      patterns: patterns of files of one kind: MediaPipe's `.pb`, `.npy` and `.npz`, or `.csv` and `.parquet`. Patterns
        of `.npy` files are NAME=PATTERN, because these files do not name their feature.
      wanted: names of features; None: all.
      id_column: column of ids in tables.
      other_columns: columns of tables that are not features.

    Raises:
      InputError: there are no such files, the files are of different kinds, or a table has no features.
    """
    if not patterns:
        raise InputError(f"{_FLAG}=: names nothing; give files of features, or patterns of them")
    found = _find(patterns)
    suffixes = {Path(path).suffix.lower(): path for paths in found.values() for path in paths}
    if pickles := [path for suffix, path in suffixes.items() if suffix in _PICKLES]:
        raise InputError(f"{_FLAG}={pickles[0]}: {PICKLE}, such as .npy or .npz")
    for suffix, path in suffixes.items():
        if not any(suffix in kind for kind in _KINDS):
            known = ", ".join(suffix for kind in _KINDS for suffix in kind)
            raise InputError(f"{_FLAG}={path}: features are read from {known} files; give such files")
    kinds = [kind for kind in _KINDS if suffixes.keys() & {*kind}]
    if len(kinds) > 1:
        shown = " and ".join(next(path for suffix, path in suffixes.items() if suffix in kind) for kind in kinds)
        raise InputError(f"{_FLAG}: {shown} are of different kinds; convert them one kind after the other")
    if unnamed := [path for path in found.get("", []) if _is_npy(path)]:
        raise InputError(f"{_FLAG}={unnamed[0]}: does not name its feature; write NAME=PATTERN, as in rgb=*.npy")
    if named := [name for name, paths in found.items() if name and not all(map(_is_npy, paths))]:
        raise InputError(f"{_FLAG}={named[0]}=...: only .npy files are named; leave '{named[0]}=' out")
    if kinds[0] is array_files.SUFFIXES:
        return array_files.ArrayReader(wanted), array_files.chunks(found)
    paths = found[""]
    if kinds[0] is mediapipe.SUFFIXES:
        return mediapipe.MediaPipeReader(wanted), mediapipe.chunks(paths)
    columns = feature_tables.find_columns(Path(paths[0]), id_column, other_columns, wanted)
    return feature_tables.TableReader(columns, id_column), feature_tables.chunks(paths)


def _find(patterns: Sequence[str]) -> dict[str, list[str]]:
    """Returns files by the names in their patterns, "" without a name; each file once, in alphabetical order.

    Broken links are included, so that the report names them.
    """
    found: dict[str, dict[tuple[str, str], str]] = {}
    for given in patterns:
        match = _NAMED.fullmatch(given)
        name, pattern = (match[1], match[2]) if match and not files.find(given) else ("", given)
        paths = [path for path in files.find(str(files.local_path(pattern, _FLAG))) if not Path(path).is_dir()]
        if not paths:
            hint = files.comma_hint(_FLAG) if len(patterns) > 1 else ""
            raise InputError(f"{_FLAG}={given}: matches no file; check the pattern, such as 'features/*.npz'{hint}")
        own = found.setdefault(name, {})
        for path in paths:
            check_regular(path, f"{_FLAG}: ")
            own.setdefault((os.path.realpath(path), os.path.basename(path)), path)  # a link's name is another id
    return {name: sorted(paths.values()) for name, paths in found.items()}


def _is_npy(path: str) -> bool:
    return path.lower().endswith(".npy")
