"""Tables of labels: the videos, their labels, and their splits."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from yt8m_tf import files
from yt8m_tf.config.strict_yaml import nearest
from yt8m_tf.conversion.rows import column_names, read_rows
from yt8m_tf.errors import InputError

Split = Literal["train", "validate", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
VOCABULARY = "vocabulary.csv"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, about one video.

    Attributes:
      labels: distinct class ids, in the table's order; None if the video has none.
      split: the video's split.
    """

    labels: tuple[int, ...] | None
    split: Split


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """A table of videos, with their labels and splits.

    Attributes:
      rows: rows by video id, in the table's order.
      class_names: the name of each class, by class id; empty if nothing is known about classes.
      vocabulary: the vocabulary that the names come from; None if they come from the table.
      path: the file that the table was read from, if any.
    """

    rows: Mapping[str, Row]
    class_names: Sequence[str]
    vocabulary: Path | None = None
    path: Path | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class TableFormat:
    """The layout of a table of labels.

    Attributes:
      id_column: column of the videos' ids.
      labels_column: column of their labels, which are ids or names of classes: a list (Parquet), a number, or a text of
        several labels. An empty cell means that nothing is known about the video's labels.
      split_column: column of "train", "validate" or "test"; without such a column, `validate_share` applies.
      separator: the separator of labels in a text.
      validate_share: the share of the videos used for validation, if there are no splits. The choice depends only on
        each video's id, so that new videos do not change the split of others.
    """

    id_column: str = "id"
    labels_column: str = "labels"
    split_column: str = "split"
    separator: str = ";"
    validate_share: float = 0.1


def read_table(
    path: Path, form: TableFormat | None = None, vocabulary: Path | None = None, flag: str = "--labels"
) -> LabelTable:
    """Reads a CSV or Parquet table with a row for each video.

    If all labels are whole numbers, they are class ids; otherwise all are class names. Without a vocabulary, the
    classes are 0 to the highest id, or the names in alphabetical order.

    Args:
      path: the table.
      form: its columns.
      vocabulary: a vocabulary.csv of the classes of the labels.
      flag: the flag that names the table, for messages.

    Raises:
      InputError: the table or vocabulary cannot be read, an id is missing or repeated, a split is invalid, or a label
        is not in the vocabulary or is the name of several classes.
    """
    form = form or TableFormat()
    has_splits = form.split_column in column_names(path, flag)
    columns = [form.id_column, form.labels_column, *([form.split_column] if has_splits else [])]
    lines: dict[str, int] = {}
    labels: dict[str, list[str] | None] = {}
    splits: dict[str, Split] = {}
    for line, row in read_rows(path, columns, flag):
        where = f"{flag}={path}: row {line}"
        video_id = text_of(row[form.id_column])
        if not video_id:
            raise InputError(f"{where}: no id in column '{form.id_column}'; give each video one")
        if video_id in lines:
            raise InputError(f"{where}: has the same id '{video_id}' as row {lines[video_id]}; keep one of them")
        lines[video_id] = line
        labels[video_id] = _labels(row[form.labels_column], form.separator)
        if has_splits:
            splits[video_id] = _split(text_of(row[form.split_column]), where)
        else:
            splits[video_id] = "validate" if position_of(video_id, "split") < form.validate_share else "train"
    names = None if vocabulary is None else _class_names(vocabulary)
    numbers = _Numbers(labels.values(), names, vocabulary)
    rows = {
        video_id: Row(numbers.of(given, f"{flag}={path}: row {lines[video_id]}"), splits[video_id])
        for video_id, given in labels.items()
    }
    return LabelTable(rows, numbers.class_names, vocabulary, path)


def write_vocabulary(path: Path, table: LabelTable, written: Iterable[str]) -> None:
    """Writes a vocabulary.csv in the dataset's format, or a copy of the vocabulary that the table was read with.

    Args:
      path: path of the file.
      table: has the names of the classes.
      written: ids of the videos; the training videos among them are counted.
    """
    with files.whole_file(path) as temporary:
        if table.vocabulary is not None:
            temporary.write_bytes(table.vocabulary.read_bytes())
            return
        rows = (table.rows[video_id] for video_id in written)
        counts = Counter(label for row in rows if row.split == "train" for label in row.labels or ())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["Index", "TrainVideoCount", "Name"])
        writer.writerows([index, counts[index], name] for index, name in enumerate(table.class_names))
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def text_of(value: Any) -> str:
    """Returns a cell as text, without surrounding blanks; "" for None."""
    if value is None:
        return ""
    return (value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)).strip()


class _Numbers:
    """Finds the class ids of labels.

    Args:
      labels: the labels of all videos.
      names: the names of the classes, by id; None derives them from the labels.
      vocabulary: where the names come from, for messages.
    """

    def __init__(self, labels: Iterable[Sequence[str] | None], names: Sequence[str] | None, vocabulary: Path | None):
        distinct = {label for given in labels for label in given or ()}
        self._vocabulary = vocabulary
        self._are_ids = bool(distinct) and all(label.isdecimal() and label.isascii() for label in distinct)
        if names is not None:
            self.class_names = list(names)
        elif self._are_ids:
            self.class_names = [str(index) for index in range(max(map(int, distinct)) + 1)]
        else:
            self.class_names = sorted(distinct)
        self._ids: dict[str, list[int]] = {}
        for index, name in enumerate(self.class_names):
            self._ids.setdefault(name, []).append(index)

    def of(self, labels: Sequence[str] | None, where: str) -> tuple[int, ...] | None:
        """Returns the distinct class ids of labels; `where` names the row, for messages."""
        return None if labels is None else tuple(dict.fromkeys(self._id(label, where) for label in labels))

    def _id(self, label: str, where: str) -> int:
        if self._are_ids:
            if int(label) >= len(self.class_names):
                raise InputError(
                    f"{where}: {self._vocabulary} has no class {label}, only 0 to {len(self.class_names) - 1}; give the"
                    " vocabulary of these labels"
                )
            return int(label)
        found = self._ids.get(label, [])
        if not found:
            hint = nearest(label, self._ids)
            raise InputError(f"{where}: {self._vocabulary} has no class '{label}'{hint}; add it, or correct the label")
        if len(found) > 1:
            listed = " and ".join(map(str, found))
            raise InputError(f"{where}: '{label}' is the name of the classes {listed}; give ids instead of names")
        return found[0]


def _class_names(vocabulary: Path) -> list[str]:
    from yt8m_tf.vocabulary import load_vocabulary  # imports TensorFlow

    return load_vocabulary(vocabulary)


def _labels(value: Any, separator: str) -> list[str] | None:
    """Returns the labels of a cell; None if it is empty."""
    parts = value if isinstance(value, list | tuple) else text_of(value).split(separator)
    return [part for part in map(text_of, parts) if part] or None


def _split(text: str, where: str) -> Split:
    for split in SPLITS:
        if split == text:
            return split
    raise InputError(f"{where}: the split '{text}' is not one of {', '.join(SPLITS)}; correct it")


def position_of(video_id: str, purpose: str) -> float:
    """Returns a pseudo-random number from 0 to 1, always the same for an id and a purpose."""
    digest = hashlib.sha256(f"{purpose} {video_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
