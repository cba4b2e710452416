"""Reads NumPy files, one or more for each video: `.npy` has one feature, `.npz` several by name.

Nothing is ever unpickled: arrays of objects, and pickles with the suffix of an array file, are rejected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import files
from yt8m_tf.conversion.videos import PICKLE, Chunk, Problem, Video

SUFFIXES = (".npy", ".npz")
_NPY, _ZIP, _PICKLE = b"\x93NUMPY", b"PK\x03\x04", b"\x80"  # first bytes
_VIDEOS = 32  # videos in a chunk


def chunks(paths: Mapping[str, Sequence[str]]) -> list[Chunk]:
    """Groups files of arrays into chunks of videos; a video's id is the name of its files without the suffix.

    Args:
      paths: maps the name of a feature to the paths of its files, and "" to files that name their arrays themselves.
    """
    by_id: dict[str, list[tuple[str, str]]] = {}
    for name, own in paths.items():
        for path in own:
            by_id.setdefault(Path(path).stem, []).append((path, name))
    groups = list(by_id.values())
    found = []
    for first in range(0, len(groups), _VIDEOS):
        part = groups[first : first + _VIDEOS]
        own_paths, names = zip(*(pair for group in part for pair in group), strict=True)
        found.append(Chunk(own_paths, names, num_videos=len(part)))
    return found


@dataclasses.dataclass(frozen=True)
class ArrayReader:
    """Reads files of arrays.

    Attributes:
      wanted: names of the features to read; None: all.
    """

    wanted: Sequence[str] | None = None

    def read(self, chunk: Chunk) -> Iterator[Video | Problem]:
        """See `videos.Reader`."""
        by_id: dict[str, list[tuple[str, str]]] = {}
        for path, name in zip(chunk.paths, chunk.names, strict=True):
            by_id.setdefault(Path(path).stem, []).append((path, name))
        for video_id, own in by_id.items():
            first, features = own[0][0], dict[str, np.ndarray]()
            for path, name in own:
                try:
                    arrays = _load(path, name)
                except ValueError as error:
                    yield Problem(path, video_id, str(error))
                    break
                if twice := arrays.keys() & features.keys():
                    yield Problem(path, video_id, f"{min(twice)} of this id is in {first}, too; rename one of them")
                    break
                features |= arrays
            else:
                kept = [name for name in features if self.wanted is None or name in self.wanted]
                yield Video(first, video_id, {name: features[name] for name in kept})


def _load(path: str, name: str) -> dict[str, np.ndarray]:
    """Loads the arrays of a file, by the names of their features.

    Raises:
      ValueError: the file cannot be read; the message says why in one line.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(_NPY))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if head.startswith(_PICKLE):
        raise ValueError(PICKLE)
    if not head.startswith((_NPY, _ZIP)):
        raise ValueError("not a NumPy file: its first bytes differ")
    try:
        with open(path, "rb") as file:
            return files.read_arrays(file) if head.startswith(_ZIP) else {name: np.load(file, allow_pickle=False)}
    except Exception as error:  # NumPy raises a dozen types for bad headers, MemoryError among them
        if "allow_pickle" in str(error):
            raise ValueError(PICKLE) from error
        raise ValueError(f"damaged: {' '.join(str(error).split())}") from error
