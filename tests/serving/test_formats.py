"""The formats that yt8m-infer writes besides a submission: JSON Lines, Parquet, lines for people; thresholds."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pyarrow.parquet
import pytest
from tiny_models import NUM_CLASSES, float_scores, tiny_data, tiny_model, tiny_records, write_shard

from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.serving import inference
from yt8m_tf.serving.formats import FORMATS
from yt8m_tf.serving.inference import infer
from yt8m_tf.serving.parts import Parts
from yt8m_tf.serving.submission import format_rows
from yt8m_tf.serving.thresholds import read_thresholds

COUNTS = (5, 9, 0, 3)
NAMES = ['Rock "n" roll', "Été, 2018", *(f"name {c}" for c in range(2, NUM_CLASSES - 1)), ""]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A SavedModel with names, one without, shards, and the ids and scores [N, C] of their videos."""
    root, rng = tmp_path_factory.mktemp("formats"), np.random.default_rng(3)
    with open(root / "words.csv", "w", newline="") as file:
        csv.writer(file).writerows([("Index", "Name"), *enumerate(NAMES)])
    data = tiny_data("video")
    model = tiny_model(data, rng)
    export_saved_model(model, data, root / "named", precision=FLOAT32, vocabulary=root / "words.csv")
    export_saved_model(model, data, root / "bare", precision=FLOAT32)
    records = [tiny_records(data, rng, count, prefix=f"s{i}_") for i, count in enumerate(COUNTS)]
    shards = [write_shard(root / f"test{i}.tfrecord", shard) for i, shard in enumerate(records)]
    ids = [f"s{i}_{j}" for i, count in enumerate(COUNTS) for j in range(count)]
    return root, shards, ids, float_scores(model, data, [record for shard in records for record in shard])


def run(world, output, model="named", **options):
    return infer(str(world[0] / model), world[1], output, progress=False, batch_size=8, **options)


def read(path, layout):
    """[(id, names or None, ids, scores)] from any format except lines for people."""
    if layout == "jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    elif layout == "parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
    else:
        with open(path, newline="") as file:
            pairs = [(row["VideoId"], row["LabelConfidencePairs"].split()) for row in csv.DictReader(file)]
        rows = [{"id": i, "ids": [int(c) for c in p[::2]], "scores": [float(s) for s in p[1::2]]} for i, p in pairs]
    return [(row["id"], row.get("names"), row["ids"], row["scores"]) for row in rows]


@pytest.mark.parametrize("layout", ["csv", "jsonl", "parquet"])
def test_rows_contain_ids_names_classes_and_scores(world, tmp_path, layout):
    run(world, tmp_path / "out", layout=layout, top_k=4)
    rows = read(tmp_path / "out", layout)
    assert [row[0] for row in rows] == world[2]
    for (_, names, classes, scores), expected in zip(rows, world[3], strict=True):
        assert len(classes) == 4
        np.testing.assert_allclose(scores, expected[classes], atol=1e-6, rtol=0)
        np.testing.assert_allclose(scores, -np.sort(-expected)[:4], atol=1e-6, rtol=0)
        assert names == (None if layout == "csv" else [NAMES[c] for c in classes])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_lines_for_people(world, tmp_path):
    run(world, tmp_path / "rows", layout="jsonl", top_k=3)
    run(world, tmp_path / "lines", layout="names", top_k=3)
    expected = [
        f"{video_id}: " + ", ".join(f"{NAMES[c] or f'class {c}'} {s:.4f}" for c, s in zip(classes, scores, strict=True))
        for video_id, _, classes, scores in read(tmp_path / "rows", "jsonl")
    ]
    assert (tmp_path / "lines").read_text(encoding="utf-8").splitlines() == expected


