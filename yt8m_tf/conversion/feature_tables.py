"""Reads features from CSV and Parquet tables with a row for each video.

A feature is a column of lists (in CSV, of texts such as "[0.5, -1.2]"), each a vector or frames, or a series of
numbered columns of numbers: clip_0, clip_1, ..., clip_511.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf.config.strict_yaml import nearest
from yt8m_tf.conversion.rows import column_names, import_parquet, open_parquet, parquet_batches, read_rows
from yt8m_tf.conversion.tables import text_of
from yt8m_tf.conversion.videos import Chunk, Problem, Video
from yt8m_tf.errors import InputError

SUFFIXES = (".csv", ".parquet")
_NUMBERED = re.compile(r"(.*?[A-Za-z].*?)_?(\d+)")


def chunks(paths: Sequence[str]) -> list[Chunk]:
    """Returns the parts of tables: one for a CSV file, one for each row group of a Parquet file."""
    found = []
    for path in paths:
        if path.lower().endswith(".csv"):
            found.append(Chunk([path]))
            continue
        about = open_parquet(Path(path), "--input").metadata
        found += [Chunk([path], (), part, about.row_group(part).num_rows) for part in range(about.num_row_groups)]
    return found


@dataclasses.dataclass(frozen=True)
class TableReader:
    """Reads features from tables.

    Attributes:
      columns: feature name to its columns: one of lists, or several of numbers.
      id_column: column of the videos' ids.
    """

    columns: Mapping[str, Sequence[str]]
    id_column: str

    def read(self, chunk: Chunk) -> Iterator[Video | Problem]:
        """See `videos.Reader`."""
        (path,) = map(Path, chunk.paths)
        for number, row in self._rows(path, chunk.part):
            where, video_id = f"{path}: row {number}", text_of(_plain(row[self.id_column]))
            if not video_id:
                yield Problem(where, "", f"no id in column '{self.id_column}'")
                continue
            try:
                features = {
                    name: _vector(row, columns) if len(columns) > 1 else _array(row[columns[0]])
                    for name, columns in self.columns.items()
                }
            except ValueError as error:
                yield Problem(where, video_id, " ".join(str(error).split()))
            else:
                yield Video(where, video_id, features)

    def _rows(self, path: Path, part: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        columns = [self.id_column, *(column for own in self.columns.values() for column in own)]
        if path.suffix.lower() == ".csv":
            yield from read_rows(path, columns, "--input")
            return
        about = open_parquet(path, "--input").metadata
        number = sum(about.row_group(before).num_rows for before in range(part))
        for batch in parquet_batches(path, columns, "--input", [part]):
            for row in range(batch.num_rows):
                number += 1
                yield number, {name: batch.column(name)[row] for name in columns}


def find_columns(
    path: Path, id_column: str, others: Sequence[str], wanted: Sequence[str] | None
) -> dict[str, list[str]]:
    """Finds the columns of each feature in a table.

    Args:
      path: path of the table.
      id_column: column of the videos' ids.
      others: columns that are not features, such as labels.
      wanted: names of features that must exist; None: all columns that look like features.

    Raises:
      InputError: the table lacks a feature, or has no ids.
    """
    there = column_names(path, "--input")
    if id_column not in there:
        hint = nearest(id_column, there)
        raise InputError(f"--input={path}: has no column '{id_column}'{hint}; name the ids' column with --id_column")
    columns = {name: [name] for name in _list_columns(path, there) if name not in (id_column, *others)}
    numbered: dict[str, dict[int, str]] = {}
    for name in there:
        if (match := _NUMBERED.fullmatch(name)) and name not in (id_column, *others):
            numbered.setdefault(match[1], {})[int(match[2])] = name
    for name, own in numbered.items():
        if len(own) > 1 and sorted(own) == list(range(min(own), min(own) + len(own))) and min(own) in (0, 1):
            columns.setdefault(name, [own[number] for number in sorted(own)])
    if not columns:
        raise InputError(
            f"--input={path}: no column contains a feature; the columns are: {', '.join(there)}; store a feature as"
            " lists of numbers, or as columns such as clip_0, clip_1, ..."
        )
    if missing := [name for name in wanted or () if name not in columns]:
        hint = nearest(missing[0], columns)
        raise InputError(f"--features={missing[0]}: {path} has no such feature{hint}; it has: {', '.join(columns)}")
    return {name: columns[name] for name in wanted or columns}


def _list_columns(path: Path, there: Sequence[str]) -> list[str]:
    """Returns the columns of lists; for a CSV file, by its first row."""
    if path.suffix.lower() == ".csv":
        first = next(read_rows(path, there, "--input"), None)
        return [name for name in there if first and first[1][name].lstrip().startswith("[")]
    import_parquet(path, "--input")
    import pyarrow as pa

    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    schema = open_parquet(path, "--input").schema_arrow
    return [field.name for field in schema if any(is_list(field.type) for is_list in lists)]


def _vector(row: Mapping[str, Any], columns: Sequence[str]) -> np.ndarray:
    """Returns the vector [D] of the numbers in several columns."""
    try:
        return np.array([float(_plain(row[column])) for column in columns], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not a number in each of {columns[0]} to {columns[-1]}") from error


def _array(cell: Any) -> np.ndarray:
    """Returns [D] or [T, D] from a cell of lists, given as text or as a pyarrow scalar.

    Raises:
      ValueError: the cell has no such lists.
    """
    if isinstance(cell, str):
        try:
            lists = json.loads(cell)
        except ValueError:
            lists = cell.replace("[", " ").replace("]", " ").split()  # as NumPy prints a vector
        return _checked(lists)
    values = cell.values
    if values is None:
        raise ValueError("an empty cell")
    if not hasattr(values, "flatten") or not hasattr(values.type, "value_type"):
        return _checked(values.to_numpy(zero_copy_only=False))
    sizes = {0 if row.values is None else len(row.values) for row in values}
    if len(sizes) > 1:
        raise ValueError("frames of different sizes")
    flat = values.flatten().to_numpy(zero_copy_only=False)
    return _checked(flat).reshape(len(values), *sizes or [0])


def _checked(lists: Any) -> np.ndarray:
    try:
        return np.asarray(lists, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("not lists of numbers, all of the same size") from error


def _plain(cell: Any) -> Any:
    return cell.as_py() if hasattr(cell, "as_py") else cell
