"""Models from outside this package, in yt8m-infer and yt8m-evaluate."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from foreign_models import plain_scores, save_v1, save_v2
from tiny_models import NUM_CLASSES, empty_clip, tiny_data, tiny_model, tiny_records, write_shard

from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation import runs
from yt8m_tf.evaluation.saved_models import evaluate_scorer
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.serving.bundle import write_bundle
from yt8m_tf.serving.inference import infer
from yt8m_tf.serving.scorer import load_scorer

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (5, 12, 1)


@pytest.fixture
def world(rng, tmp_path):
    """Weights [48, 30], shards of labelled videos, and their records."""
    weights = rng.normal(size=(48, NUM_CLASSES)).astype(np.float32) * 0.3
    records = [tiny_records(tiny_data("video"), rng, count, prefix=f"s{i}_") for i, count in enumerate(COUNTS)]
    shards = [write_shard(tmp_path / f"{i}.tfrecord", shard) for i, shard in enumerate(records)]
    return weights, shards, [record for shard in records for record in shard]


def labels_of(records):
    context = [tf.train.SequenceExample.FromString(record).context.feature for record in records]
    return [set(features["labels"].int64_list.value) for features in context]


def read_rows(path):
    """{id: {class: score}}, in file order."""
    with open(path, newline="") as file:
        rows = [(row["VideoId"], row["LabelConfidencePairs"].split()) for row in csv.DictReader(file)]
    return {name: dict(zip(map(int, n[::2]), map(float, n[1::2]), strict=True)) for name, n in rows}


def plain_metrics(rows, labels):
    """Hit@1 and PERR by definition, from {class: score} for each video, highest first, and its set of labels."""
    ranked = [list(row) for row in rows]
    hit_at_1 = np.mean([best[0] in own for best, own in zip(ranked, labels, strict=True)])
    perr = np.mean([len(own & set(best[: len(own)])) / len(own) for best, own in zip(ranked, labels, strict=True)])
    return {"hit_at_1": hit_at_1, "perr": perr}


def gap_bounds(rows, labels):
    """GAP@20 by definition, with the misses first among equal scores, and with the hits first.

    Submissions round scores to seven decimals, so the GAP of the unrounded scores lies between the two.
    """
    bounds = []
    for better in (-1, 1):
        pairs = [
            (score, better * (c in own)) for row, own in zip(rows, labels, strict=True) for c, score in row.items()
        ]
        total = seen = 0
        for rank, (_, hit) in enumerate(sorted(pairs, reverse=True), start=1):
            seen += hit != 0
            total += seen / rank if hit else 0
        bounds.append(total / sum(map(len, labels)))
    assert bounds[1] - bounds[0] < 0.01
    return bounds[0] - 1e-9, bounds[1] + 1e-9


def reordered(ids, classes, scores):
    """Lowest scores first, 64-bit classes, half precision, an additional dimension."""
    return ids[:, None], tf.cast(classes[:, None, ::-1], tf.int64), tf.cast(scores[:, None, ::-1], tf.float16)


FOREIGN = {
    "graph": (save_v1, {}, 20, 1e-6),
    "graph of clips": (save_v1, {"clips": True}, 20, 1e-6),
    "one at a time": (save_v1, {"shape": [1]}, 20, 1e-6),
    "four at a time": (save_v1, {"shape": [4], "k": 3}, 3, 1e-6),
    "unknown shape": (save_v1, {"shape": None, "k": 25}, 20, 1e-6),
    "module": (save_v2, {}, 20, 1e-6),
    "reordered": (save_v2, {"change": reordered, "k": 7}, 7, 1e-3),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_models_from_elsewhere_are_inferred_and_evaluated(name, world, tmp_path):
    weights, shards, records = world
    save, options, k, close = FOREIGN[name]
    path = save(tmp_path / "foreign", weights, **options)

    infer(path, shards, tmp_path / "out.csv", batch_size=8, progress=False)

    rows = read_rows(tmp_path / "out.csv")
    assert list(rows) == [f"s{i}_{j}" for i, count in enumerate(COUNTS) for j in range(count)]
    for row, expected in zip(rows.values(), plain_scores(weights, records), strict=True):
        assert list(row.values()) == sorted(row.values(), reverse=True)
        np.testing.assert_allclose(list(row.values()), -np.sort(-expected)[:k], atol=close, rtol=0)
        np.testing.assert_allclose(list(row.values()), expected[list(row)], atol=close, rtol=0)

    scorer = load_scorer(path, 1, num_classes=NUM_CLASSES)
    metrics = evaluate_scorer(scorer, shards, batch_size=8, faults=Faults(), progress=False)
    labels = labels_of(records)
    expected = plain_metrics(rows.values(), labels)
    found = metrics.scalars()
    assert set(found) == {"gap_at_20", "hit_at_1", "perr", "map"}
    assert {n: found[n] for n in expected} == pytest.approx(expected, abs=1e-12)
    lower, upper = gap_bounds(rows.values(), labels)
    assert lower <= metrics.gap <= upper
    assert (metrics.num_videos, metrics.num_labels) == (sum(COUNTS), sum(map(len, labels)))
    assert metrics.num_positives.tolist() == [sum(c in own for own in labels) for c in range(NUM_CLASSES)]


@pytest.mark.end_to_end
def test_gap_of_a_float16_export_is_that_of_its_submission(rng, tmp_path):
    data = tiny_data("frame")
    export_saved_model(tiny_model(data, rng), data, tmp_path / "m")
    records = tiny_records(data, rng, 150)
    shard = write_shard(tmp_path / "0.tfrecord", [*records, empty_clip(b"none")])
    infer(str(tmp_path / "m"), [shard], tmp_path / "out.csv", faults=Faults(on_empty="skip"), progress=False)
    rows, labels = read_rows(tmp_path / "out.csv").values(), labels_of(records)

    faults = Faults(on_empty="skip")
    scorer = load_scorer(str(tmp_path / "m"), 1)
    metrics = evaluate_scorer(scorer, [shard], batch_size=64, faults=faults, progress=False)

    lower, upper = gap_bounds(rows, labels)
    assert lower <= metrics.gap <= upper and upper - lower < 1e-4
    expected = plain_metrics(rows, labels)
    assert {name: getattr(metrics, name) for name in expected} == pytest.approx(expected, abs=1e-12)
    assert (metrics.num_videos, faults.num_empty) == (150, 1)
    with pytest.raises(InputError, match=r"record 150, video 'none': no frames"):
        evaluate_scorer(scorer, [shard], faults=Faults(), progress=False)
    with pytest.raises(InputError, match=r"--num_classes=31: the model predicts 30"):
        load_scorer(str(tmp_path / "m"), 1, num_classes=31)


def test_perr_is_omitted_if_there_are_too_few_scores(world, tmp_path):
    weights, shards, _ = world
    path = save_v1(tmp_path / "foreign", weights, k=2)  # every video has three labels
    scorer = load_scorer(path, 1, num_classes=NUM_CLASSES)
    metrics = evaluate_scorer(scorer, shards, faults=Faults(), progress=False)
    assert set(metrics.scalars()) == {"gap_at_20", "hit_at_1", "map"}
    runs.write_evaluation(metrics, tmp_path / "evaluation")
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert set(written["metrics"]) == {"gap_at_20", "hit_at_1", "map"} and written["calibration"] is None
    assert "BCE" not in runs.format_table(metrics) and "nan" not in runs.format_table(metrics)


UNSOUND = {
    "logits": (lambda i, c, s: (i, c, s * 2), r"predictions contain 1\.\d+, which is not a probability"),
    "negative": (lambda i, c, s: (i, c - 1, s), "class_indexes contain -1, which is not a class id below 30"),
    "too high": (lambda i, c, s: (i, c + 1, s), "class_indexes contain 30, which is not a class id below 30"),
    "twice": (lambda i, c, s: (i, c // 2, s), r"class_indexes contain \d+ twice"),
    "other ids": (lambda i, c, s: ("x" + i, c, s), "gives video_id 'xs0_0' for the record of 's0_0'"),
    "flat": (lambda i, c, s: (i, c, s[:, 0]), r"gives video_id \[5\], class_indexes \[5, 30\], predictions \[5\] for"),
    "fewer rows": (lambda i, c, s: (i[1:], c[1:], s[1:]), r"gives video_id \[4\], .* for 5 records"),
    "transposed": (lambda i, c, s: (i, tf.transpose(c), tf.transpose(s)), r"class_indexes \[30, 5\]"),
    "nan": (lambda i, c, s: (i, c, s * np.nan), "gives video 's0_0' a score that is NaN"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_outputs_are_refused(name, world, tmp_path):
    weights, shards, _ = world
    change, message = UNSOUND[name]
    path = save_v2(tmp_path / "foreign", np.abs(weights), change, k=NUM_CLASSES)
    scorer = load_scorer(path, 1, num_classes=NUM_CLASSES)
    with pytest.raises(InputError, match=message) as error:
        evaluate_scorer(scorer, shards[:1], faults=Faults(), progress=False)
    assert "\n" not in str(error.value) and "foreign" in str(error.value)


def test_outputs_of_other_types_are_refused(world, tmp_path):
    weights = world[0]
    path = save_v2(tmp_path / "a", weights, lambda i, c, s: (i, tf.cast(c, tf.float32), s))
    with pytest.raises(InputError, match="gives class_indexes as float32, not int32 or int64"):
        load_scorer(path)
    path = save_v2(tmp_path / "b", weights, lambda i, c, s: (tf.strings.length(i), c, s))
    with pytest.raises(InputError, match="gives video_id as int32, not string"):
        load_scorer(path)


def test_labels_that_are_not_classes_are_named(world, tmp_path):
    weights, _, records = world
    high, classes = next((n, max(own)) for n, own in enumerate(labels_of(records)) if max(own) >= 10)  # one too high
    scorer = load_scorer(save_v2(tmp_path / "foreign", weights[:, :classes], k=5), 1, num_classes=classes)
    shard = write_shard(tmp_path / "one.tfrecord", [records[high]])
    message = rf"one\.tfrecord: video 's.*': label {classes} is not one of the {classes} .*--num_classes"
    with pytest.raises(InputError, match=message):
        evaluate_scorer(scorer, [shard], faults=Faults(), progress=False)
    nothing = write_shard(tmp_path / "nothing.tfrecord", [])
    with pytest.raises(InputError, match="there are no videos to evaluate"):
        evaluate_scorer(scorer, [nothing], faults=Faults(), progress=False)


def command(name, cwd, *flags):
    line = [sys.executable, "-m", f"yt8m_tf.bin.{name}", *flags]
    return subprocess.run(line, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


@pytest.mark.slow  # the underlying functions are tested above, the commands in tests/bin
def test_commands_take_a_bundle_of_a_foreign_model(world, tmp_path):
    weights, _, records = world
    write_bundle(save_v1(tmp_path / "foreign", weights), tmp_path / "foreign.tgz", progress=False)
    flags = ("--bundle=foreign.tgz", "--input=*.tfrecord")

    done = command("infer", tmp_path, *flags, "--output=out.csv")
    assert done.returncode == 0 and "18 videos" in done.stdout, done.stderr
    done = command("evaluate", tmp_path, *flags, "--num_classes=30", "--output=evaluation")
    assert done.returncode == 0, done.stderr
    lower, upper = gap_bounds(read_rows(tmp_path / "out.csv").values(), labels_of(records))
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert lower <= written["metrics"]["gap_at_20"] <= upper
    assert written["context"]["model"] == "--bundle=foreign.tgz"
    assert f"GAP@20  {written['metrics']['gap_at_20']:.6f}".split() in [x.split() for x in done.stdout.splitlines()]
    assert "counts as not predicted" in done.stdout and (tmp_path / "evaluation" / "classes.csv").is_file()


def test_an_unreachable_path_gives_a_one_line_error(monkeypatch):
    def fails(directory):
        raise tf.errors.FailedPreconditionError(None, None, "no host\n\t when reading")

    monkeypatch.setattr(tf.saved_model, "contains_saved_model", fails)
    with pytest.raises(InputError, match=r"^--saved_model=gs://b/m: cannot be read \(no host when reading\); give a"):
        load_scorer("gs://b/m")
