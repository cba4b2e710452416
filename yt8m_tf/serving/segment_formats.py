"""Output formats of segments: a submission to the 2019 challenge, or JSON Lines with a line for each video."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf.errors import InputError
from yt8m_tf.metrics.segment_map import MAX_SEGMENTS, TopSegments
from yt8m_tf.serving.formats import Format, Rows, join_text
from yt8m_tf.serving.segment_submission import write_submission

_PAIR = np.dtype([("start", "<i4"), ("class", "<i4"), ("score", "<f4")])


@dataclasses.dataclass(frozen=True)
class SegmentRows:
    """Scores of the W windows of one video.

    Attributes:
      starts, ends: [W], in frames.
      rows: scores of the windows, each with the id of the video; `keep` is not None.
    """

    starts: np.ndarray
    ends: np.ndarray
    rows: Rows

    @property
    def video_id(self) -> bytes:
        """The id of the video."""
        return bytes(self.rows.ids[0])


def encode_json(segments: SegmentRows) -> bytes:
    """Encodes a line: an object with id and segments; each has start, end, ids and scores, as in `formats`."""
    found = []
    windows = zip(segments.starts.tolist(), segments.ends.tolist(), segments.rows.pairs(), strict=True)
    for start, end, (_, classes, scores) in windows:
        names = segments.rows.names
        named = {} if names is None else {"names": [names[c] for c in classes]}
        found.append({"start": start, "end": end, **named, "ids": classes, "scores": scores})
    video_id = segments.video_id.decode("utf-8", "backslashreplace")
    return (json.dumps({"id": video_id, "segments": found}, ensure_ascii=False) + "\n").encode()


def encode_pairs(segments: SegmentRows) -> bytes:
    """Encodes the id and the pairs of a video as two arrays, 12 bytes per pair, for `join_submission`.

    Raises:
      InputError: the id has a space in it, which separates segments in a submission.
    """
    video_id, keep = segments.video_id, segments.rows.keep
    assert keep is not None
    if len(video_id.split()) != 1 or video_id.strip() != video_id:
        name = video_id.decode("utf-8", "backslashreplace")
        raise InputError(f"video '{name}': an id in a submission must not have spaces; give --format=jsonl")
    pairs = np.empty(int(np.count_nonzero(keep)), _PAIR)
    pairs["start"] = np.broadcast_to(segments.starts[:, None], keep.shape)[keep]
    pairs["class"], pairs["score"] = segments.rows.classes[keep], segments.rows.scores[keep]
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(video_id, np.uint8))
    np.save(buffer, pairs)
    return buffer.getvalue()


def segment_format(layout: str, num_classes: int, classes: Sequence[int] | None) -> Format:
    """Chooses the output format of segments.

    Args:
      layout: "csv", the submission, or "jsonl".
      num_classes: C; class ids are below it.
      classes: the classes of a submission's lines, in this order; None: all classes that have a segment.

    Raises:
      InputError: `layout` is neither.
    """
    if layout == "jsonl":
        return Format("jsonl", encode_json, join_text)
    if layout != "csv":
        raise InputError(f"--format={layout}: segments are written as csv, which is a submission, or jsonl; give one")

    def join(parts: Sequence[Path], output: Path) -> None:
        join_submission(parts, output, num_classes, classes)

    return Format("pairs", encode_pairs, join, has_names=False)


def join_submission(
    parts: Sequence[Path],
    output: Path,
    num_classes: int,
    classes: Collection[int] | None = None,
    k: int = MAX_SEGMENTS,
) -> None:
    """Writes a submission with the K best segments of each class in files of `encode_pairs`.

    Segments with equal scores are in the order of the files: by shard, video and time. Memory is that of `TopSegments`.
    """
    top = TopSegments(num_classes, k)
    videos: list[bytes] = []
    video_of, starts = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    size = 0
    for video_id, pairs in _read_pairs(parts):
        own, places = np.unique(pairs["start"], return_inverse=True)
        top.add(size + places.astype(np.int64), pairs["class"].astype(np.int64), pairs["score"])
        video_of.append(np.full(len(own), len(videos), np.int32))
        starts.append(own)
        videos.append(video_id)
        size += len(own)
    of_segment, start_of = np.concatenate(video_of), np.concatenate(starts)

    def lists() -> Iterator[tuple[int, list[bytes]]]:
        for class_id in range(num_classes) if classes is None else classes:
            best, _ = top.ranked(class_id)
            if classes is not None or len(best):
                named = zip(of_segment[best].tolist(), start_of[best].tolist(), strict=True)
                yield class_id, [b"%s:%d" % (videos[video], start) for video, start in named]

    write_submission(output, lists())


def _read_pairs(parts: Sequence[Path]) -> Iterator[tuple[bytes, np.ndarray]]:
    for path in parts:
        size = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < size:
                video_id = np.load(file).tobytes()
                yield video_id, np.load(file)
