import csv
import json
import math
import os

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.evaluation import runs
from yt8m_tf.metrics.accumulator import MetricAccumulator, Metrics
from yt8m_tf.metrics.batch_statistics import batch_statistics
from yt8m_tf.metrics.evaluate import evaluate
from yt8m_tf.vocabulary import load_vocabulary

NUM_CLASSES = 6


def make_batches(count=3, size=4):
    """Batches whose feature is the logits, the last one half padding."""
    rng = np.random.default_rng()
    for i in range(count):
        valid = np.arange(size) < (size if i < count - 1 else size // 2)
        yield {
            "id": tf.constant([b"v%d%d" % (i, row) for row in range(size)]),
            "rgb": tf.constant(rng.normal(size=(size, NUM_CLASSES)), tf.float32),
            "labels": tf.constant(rng.integers(-1, NUM_CLASSES - 1, (size, 2)), tf.int32),  # none of the last class
            "valid": tf.constant(valid),
        }


def step(batch):
    assert set(batch) == {"rgb", "labels", "valid"}
    return batch_statistics(batch["rgb"], batch["labels"], batch["valid"])


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


def test_evaluate_adds_up_all_batches(capsys):
    batches = list(make_batches())
    accumulator = MetricAccumulator(NUM_CLASSES)
    for batch in batches:
        accumulator.update(batch_statistics(batch["rgb"], batch["labels"], batch["valid"]))
    expected = accumulator.result()
    actual = evaluate(step, batches, NUM_CLASSES, total=10)
    assert actual.scalars() == expected.scalars()
    assert actual.num_videos == 10
    shown = capsys.readouterr().err
    assert "10/10" in shown and "videos/s" in shown

    without_ids = [{name: value for name, value in batch.items() if name != "id"} for batch in batches]
    assert evaluate(step, without_ids, NUM_CLASSES, progress=False).scalars() == expected.scalars()
    assert capsys.readouterr().err == ""


def test_evaluate_names_the_video_with_a_nan_score():
    batches = list(make_batches())
    logits = batches[1]["rgb"].numpy()
    logits[2, 3] = math.nan
    batches[1]["rgb"] = tf.constant(logits)
    with pytest.raises(InputError, match="video v12: "):
        evaluate(step, batches, NUM_CLASSES, progress=False)


@pytest.mark.parametrize("kind", ["no batches", "only padding", "no labels"])
def test_evaluating_nothing_is_an_error(kind):
    (batch,) = make_batches(1)
    if kind == "only padding":
        batch["valid"] = tf.zeros_like(batch["valid"])
    if kind == "no labels":
        batch["labels"] = -tf.ones_like(batch["labels"])
    message = "none of the 2 videos" if kind == "no labels" else "no videos to evaluate"
    with pytest.raises(InputError, match=message):
        evaluate(step, [] if kind == "no batches" else [batch], NUM_CLASSES, progress=False)


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


def test_files_hold_all_metrics(metrics, tmp_path):
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
        (b"Index,Name\n0,a\n", "names 1 of 2 classes, not class 1"),
        (b"Index,Name\nzero,a\n", "not a vocabulary"),
        (b"Index,Name\n0,\xff\n", "not a vocabulary"),
        (None, "cannot be read"),
    ],
)
def test_wrong_vocabulary_is_refused(content, message, tmp_path):
    path = tmp_path / "vocabulary.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_vocabulary(path, 2)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_official_vocabulary(real_data_dir):
    names = load_vocabulary(real_data_dir / "yt8m_2018" / "vocabulary.csv", 3862)
    assert names[:3] == ["Game", "Video game", "Vehicle"]
    assert len(names) == 3862
