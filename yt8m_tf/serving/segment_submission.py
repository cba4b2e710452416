"""The submission file of the 2019 challenge, with the best segments of each class, and its list of classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.segment_map import MAX_SEGMENTS
from yt8m_tf.regular import check_regular

HEADER = b"Class,Segments"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEGMENT = re.compile(rb"\S+:(?:0|[1-9][0-9]*)")
_GIVE_CLASSES = "give the dataset's segment_label_ids.csv"


def read_classes(path: str | Path, num_classes: int | None = None, flag: str = "--classes") -> list[int]:
    """Reads the classes with rated segments from the column Index of the dataset's segment_label_ids.csv.

    Args:
      path: the file; other columns are ignored, so that the vocabulary.csv of 2019 can be read, too.
      num_classes: all class ids must be below it; None: not known.
      flag: the flag that names the file, for messages.

    Returns:
      The classes, ascending.

    Raises:
      InputError: the file cannot be read, lacks the column, or has no class, a class twice or one out of range.
    """
    lines: dict[int, int] = {}
    check_regular(path, f"{flag}: ")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = CsvRows(file)
            if "Index" not in (rows.fieldnames or ()):
                raise InputError(f"{flag}={path}: has no column 'Index'; {_GIVE_CLASSES}")
            for row in rows:
                where, text = f"{flag}={path}: line {rows.line_num}", row["Index"] or ""
                if not (text.isascii() and text.isdecimal()):
                    raise InputError(f"{where}: '{text}' is not a class id; {_GIVE_CLASSES}")
                if num_classes is not None and int(text) >= num_classes:
                    raise InputError(f"{where}: class {text} is not one of the {num_classes} classes, numbered from 0")
                if int(text) in lines:
                    raise InputError(f"{where}: class {text} is already in line {lines[int(text)]}")
                lines[int(text)] = rows.line_num
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be read: {error.strerror}; {_GIVE_CLASSES}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{flag}={path}: not a CSV file ({error}); {_GIVE_CLASSES}") from error
    if not lines:
        raise InputError(f"{flag}={path}: names no class; {_GIVE_CLASSES}")
    return sorted(lines)


def is_segment_submission(path: Path, flag: str = "--submission") -> bool:
    """Returns whether a file starts with the header of a segment submission.

    Raises:
      InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _is_header(file.readline(len(_BYTE_ORDER_MARK) + len(HEADER) + 2))
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be read: {error.strerror}; check the path") from error


def write_submission(path: Path, lists: Iterable[tuple[int, Iterable[bytes]]]) -> None:
    """Writes a submission.

    Args:
      path: path of the file.
      lists: a class and its segments, `video:start`, best first; a line each, in this order.
    """
    with path.open("wb") as file:
        file.write(HEADER + b"\n")
        for class_id, segments in lists:
            file.write(b"%d,%s\n" % (class_id, b" ".join(segments)))


def read_submission(
    path: Path, classes: Collection[int], k: int = MAX_SEGMENTS, flag: str = "--submission"
) -> Iterator[tuple[int, list[bytes]]]:
    """Reads a submission line by line, with one class in memory: about 15 MB for 100,000 segments.

    Args:
      path: the file, with or without a byte order mark.
      classes: the classes that it may have.
      k: K, the largest number of segments of a class.
      flag: the flag that names the file, for messages.

    Yields:
      A class and its segments, `video:start`, best first. The list of a class may be empty.

    Raises:
      InputError: the file cannot be read, or has another header or no class; or a line has an unknown class, the class
        of an earlier line, an invalid or repeated segment, or more than K segments.
    """
    lines: dict[int, int] = {}
    try:
        with path.open("rb") as file:
            header = file.readline()
            if not _is_header(header):
                first = header.strip().decode(errors="backslashreplace")[:80] or "nothing"
                raise InputError(f"{flag}={path}: line 1 contains {first}, not {HEADER.decode()}; is it compressed?")
            for number, line in enumerate(file, start=2):
                try:
                    class_id, segments = _parse(line, classes, k)
                    if class_id in lines:
                        raise ValueError(f"class {class_id} is already in line {lines[class_id]}")
                except ValueError as error:
                    raise InputError(f"{flag}={path}: line {number} cannot be read: {error}") from error
                lines[class_id] = number
                yield class_id, segments
    except OSError as error:
        raise InputError(f"{flag}={path}: cannot be read: {error.strerror}; check the path") from error
    if not lines:
        raise InputError(f"{flag}={path}: has no class; give a file with a line for each class")


def _is_header(line: bytes) -> bool:
    return line.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r\n") == HEADER


def _parse(line: bytes, classes: Collection[int], k: int) -> tuple[int, list[bytes]]:
    name, comma, text = line.partition(b",")
    if not comma or not name.isdigit():
        shown = name.strip().decode(errors="backslashreplace")[:80]
        raise ValueError(f"'{shown}' is not a class id and a comma; write a class and its segments")
    class_id, segments = int(name), text.split()
    if class_id not in classes:
        raise ValueError(f"class {class_id} is not one of the {len(classes):,} that may be submitted")
    if len(segments) > k:
        raise ValueError(f"{len(segments):,} segments; write at most the {k:,} best")
    if wrong := next((word for word in segments if not _SEGMENT.fullmatch(word)), None):
        raise ValueError(f"'{wrong.decode(errors='backslashreplace')[:80]}' is not a segment, such as 6l0e:100")
    if len(set(segments)) < len(segments):
        twice = _first_repeated(segments).decode(errors="backslashreplace")
        raise ValueError(f"segment {twice} occurs twice")
    return class_id, segments


def _first_repeated(words: Iterable[bytes]) -> bytes:
    seen: set[bytes] = set()
    return next(word for word in words if word in seen or seen.add(word))  # type: ignore[func-returns-value]
