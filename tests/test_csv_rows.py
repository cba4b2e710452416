"""The errors of a row of a CSV file name the line where the row begins, in every command."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from yt8m_tf import vocabulary
from yt8m_tf.conversion.rows import read_rows
from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.errors import InputError
from yt8m_tf.serving.segment_submission import read_classes
from yt8m_tf.serving.thresholds import read_thresholds

_LONG = "x" * 2001


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    """A lower limit than Python's, and than that of tables of features, which have long cells."""
    before = csv.field_size_limit(2000)
    yield
    csv.field_size_limit(before)


def test_rows_and_their_lines() -> None:
    rows = CsvRows(io.StringIO('a,b\n1,"x\ny"\n\n2,z\n', newline=""), strict=True)
    assert [(rows.line_num, row) for row in rows] == [(3, {"a": "1", "b": "x\ny"}), (5, {"a": "2", "b": "z"})]
    assert rows.fieldnames == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"x\ny"\n2,"z\n3,z\n', "line 4: a quote is opened and not closed"),
        (f"a,b\n1,2\n3,{_LONG}\n", "line 3: a cell has more than 2,000 characters"),
        ('"a,b\n1,2\n', "line 1: a quote is opened"),
        ('a,b\n1,"x"y\n', "line 2: ',' expected after '\"'"),
    ],
    ids=["open quote", "long cell", "open quote in the header", "misplaced quote"],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(csv.Error, match=f"^{message}"):
        list(CsvRows(io.StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("Index,Name", lambda path: vocabulary.load_vocabulary(path)),
        ("Index,Name", lambda path: read_classes(path)),
        ("class,threshold", lambda path: read_thresholds(path, 3)),
        ("id,labels", lambda path: list(read_rows(path, ["id", "labels"], "--labels"))),
    ],
)
def test_readers(header: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n0,0.5\n1,{_LONG}\n")
    with pytest.raises(InputError, match=f"{path}: .*line 3: a cell has more than"):
        read(path)
