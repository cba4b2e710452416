"""Reads the scores of clips' windows from JSON Lines of yt8m-infer --segments=5 --format=jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf.console.progress import Progress
from yt8m_tf.errors import InputError
from yt8m_tf.report.clips import MOST_CLASSES, WindowScores, choose, window_scores


def read_scores(
    path: Path, ids: Sequence[str] | None, most: int, names: Sequence[str] | None = None, progress: bool = True
) -> dict[str, WindowScores]:
    """Reads a file of yt8m-infer --segments=5 --format=jsonl.

    Args:
      path: the file.
      ids, most: see `clips.choose`.
      names: names of all classes, by id; None takes those of the file.
      progress: whether to show a progress bar.

    Raises:
      InputError: a requested video is missing, a line is not from that command, or the file cannot be read.
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
                        f"--input={path}: line {number} is not from yt8m-infer --segments=5 --format=jsonl; give such a"
                        " file, or --saved_model with shards"
                    ) from error
                bar.update(len(line))

    try:
        chosen = choose(found(), ids, most, f"--input={path}", InputError)
    except OSError as error:
        raise InputError(f"--input={path}: cannot be read: {error.strerror}; check the path") from error
    if names is None:
        return chosen
    return {video: dataclasses.replace(own, names=dict(enumerate(names))) for video, own in chosen.items()}


def _parse_line(line: bytes, ids: Sequence[str] | None) -> tuple[str, WindowScores]:
    """Parses a line of `segment_formats.encode_json`; only the id if the video is not requested.

    Raises:
      ValueError, LookupError, TypeError, AttributeError: the line is not in this format.
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
        raise TypeError("values that must be whole numbers are not")
    if not all(isinstance(name, str) for name in names.values()):
        raise TypeError("names that are not text")
    "".join([video_id, *names.values()]).encode()  # fails for lone surrogates, which JSON allows but UTF-8 does not
    firsts, stops, windows, class_of = (np.array(values, np.int64) for values in (starts, ends, window_of, classes))
    found = window_scores(firsts, stops, windows, class_of, np.array(scores, np.float32), names)
    _check_ranges(found)
    return video_id, found


def _check_ranges(found: WindowScores) -> None:
    right = (
        (found.starts >= 0).all() and (found.starts < found.ends).all() and (np.diff(found.starts) > 0).all(),
        not ((found.scores < 0) | (found.scores > 1)).any(),
        not len(found.classes) or (found.classes[0] >= 0 and found.classes[-1] < MOST_CLASSES),
    )
    if not all(right):
        raise ValueError("numbers that are out of range")
