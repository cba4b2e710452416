"""Computes MAP@K of a submission of segments against the ratings in frame-level shards."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import integrity, record_check
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.rating_check import check_ratings
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.submissions import READER
from yt8m_tf.metrics.segment_map import (
    MAX_SEGMENTS,
    ClassRatings,
    SegmentMap,
    mean_average_precision,
    ratings_by_class,
)
from yt8m_tf.serving.segment_submission import read_submission

_GIVE = "give frame-level shards with ratings, such as those of 2019's validation"


@dataclasses.dataclass(frozen=True)
class SegmentRatings:
    """The ratings of many videos.

    Attributes:
      names: `video:start` of each rated segment, by number.
      by_class: the ratings of each class; segments are numbers.
    """

    names: Sequence[bytes]
    by_class: Mapping[int, ClassRatings]

    @property
    def num_ratings(self) -> int:
        """The number of rated (segment, class) pairs."""
        return sum(len(own.segments) for own in self.by_class.values())


def read_ratings(pattern: str, num_classes: int) -> SegmentRatings:
    """Reads the ratings of segments from shards.

    Args:
      pattern: pattern of frame-level shards.
      num_classes: class ids must be below it.

    Raises:
      InputError: no shard matches, or there are no ratings; see also `find_ratings`.
    """
    found = find_ratings(list_shards([pattern], source="--labels"), num_classes)
    if found is None:
        raise InputError(f"--labels={pattern}: no record has ratings of segments; {_GIVE}")
    return found


def find_ratings(shards: Sequence[str], num_classes: int) -> SegmentRatings | None:
    """Reads the ratings of segments from shards; returns None if there are none.

    A segment that starts beyond its clip counts like any other: it was rated.

    Args:
      shards: paths.
      num_classes: class ids must be below it.

    Raises:
      InputError: a shard is damaged, or has a record without an id, with the id of an earlier record or with invalid
        ratings.
    """
    data = DataConfig(level="frame", num_classes=num_classes, max_labels=num_classes)
    numbers: dict[bytes, int] = {}
    videos: set[bytes] = set()
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for path in shards:
        for number, serialized in enumerate(integrity.good_records(path)):
            try:
                video_id, (starts, classes, scores) = _parse(serialized, data)
                if video_id in videos:
                    raise ValueError("its id is that of an earlier record; give each shard once")
            except ValueError as error:
                name = record_check.video_id(serialized) or "no id"
                raise InputError(f"--labels: {path}: record {number} ({name}): {error}") from error
            videos.add(video_id)
            segments = [numbers.setdefault(b"%s:%d" % (video_id, start), len(numbers)) for start in starts.tolist()]
            parts.append((np.array(segments, np.int64), classes, scores))
        if damage := integrity.scan_shard(path).damage:
            raise InputError("--labels: " + damage.advise("yt8m-inspect can save the good records"))
    Faults().check_any(len(videos), shards, "--labels: no video was read")
    if not numbers:
        return None
    return SegmentRatings(list(numbers), ratings_by_class(*map(np.concatenate, zip(*parts, strict=True))))


def submission_map(path: Path, ratings: SegmentRatings, classes: Collection[int], k: int = MAX_SEGMENTS) -> SegmentMap:
    """Computes MAP@K of a submission.

    Args:
      path: path of the file (`serving.segment_submission`).
      ratings: the ratings of the segments.
      classes: the classes that the submission may have. Ratings of others are left out.
      k: K.

    Raises:
      InputError: no class was rated present, or none of the submitted segments was rated; see also `read_submission`.
    """
    by_class = {class_id: own for class_id, own in ratings.by_class.items() if class_id in classes}
    if not any(own.num_positives for own in by_class.values()):
        raise InputError("--labels: no class that may be submitted was rated present; give shards with such ratings")
    result = mean_average_precision(_numbered(path, ratings, classes, k), by_class, k)
    if not result.num_rated:
        raise InputError(f"--submission={path}: none of its segments was rated; give --labels of the same videos")
    return result


def _numbered(
    path: Path, ratings: SegmentRatings, classes: Collection[int], k: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each class and its list of a submission: segment numbers, or -1 if not rated for the class."""
    for class_id, names in read_submission(path, classes, k):
        own = ratings.by_class.get(class_id)
        # One table per class, not one of all names: small tables stay in the processor's cache (docs/BENCHMARKS.md).
        numbers = {} if own is None else {ratings.names[number]: number for number in own.segments.tolist()}
        yield class_id, np.fromiter(map(numbers.get, names, itertools.repeat(-1)), np.int64, len(names))


def _parse(serialized: bytes, data: DataConfig) -> tuple[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Parses the id of a clip, and the starts, classes and scores of its ratings, [N] each.

    Raises:
      ValueError: the record is invalid; the message says what is wrong.
    """
    record = record_check.parse_record(serialized)
    if record is None:
        raise ValueError(f"{len(serialized)} bytes that are not a record; give YouTube-8M shards")
    if record_check.record_level(record) == "video":
        raise ValueError(f"a record of the video level, which has no ratings of segments; {_GIVE}")
    context = record.context.feature
    video_id = next((own for key in schema.ID_KEYS for own in context[key].bytes_list.value if own), None)
    if video_id is None:
        raise ValueError("has no id; give YouTube-8M shards")
    if problem := check_ratings(context, data, READER):
        raise ValueError(problem)
    starts, classes = (
        np.array(context[key].int64_list.value, np.int64)
        for key in (schema.SEGMENT_STARTS_KEY, schema.SEGMENT_CLASSES_KEY)
    )
    return video_id, (starts, classes, np.array(context[schema.SEGMENT_SCORES_KEY].float_list.value, np.float32))
