"""The names and the verticals of classes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.vocabulary import chosen_vocabulary, load_verticals, load_vocabulary, without_descriptions

_HEADER = "Index,Name,Vertical1,Vertical2,Vertical3\n"
_ROWS = '2,c,Sports,"Food, drink",\n0,a,Games,,\n1,b,(Unknown),,\n3,d,Sports,Sports,Games\n4,e,,,\n'


def test_computed_by_hand(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text(_HEADER + _ROWS)
    expected = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]]  # (Unknown), Food, Games, Sports
    for path, data_dir in (("words.csv", str(tmp_path)), (str(tmp_path / "words.csv"), "elsewhere")):
        matrix = load_verticals(path, 5, 4, data_dir)
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, expected)


def test_official_vocabulary(real_data_dir: Path) -> None:
    path = real_data_dir / "yt8m_2018" / "vocabulary.csv"
    matrix = load_verticals("yt8m_2018/vocabulary.csv", 3862, 25, str(real_data_dir))
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row[f"Vertical{i}"] for row in rows for i in (1, 2, 3)} - {""})
    assert names[0] == "(Unknown)" and len(names) == 25
    for row in rows:
        found = {names[v] for v in np.flatnonzero(matrix[int(row["Index"])])}
        assert found == {row["Vertical1"], row["Vertical2"], row["Vertical3"]} - {""} and found
    assert matrix[:, names.index("Games")].sum() == 734 + 106 + 3
    with pytest.raises(InputError, match=r"its classes have 25 verticals, and data\.verticals is 24; set it to 25"):
        load_verticals(path, 3862, 24)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"words\.csv: cannot be read \(no such file\); give the dataset's vocabulary"),
        ("Index,Name\n0,a\n", "has no column 'Vertical1'"),
        (_HEADER + "0,a,X,,\n", "names 1 of 2 classes, but not class 1"),
        (_HEADER + "0,a,X,,\n1,b,X,,\n", "its classes have 1 verticals, and data.verticals is 2; set it to 1, or"),
        (_HEADER + "0,a,X,,\n1,b,Y,Z,\n", "its classes have 3 verticals, and data.verticals is 2"),
        (_HEADER + "0,a,X,,\n2,b,Y,,\n", "line 3: Index 2 is not one of the 2 classes"),
        (_HEADER + "0,a\n1,b,X,Y,\n", None),  # a short row has no further values
    ],
)
def test_wrong_vocabulary_is_refused(content: str | None, message: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "words.csv").write_text(content)
    if message is None:
        np.testing.assert_array_equal(load_verticals(tmp_path / "words.csv", 2), [[0, 0], [1, 1]])
        return
    with pytest.raises(InputError, match=message) as error:
        load_verticals("words.csv", 2, 2, str(tmp_path))
    assert str(error.value).startswith("configuration key 'data.vocabulary': ") and "\n" not in str(error.value)


def test_the_number_of_verticals_is_checked() -> None:
    assert parse_experiment({"model": {"name": "logistic"}, "data": {"verticals": 25}}).data.spec.num_outputs == 3887
    with pytest.raises(InputError, match=r"data\.verticals must not be negative, got -1"):
        parse_experiment({"model": {"name": "logistic"}, "data": {"verticals": -1}})


def test_vocabulary_is_ordered_by_index(tmp_path):
    path = tmp_path / "vocabulary.csv"
    path.write_text('Index,TrainVideoCount,Name,Vertical1\n1,5,"Sea, sky",X\n0,9,Game,Y\n', encoding="utf-8")
    assert load_vocabulary(path, 2) == ["Game", "Sea, sky"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Index,Label\n0,a\n", "has no column 'Name'"),
        (b"", "has no column 'Index'"),
        (b"Index,Name\n0,a\n2,b\n", "line 3: Index 2 is not one of the 2 classes"),
        (b"Index,Name\n-1,a\n", "Index -1"),
        (b"Index,Name\n0,a\n0,b\n", "Index 0 occurs twice"),
        (b"Index,Name\n0,a\n", "names 1 of 2 classes, but not class 1"),
        (b"Index,Name\nzero,a\n", "not a vocabulary"),
        (b"Index,Name\n0,\xff\n", "not a vocabulary"),
        (None, "cannot be read"),
    ],
)
def test_wrong_names_are_refused(content, message, tmp_path):
    path = tmp_path / "vocabulary.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_vocabulary(path, 2)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_official_names(real_data_dir):
    names = load_vocabulary(real_data_dir / "yt8m_2018" / "vocabulary.csv", 3862)
    assert names[:3] == ["Game", "Video game", "Vehicle"]
    assert len(names) == 3862


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    (tmp_path / "vocabulary.csv").write_text("\ufeffIndex,Name\n0,Zero\n1,One\n")
    assert load_vocabulary(tmp_path / "vocabulary.csv", 2) == ["Zero", "One"]


def test_the_vocabulary_of_the_data_is_used_if_it_names_all_classes(tmp_path):
    (tmp_path / "vocabulary.csv").write_text("Index,Name\n0,Zero\n1,One\n")
    own = str(tmp_path / "vocabulary.csv")
    assert chosen_vocabulary(None, "vocabulary.csv", 2, str(tmp_path)) == own
    assert chosen_vocabulary(None, "vocabulary.csv", 3, str(tmp_path)) is None  # has other classes; nobody asked for it
    assert chosen_vocabulary(None, "words.csv", 2, str(tmp_path)) is None
    assert chosen_vocabulary("", "vocabulary.csv", 2, str(tmp_path)) is None
    assert chosen_vocabulary(own, "words.csv", 2, "elsewhere") == own
    with pytest.raises(InputError, match="names 2 of 3 classes"):
        chosen_vocabulary(own, "vocabulary.csv", 3, str(tmp_path))


def test_descriptions_are_left_out(tmp_path):
    path = tmp_path / "vocabulary.csv"
    path.write_text('\ufeffIndex,Name,WikiUrl,Vertical1,WikiDescription\n0,"a, b",u,X,"two\nlines"\n1,é,u,,"z"\n')
    assert without_descriptions(path) == 'Index,Name,Vertical1\n0,"a, b",X\n1,é,\n'
