"""What is known of single clips: scores of their windows, labels, ratings. From shards and a model, or JSON Lines."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import integrity, record_check
from yt8m_tf.data.rating_check import check_ratings
from yt8m_tf.errors import InputError
from yt8m_tf.serving.segment_formats import SegmentRows
from yt8m_tf.serving.windows import Windows

_MOST_CLASSES = 1 << 20  # above it, a class id is taken for something else
_SHOWN_IDS = 3
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, eq=False)
class WindowScores:
    """The scores of the W windows of a clip.

    Attributes:
      starts, ends: [W] frames, ascending.
      classes: [K] ids, ascending.
      scores: [W, K] float32 from 0 to 1; NaN where a window has no score of the class: it was not among its highest.
      names: of the classes that have one.
    """

    starts: np.ndarray
    ends: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rating:
    """Whether a class is there from one frame to another: 0 absent, 1 present; the mean where it was rated often."""

    start: int
    end: int
    class_id: int
    rating: float


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What people, or the dataset's makers, say of a clip: its labels and the ratings of its segments."""

    labels: Sequence[int] = ()
    ratings: Sequence[Rating] = ()


def from_rows(segments: SegmentRows, names: Sequence[str] | None = None) -> WindowScores:
    """The scores of a clip's windows, as `serving.segment_inference` has them.

    Args:
      segments: the windows of the clip.
      names: of all classes, by id, where they are known.
    """
    keep = segments.rows.keep
    assert keep is not None
    return _window_scores(
        *(segments.starts, segments.ends, np.nonzero(keep)[0]),
        *(segments.rows.classes[keep], segments.rows.scores[keep], dict(enumerate(names or ()))),
    )


def find_records(
    shards: Sequence[str],
    ids: Sequence[str] | None,
    most: int,
    flag: str,
    id_keys: Sequence[str] = schema.ID_KEYS,
    progress: bool = True,
) -> dict[str, tuple[str, bytes]]:
    """Looks for clips in shards, no further than to the last one that is wanted.

    Args:
      shards: paths.
      ids: of the videos; None: the first ones.
      most: how many are the first ones.
      flag: that names the shards.
      id_keys: the keys that records may hold their id under.
      progress: whether to show a progress bar.

    Returns:
      By id, in the order of `ids` or of the shards, the shard and the record.

    Raises:
      InputError: a video is not there, or a shard is damaged before it.
    """

    def found() -> Iterator[tuple[str | None, tuple[str, bytes]]]:
        with Progress(
            total=len(shards), desc="looking for videos", unit="shard", leave=False, disable=not progress
        ) as bar:
            for shard in shards:
                for serialized in integrity.good_records(shard):
                    yield record_check.video_id(serialized, id_keys), (shard, serialized)
                bar.update()

    def fail(message: str) -> InputError:
        damage = integrity.find_damage(shards)
        return InputError(f"{flag}: {damage.advise('yt8m-inspect can save the good records')}" if damage else message)

    return _chosen(found(), ids, most, flag, fail)


def read_scores(
    path: Path, ids: Sequence[str] | None, most: int, names: Sequence[str] | None = None, progress: bool = True
) -> dict[str, WindowScores]:
    """Reads what yt8m-infer --segments=5 --format=jsonl wrote.

    Args:
      path: of the file.
      ids, most, progress: see `find_records`.
      names: of all classes, by id; None: those that the file has.

    Raises:
      InputError: a video is not there; a line is none of that command's; it cannot be read.
    """

    def found() -> Iterator[tuple[str, WindowScores]]:
        total = path.stat().st_size
        bar = Progress(
            total=total, desc="looking for videos", unit="B", unit_scale=True, leave=False, disable=not progress
        )
        with path.open("rb") as file, bar:
            for number, line in enumerate(file, start=1):
                try:
                    yield _parse_line(line, ids)
                except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
                    raise InputError(
                        f"--input={path}: line {number} is none of yt8m-infer --segments=5 --format=jsonl; give such a"
                        " file, or --saved_model with shards"
                    ) from error
                bar.update(len(line))

    try:
        chosen = _chosen(found(), ids, most, f"--input={path}", InputError)
    except OSError as error:
        raise InputError(f"--input={path}: cannot be read: {error.strerror}") from error
    if names is None:
        return chosen
    return {video: dataclasses.replace(own, names=dict(enumerate(names))) for video, own in chosen.items()}


