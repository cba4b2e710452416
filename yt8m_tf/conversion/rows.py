"""Rows of tables in CSV and Parquet files."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from yt8m_tf.config.strict_yaml import nearest
from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.errors import InputError

# A cell may contain all frames of a video.
csv.field_size_limit(1 << 31)
_ROWS = 64  # rows of a Parquet file in a batch


def is_table(path: Path) -> bool:
    """Returns whether a file has the suffix of a supported table."""
    return path.suffix.lower() in (".csv", ".parquet")


def column_names(path: Path, flag: str) -> list[str]:
    """Returns the names of a table's columns.

    Args:
      path: a `.csv` or `.parquet` file.
      flag: the flag that names the file, for messages.

    Raises:
      InputError: the file has another suffix, or cannot be read.
    """
    if _is_parquet(path, flag):
        return list(open_parquet(path, flag).schema_arrow.names)
    with _readable(path, flag), path.open(encoding="utf-8-sig", newline="") as file:
        return list(CsvRows(file).fieldnames or [])


def read_rows(path: Path, columns: Sequence[str], flag: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Reads the rows of a table in order.

    Args:
      path: a `.csv` or `.parquet` file.
      columns: the columns to read; all must exist.
      flag: the flag that names the file, for messages.

    Yields:
      The number of the line (CSV) or row (Parquet, from 1), and the values by column: texts for CSV, any types for
      Parquet.

    Raises:
      InputError: the file has another suffix, cannot be read, or lacks a column.
    """
    there = column_names(path, flag)
    if missing := [column for column in columns if column not in there]:
        raise InputError(
            f"{flag}={path}: has no column '{missing[0]}'{nearest(missing[0], there)}; it has: {', '.join(there)}"
        )
    if _is_parquet(path, flag):
        rows = (row for batch in parquet_batches(path, columns, flag) for row in batch.to_pylist())
        yield from enumerate(rows, 1)
        return
    with _readable(path, flag), path.open(encoding="utf-8-sig", newline="") as file:
        reader = CsvRows(file, strict=True)
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{flag}={path}: line {reader.line_num}: has another number of cells than line 1; write it again"
                )
            yield reader.line_num, row


def parquet_batches(
    path: Path, columns: Sequence[str], flag: str, row_groups: Sequence[int] | None = None
) -> Iterator[Any]:
    """Reads the rows of a Parquet file in batches, as `pyarrow.RecordBatch`.

    Args:
      path: the file.
      columns: the columns to read.
      flag: the flag that names the file, for messages.
      row_groups: numbers of the row groups to read; None: all.

    Raises:
      InputError: the file is damaged, or pyarrow is not installed.
    """
    file = open_parquet(path, flag)
    try:
        for batch in file.iter_batches(_ROWS, row_groups=row_groups, columns=list(columns)):
            batch.validate(full=True)  # pyarrow reads texts that are not UTF-8, and fails when they become Python's
            yield batch
    except Exception as error:  # Arrow raises a dozen types of errors
        raise InputError(f"{flag}={path}: damaged ({_one_line(error)}); write the file again") from error


def open_parquet(path: Path, flag: str) -> Any:
    """Opens a file as `pyarrow.parquet.ParquetFile`.

    Raises:
      InputError: the file cannot be read, or pyarrow is not installed.
    """
    parquet = import_parquet(path, flag)
    try:
        return parquet.ParquetFile(path)
    except Exception as error:
        raise InputError(f"{flag}={path}: cannot be read ({_one_line(error)}); give a Parquet file") from error


def import_parquet(path: Path, flag: str) -> ModuleType:
    """Imports `pyarrow.parquet`, which is an optional dependency.

    Raises:
      InputError: it is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{flag}={path}: Parquet files need pyarrow; install the extra 'parquet' of yt8m-tf, as in"
            " pip install '.[parquet]'"
        ) from error
    return parquet


def _is_parquet(path: Path, flag: str) -> bool:
    if not is_table(path):
        raise InputError(f"{flag}={path}: not a table that can be read; give a .csv or .parquet file")
    return path.suffix.lower() == ".parquet"


@contextlib.contextmanager
def _readable(path: Path, flag: str) -> Iterator[None]:
    """Turns errors in reading a CSV file into InputError."""
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or _one_line(error)
        raise InputError(f"{flag}={path}: cannot be read ({reason}); give a CSV file in UTF-8") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
