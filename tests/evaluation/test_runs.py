"""The printed table and the written files of an evaluation."""

import csv
import json
import math
import os

import numpy as np
import pytest

from yt8m_tf.errors import InputError
from yt8m_tf.evaluation import runs
from yt8m_tf.metrics.accumulator import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(
        gap=0.5,
        hit_at_1=0.25,
        perr=0.125,
        map=0.75,
        bce=0.0625,
        calibration_error=0.03125,
        num_videos=1234,
        num_labels=5678,
        average_precision=np.array([1.0, math.nan, 0.5]),
        num_positives=np.array([4, 0, 2]),
        calibration=np.array([[4.0, 2.0] + [0.0] * 13, [0.2, 0.3] + [0.0] * 13, [1.0, 1.0] + [0.0] * 13]),
        pairs_above=np.zeros((2, 201), np.int64),
    )


def test_table_is_aligned(metrics):
    lines = runs.format_table(metrics).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split()[-1] for line in lines[:6]] == [
        "0.500000",
        "0.250000",
        "0.125000",
        "0.750000",
        "0.062500",
        "0.031250",
    ]
    assert lines[6].split() == ["Videos", "1,234"] and lines[7].split() == ["Labels", "5,678"]
    assert lines[8].endswith("2 of 3")


def test_files_contain_all_metrics(metrics, tmp_path):
    directory = tmp_path / "new" / "directory"
    runs.write_evaluation(metrics, directory, vocabulary=["Game", "Été", 'a "b", c'], context={"run": "r1"})
    assert sorted(os.listdir(directory)) == ["classes.csv", "metrics.json"]
    content = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    assert content["metrics"] == metrics.scalars()
    assert content["num_videos"] == 1234 and content["num_labels"] == 5678
    assert content["num_classes"] == 3 and content["num_classes_with_labels"] == 2
    assert content["context"] == {"run": "r1"}
    assert len(content["calibration"]) == 15
    first, second, third = content["calibration"][:3]
    assert first == {"from": 0.0, "to": 1 / 15, "pairs": 4, "mean_score": 0.05, "share_positive": 0.25}
    assert second["share_positive"] == 0.5 and third["mean_score"] is None
    with open(directory / "classes.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["class", "name", "num_positives", "average_precision"],
            ["0", "Game", "4", "1.0"],
            ["1", "Été", "0", ""],
            ["2", 'a "b", c', "2", "0.5"],
        ]
    runs.write_evaluation(metrics, directory)  # over the old files, without names
    assert (directory / "classes.csv").read_text(encoding="utf-8").startswith("class,num_positives,average_precision\n")


def test_a_failed_write_leaves_the_old_files(metrics, tmp_path, monkeypatch):
    runs.write_evaluation(metrics, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        runs.write_evaluation(metrics, tmp_path, context={"run": "other"})
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_a_file_in_place_of_the_directory_is_named(metrics, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot write"):
        runs.write_evaluation(metrics, tmp_path / "file")