def read_annotations(
    shard: str, serialized: bytes, num_classes: int | None = None, labels_key: str = schema.LABELS_KEY
) -> Annotations:
    """The labels of a frame-level record, and the ratings of its segments.

    Args:
      shard: that it is from, for messages.
      serialized: the record.
      num_classes: no class may reach it; None: any number.
      labels_key: the key of the labels.

    Raises:
      InputError: labels or ratings that are none.
    """
    record = record_check.parse_record(serialized)
    assert record is not None  # it has an id
    context = record.context.feature
    most = num_classes or _MOST_CLASSES
    data = DataConfig(level="frame", num_classes=most, max_labels=most)
    labels = list(dict.fromkeys(context[labels_key].int64_list.value))
    problem = check_ratings(context, data, record_check.Reader(model="the scores"))
    if wrong := [label for label in labels if not 0 <= label < most]:
        problem = f"label {wrong[0]} is not from 0 to {most - 1}; give the shards that were scored"
    if problem:
        raise InputError(f"{shard}: record{integrity.named(serialized)}: {problem}")
    starts, classes = (context[key].int64_list.value for key in (schema.SEGMENT_STARTS_KEY, schema.SEGMENT_CLASSES_KEY))
    ends = context[schema.SEGMENT_ENDS_KEY].int64_list.value or [start + Windows.size for start in starts]
    of_pair = collections.defaultdict(list)
    for start, end, class_id, rating in zip(
        starts, ends, classes, context[schema.SEGMENT_SCORES_KEY].float_list.value, strict=True
    ):
        of_pair[start, end, class_id].append(rating)
    ratings = [Rating(*pair, float(np.mean(given))) for pair, given in of_pair.items()]
    return Annotations(labels, ratings)


def _chosen(
    found: Iterator[tuple[str | None, _T]],
    ids: Sequence[str] | None,
    most: int,
    flag: str,
    fail: Callable[[str], InputError],
) -> dict[str, _T]:
    """Those of the wanted ids; of none that is there twice the second one is looked at."""
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
        raise fail(f"{flag}: holds no video")
    return chosen if ids is None else {video_id: chosen[video_id] for video_id in ids}


def _parse_line(line: bytes, ids: Sequence[str] | None) -> tuple[str, WindowScores]:
    """A line of `segment_formats.encode_json`; of a video that is not wanted only the id is looked at.

    Raises:
      ValueError, LookupError, TypeError, AttributeError: it is none.
    """
    contents = json.loads(line)
    video_id, segments = contents["id"], contents["segments"]
    if not isinstance(video_id, str) or not isinstance(segments, list):
        raise TypeError("no id, or no segments")
    if ids is not None and video_id not in ids:
        segments = []
    elif not segments:
        raise ValueError("a video without windows")
    starts, ends, window_of, classes, scores = ([] for _ in range(5))  # type: ignore[var-annotated]
    names: dict[int, str] = {}
    for number, segment in enumerate(segments):
        starts.append(segment["start"])
        ends.append(segment["end"])
        for class_id, score in zip(segment["ids"], segment["scores"], strict=True):
            window_of.append(number)
            classes.append(class_id)
            scores.append(score)
        if "names" in segment:
            names |= zip(segment["ids"], segment["names"], strict=True)
    if not all(type(value) is int for value in starts + ends + classes):
        raise TypeError("what should be whole numbers is something else")
    if not all(isinstance(name, str) for name in names.values()):
        raise TypeError("names that are no text")
    "".join([video_id, *names.values()]).encode()  # JSON can say half a character, which no page can hold
    firsts, stops, windows, class_of = (np.array(values, np.int64) for values in (starts, ends, window_of, classes))
    found = _window_scores(firsts, stops, windows, class_of, np.array(scores, np.float32), names)
    _check_ranges(found)
    return video_id, found


def _check_ranges(found: WindowScores) -> None:
    right = (
        (found.starts >= 0).all() and (found.starts < found.ends).all() and (np.diff(found.starts) > 0).all(),
        not ((found.scores < 0) | (found.scores > 1)).any(),
        not len(found.classes) or (found.classes[0] >= 0 and found.classes[-1] < _MOST_CLASSES),
    )
    if not all(right):
        raise ValueError("numbers that are out of range")


def _window_scores(
    starts: np.ndarray,
    ends: np.ndarray,
    window_of: np.ndarray,
    class_of: np.ndarray,
    score_of: np.ndarray,
    names: Mapping[int, str],
) -> WindowScores:
    """From pairs: the window, the class and the score of each."""
    classes, places = np.unique(class_of, return_inverse=True)
    scores = np.full((len(starts), len(classes)), np.nan, np.float32)
    scores[window_of, places] = score_of
    return WindowScores(starts, ends, classes, scores, names)