@pytest.mark.parametrize("layout", FORMATS)
def test_resumed_run_of_every_format_ends_with_the_same_bytes(world, tmp_path, monkeypatch, layout):
    run(world, tmp_path / "whole", layout=layout)
    real, calls = inference.Selection.rows, []

    def interrupted(*rows):
        calls.append(rows)
        if len(calls) > 2:  # in the second shard, after its first rows are written
            raise KeyboardInterrupt
        return real(*rows)

    monkeypatch.setattr(inference.Selection, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "out", layout=layout)
    monkeypatch.undo()
    assert len(list((tmp_path / "out.parts").glob("0*.json"))) == 1
    other = "jsonl" if layout == "csv" else "csv"
    with pytest.raises(InputError, match=r"out\.parts contains parts of a run that differs in format"):
        run(world, tmp_path / "out", layout=other)
    assert run(world, tmp_path / "out", layout=layout).num_scored == sum(COUNTS[1:])
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_parquet_has_typed_columns_and_few_row_groups(world, tmp_path):
    run(world, tmp_path / "out", layout="parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "out")
    assert file.num_row_groups == 1
    types = {field.name: str(field.type).replace("element: ", "item: ") for field in file.schema_arrow}
    assert types == {"id": "string", "names": "list<item: string>", "ids": "list<item: int32>"} | {
        "scores": "list<item: float>"
    }


@pytest.mark.parametrize("layout", ["csv", "jsonl", "parquet"])
def test_thresholds_give_label_sets(world, tmp_path, layout):
    of_classes = np.random.default_rng(4).uniform(0.45, 0.6, NUM_CLASSES).astype(np.float32)
    lines = [f"{c},{of_classes[c]!r}" for c in range(NUM_CLASSES)]
    lines = ["class,threshold", *(line.replace("np.float32(", "").replace(")", "") for line in lines)]
    (tmp_path / "thresholds.csv").write_text("\n".join(lines) + "\n")
    for threshold, values in (("0.51", np.full(NUM_CLASSES, 0.51)), (tmp_path / "thresholds.csv", of_classes)):
        run(world, tmp_path / "out", layout=layout, threshold=threshold)
        rows = read(tmp_path / "out", layout)
        assert [row[0] for row in rows] == world[2]
        for (_, _, classes, _), expected in zip(rows, world[3], strict=True):
            assert abs(expected - values).min() > 1e-6  # otherwise rounding would decide
            best = np.argsort(-expected)[:20]
            assert classes == [c for c in best if expected[c] >= values[c]]
        assert len({len(row[2]) for row in rows}) > 2


def test_csv_rows_of_some_pairs_equal_plain_formatting(rng):
    ids = [b"v%d" % i for i in range(40)]
    classes, scores = rng.integers(0, 3862, (40, 6)), rng.random((40, 6)).astype(np.float32)
    keep = rng.random((40, 6)) < 0.4
    keep[:2] = [[False] * 6, [True] * 6]
    expected = "".join(
        f"v{i},{' '.join(f'{c} {s:.7f}' for c, s, k in zip(*row, strict=True) if k)}\n"
        for i, row in enumerate(zip(classes.tolist(), scores.tolist(), keep.tolist(), strict=True))
    )
    assert format_rows(ids, classes, scores, keep).decode() == expected
    assert expected.startswith("v0,\n")


def test_names_that_are_not_known(world, tmp_path):
    with pytest.raises(InputError, match=r"^--format=names: the model contains no names .*; give --vocabulary=FILE$"):
        run(world, tmp_path / "out", "bare", layout="names")
    run(world, tmp_path / "bare", "bare", layout="jsonl")
    assert {row[1] for row in read(tmp_path / "bare", "jsonl")} == {None}
    run(world, tmp_path / "given", "bare", layout="jsonl", vocabulary=world[0] / "words.csv")
    run(world, tmp_path / "carried", layout="jsonl")
    assert (tmp_path / "given").read_bytes() == (tmp_path / "carried").read_bytes()
    (tmp_path / "few.csv").write_text("Index,Name\n0,a\n")
    with pytest.raises(InputError, match=r"few\.csv: names 1 of 30 classes"):
        run(world, tmp_path / "out", layout="jsonl", vocabulary=tmp_path / "few.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1.5",
            r"^--threshold=1\.5: is not a score; give a number from 0 to 1, or a file of yt8m-evaluate --thresholds$",
        ),
        ("nan", r"^--threshold=nan: is not a score"),
        ("nowhere.csv", r"^--threshold=nowhere\.csv: cannot be read \(No such file"),
        ("a,b\n0,1\n", r"thresholds\.csv: has no column 'class'; give"),
        ("class,threshold\n0,0.5\n0,0.5\n", r"line 3: class 0 occurs twice; give"),
        ("class,threshold\n0,x\n", r"not a file of thresholds \(could not convert string to float: 'x'\)"),
        ("class,threshold\n0,2\n", r"line 2: class 0 has the threshold 2\.0; give"),
        ("class,threshold\n0,0.5\n2,0.5\n", r"has thresholds of 2 classes, not of all 3; give a file"),
        ("class,threshold\n", r"has thresholds of 0 classes, not of all 3; give a file"),
    ],
)
def test_unusable_thresholds_give_a_one_line_error(text, message, tmp_path):
    value = text
    if "\n" in text:
        (value := tmp_path / "thresholds.csv").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_thresholds(value, 3)
    assert "\n" not in str(error.value)


def test_without_pyarrow_the_extra_is_named(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"^--format=parquet: needs pyarrow, .*; pip install '\.\[parquet\]'$"):
        run(world, tmp_path / "out", layout="parquet")
    assert not (tmp_path / "out").exists()


def test_parts_of_an_earlier_release_are_continued(world, tmp_path, monkeypatch):
    """The manifest of an earlier release has no format."""
    monkeypatch.setattr(Parts, "assemble", lambda parts: None)
    run(world, tmp_path / "out")
    assert sorted(json.loads((tmp_path / "out.parts" / "run.json").read_text())) == [
        *("batch_size", "input", "model", "top_k")
    ]
