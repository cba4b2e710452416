"""Results of readers of features: videos, and the problems of those that cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

# Unpickling runs code.
PICKLE = "a pickle: reading it would run whatever code is in it; save plain arrays of numbers"


class Video(NamedTuple):
    """The features of a video.

    Attributes:
      source: where the features come from, for messages.
      id: the video's id.
      features: name to floats [T, D], or [D] if there are no frames.
    """

    source: str
    id: str
    features: Mapping[str, np.ndarray]


class Problem(NamedTuple):
    """The reason why a video is left out.

    Attributes:
      source: where the video should come from; "" if it has no source.
      id: the video's id; "" if it is not known.
      problem: what is wrong, in one line.
    """

    source: str
    id: str
    problem: str


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A part of a source that is read at once.

    Attributes:
      paths: the files that it is read from.
      names: the names of the features in the files, if the files do not name them.
      part: the number of the part, for a source that divides files.
      num_videos: number of videos; None if it is not known in advance.
    """

    paths: Sequence[str]
    names: Sequence[str] = ()
    part: int = 0
    num_videos: int | None = None


class Reader(Protocol):
    """Reads features. It is sent to other processes, and its `repr` contains everything that its results depend on."""

    def read(self, chunk: Chunk) -> Iterator[Video | Problem]:
        """Yields the videos of a part, in order."""
