"""Clips of a timeline: the scores of their windows, their labels, and the ratings of their segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from yt8m_tf.errors import InputError
from yt8m_tf.serving.segment_formats import SegmentRows

MOST_CLASSES = 1 << 20  # a class id this high is taken for an error
_SHOWN_IDS = 3
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, eq=False)
class WindowScores:
    """The scores of the W windows of a clip.

    Attributes:
      starts, ends: [W] frames, ascending.
      classes: [K] ids, ascending.
      scores: [W, K] float32 from 0 to 1; NaN if a class is not among the highest of a window.
      names: class id to name, for classes that have one.
    """

    starts: np.ndarray
    ends: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rating:
    """A rating of a class in a range of frames: 0 absent, 1 present; the mean if there are several ratings."""

    start: int
    end: int
    class_id: int
    rating: float


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The ground truth of a clip: its labels and the ratings of its segments."""

    labels: Sequence[int] = ()
    ratings: Sequence[Rating] = ()


def from_rows(segments: SegmentRows, names: Sequence[str] | None = None) -> WindowScores:
    """Converts the scores of a clip's windows from `serving.segment_inference`.

    Args:
      segments: the windows of the clip.
      names: names of all classes, by id, if they are known.
    """
    keep = segments.rows.keep
    assert keep is not None
    return window_scores(
        *(segments.starts, segments.ends, np.nonzero(keep)[0]),
        *(segments.rows.classes[keep], segments.rows.scores[keep], dict(enumerate(names or ()))),
    )


def window_scores(
    starts: np.ndarray,
    ends: np.ndarray,
    window_of: np.ndarray,
    class_of: np.ndarray,
    score_of: np.ndarray,
    names: Mapping[int, str],
) -> WindowScores:
    """Creates scores from P pairs, each a window, a class and a score; other arguments as in `WindowScores`."""
    classes, places = np.unique(class_of, return_inverse=True)
    scores = np.full((len(starts), len(classes)), np.nan, np.float32)
    scores[window_of, places] = score_of
    return WindowScores(starts, ends, classes, scores, names)


def choose(
    found: Iterator[tuple[str | None, _T]],
    ids: Sequence[str] | None,
    most: int,
    flag: str,
    fail: Callable[[str], InputError],
) -> dict[str, _T]:
    """Returns the requested clips by id, and reads no further than the last of them.

    Args:
      found: for each clip its id, or None if it has none, and its value.
      ids: the requested ids; None for the first clips. If an id occurs twice, its first clip is returned.
      most: number of clips if `ids` is None.
      flag: the flag that names the source.
      fail: creates the error for a message.

    Raises:
      InputError: a requested clip is missing, or there are no clips.
    """
    chosen: dict[str, _T] = {}
    seen: list[str] = []
    for video_id, value in found:
        if video_id is None:
            continue
        seen += [video_id] if len(seen) < _SHOWN_IDS else []
        if ids is None or video_id in ids:
            chosen.setdefault(video_id, value)
        if len(chosen) == (most if ids is None else len(set(ids))):
            break
    if missing := [video_id for video_id in ids or () if video_id not in chosen]:
        raise fail(f"--ids={missing[0]}: not in {flag}, which begins with {', '.join(seen) or 'nothing'}")
    if not chosen:
        raise fail(f"{flag}: contains no video; give another file")
    return chosen if ids is None else {video_id: chosen[video_id] for video_id in ids}
