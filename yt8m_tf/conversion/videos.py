"""Results of readers of features: videos, and problems of those that cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

# A pickle is a program: reading one runs it.
PICKLE = "a pickle: reading it would run whatever code is in it; save plain arrays of numbers"


class Video(NamedTuple):
    """The features of a video.

    Attributes:
      source: where they come from, for people.
      id: of the video.
      features: name to floats [T, D], or [D] where there are no frames.
    """

    source: str
    id: str
    features: Mapping[str, np.ndarray]


class Problem(NamedTuple):
    """The reason for which a video is left out.

    Attributes:
      source: where it should come from; "" where it comes from nowhere.
      id: of the video; "" where it is not known.
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
      names: of the features that the files hold, where they do not say so themselves.
      part: which part of them, for a source that divides files.
      num_videos: in it; None where that is not known before.
    """

    paths: Sequence[str]
    names: Sequence[str] = ()
    part: int = 0
    num_videos: int | None = None


class Reader(Protocol):
    """Reads features. It is sent to other processes, and its `repr` says all that its results depend on."""

    def read(self, chunk: Chunk) -> Iterator[Video | Problem]:
        """The videos of a part, in their order."""
