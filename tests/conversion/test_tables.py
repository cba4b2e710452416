"""Tables of labels: ids and names of classes, splits, and errors in tables."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from yt8m_tf.conversion import rows
from yt8m_tf.conversion.feature_tables import TableReader
from yt8m_tf.conversion.tables import LabelTable, Row, TableFormat, read_table, write_vocabulary
from yt8m_tf.conversion.videos import Chunk
from yt8m_tf.errors import InputError
from yt8m_tf.vocabulary import load_vocabulary


def _csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_names_become_classes_in_alphabetical_order(tmp_path: Path) -> None:
    table = read_table(
        _csv(
            tmp_path / "t.csv", "id,labels,split", "a,dog;cat,train", "b, cat ; cat,validate", "c,,test", "d,ant,train"
        )
    )
    assert table.class_names == ["ant", "cat", "dog"]
    assert table.rows == {
        "a": Row((2, 1), "train"),
        "b": Row((1,), "validate"),
        "c": Row(None, "test"),
        "d": Row((0,), "train"),
    }
    write_vocabulary(tmp_path / "vocabulary.csv", table, ["a", "b", "c", "d"])
    assert load_vocabulary(tmp_path / "vocabulary.csv", 3) == ["ant", "cat", "dog"]
    with (tmp_path / "vocabulary.csv").open() as file:
        assert [row["TrainVideoCount"] for row in csv.DictReader(file)] == ["1", "1", "1"]


def test_numbers_are_ids(tmp_path: Path) -> None:
    table = read_table(_csv(tmp_path / "t.csv", "id,labels,split", "a,4;0,train", "b,2,train"))
    assert table.class_names == ["0", "1", "2", "3", "4"]
    assert [row.labels for row in table.rows.values()] == [(4, 0), (2,)]


def test_classes_of_a_vocabulary(tmp_path: Path) -> None:
    """The table gives classes by name or by id; the vocabulary is copied unchanged."""
    vocabulary = _csv(tmp_path / "v.csv", "Index,Name,Vertical1", "1,Cat,Pets", '0,"Dog, small",Pets')
    for text in ('"Dog, small;Cat"', "0;1"):
        table = read_table(_csv(tmp_path / "t.csv", "id,labels", f"a,{text}"), vocabulary=vocabulary)
        assert table.class_names == ["Dog, small", "Cat"] and table.rows["a"].labels == (0, 1)
    write_vocabulary(tmp_path / "copy.csv", table, ["a"])
    assert (tmp_path / "copy.csv").read_bytes() == vocabulary.read_bytes()


def test_parquet_has_lists_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {"video": [7, 8, 9], "tags": [["x", "y"], [], ["y"]], "split": ["train", "test", "train"]}
    parquet.write_table(pa.table(columns), path)
    table = read_table(path, TableFormat(id_column="video", labels_column="tags"))
    assert table.class_names == ["x", "y"]
    assert table.rows == {"7": Row((0, 1), "train"), "8": Row(None, "test"), "9": Row((1,), "train")}


def test_without_splits_the_ids_decide(tmp_path: Path) -> None:
    """About one in five is for validation, and no video changes its split when others are added."""
    few, more = (
        read_table(
            _csv(tmp_path / "t.csv", "id,labels", *(f"v{i},x" for i in reversed(range(count)))),
            TableFormat(validate_share=0.2),
        ).rows
        for count in (497, 1000)
    )
    assert {row.split for row in more.values()} == {"train", "validate"}
    assert 160 < sum(row.split == "validate" for row in more.values()) < 240  # 200 on average, 13 standard deviation
    assert all(more[video_id] == row for video_id, row in few.items())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,label", "a,x"], "has no column 'labels'; did you mean 'label'?; it has: id, label"),
        (["id,labels", "a,x", "b,y", "a,z"], "row 4: has the same id 'a' as row 2; keep one of them"),
        (["id,labels", "a,x", ",y"], "row 3: no id in column 'id'"),
        (["id,labels,split", "a,x,training"], "row 2: the split 'training' is not one of train, validate, test"),
        (["id,labels", "a,x,y"], "line 2: has another number of cells than line 1"),
        (["id,labels", "a"], "line 2: has another number of cells than line 1"),
        (["id,labels", 'a,"x'], "cannot be read (line 2: a quote is opened and not closed)"),
    ],
)
def test_errors_in_a_table_are_one_line(lines: list[str], message: str, tmp_path: Path) -> None:
    path = _csv(tmp_path / "t.csv", *lines)
    with pytest.raises(InputError, match=re.escape(f"--labels={path}: ") + ".*" + re.escape(message.split("; did")[0])):
        read_table(path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("Cats", "row 2: .*v.csv has no class 'Cats'; did you mean 'Cat'"),
        ("7", "row 2: .*v.csv has no class 7, only 0 to 2; give the vocabulary of these labels"),
        ("Ant", "row 2: 'Ant' is the name of the classes 1 and 2; give ids instead of names"),
    ],
)
def test_labels_that_the_vocabulary_lacks(labels: str, message: str, tmp_path: Path) -> None:
    vocabulary = _csv(tmp_path / "v.csv", "Index,Name", "0,Cat", "1,Ant", "2,Ant")
    with pytest.raises(InputError, match=message):
        read_table(_csv(tmp_path / "t.csv", "id,labels", f"a,{labels}"), vocabulary=vocabulary)


def test_files_that_are_not_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "t.csv").write_bytes(b"id,labels\n\xff,x\n")
    for name, message in (
        ("t.xlsx", "not a table that can be read; give a .csv or .parquet file"),
        ("t.parquet", "cannot be read .*; give a Parquet file"),
        ("t.csv", "cannot be read .*; give a CSV file in UTF-8"),
        ("none.csv", "cannot be read .No such file or directory.; give a CSV file"),
    ):
        with pytest.raises(InputError, match=f"--labels=.*{name}: {message}"):
            read_table(tmp_path / name)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"Parquet files need pyarrow; install the extra 'parquet' of yt8m-tf"):
        rows.column_names(tmp_path / "t.parquet", "--labels")


def test_a_vocabulary_is_read_for_as_many_classes_as_it_has(tmp_path: Path) -> None:
    assert load_vocabulary(_csv(tmp_path / "v.csv", "Index,Name", "1,b", "0,a")) == ["a", "b"]
    for lines, message in (([], "names no class"), (["1,b"], "names 1 of 2 classes, but not class 0")):
        with pytest.raises(InputError, match=message):
            load_vocabulary(_csv(tmp_path / "v.csv", "Index,Name", *lines))


def test_a_table_without_classes_is_possible(tmp_path: Path) -> None:
    assert read_table(_csv(tmp_path / "t.csv", "id,labels,split", "a,,test")) == LabelTable(
        {"a": Row(None, "test")}, []
    )


def test_texts_that_are_not_utf8_are_damage(tmp_path: Path) -> None:
    """pyarrow reads them, and would fail only when a text becomes one of Python's."""
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xe1\x20"))
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"id": texts, "rgb": pa.array([[1.0, 2.0]])}), path)
    message = r"--input=.*t\.parquet: damaged \(In column 0: Invalid: Invalid UTF8 .*\); write the file again"
    with pytest.raises(InputError, match=message):
        list(rows.read_rows(path, ["id"], "--input"))
    with pytest.raises(InputError, match=message):
        list(TableReader({"rgb": ["rgb"]}, "id").read(Chunk([str(path)])))
