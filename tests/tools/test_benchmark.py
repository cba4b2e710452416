"""Compared implementations compute the same; ratios, tables and files are right. No timings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from benchmarks import evaluate, harness, heap_evaluator, memory, read, report, score, stack, train, workload

from yt8m_tf import models, schema
from yt8m_tf.models.operations import matrix_operations
from yt8m_tf.stacking import features, settings

ROOT = Path(__file__).resolve().parents[2]


def quick(directory, **changes):
    return harness.Options(str(directory), repetitions=1, quick=True, **changes)


def totals(batches, data):
    """Totals of batches from either reader: numbers of records and values; labels; means and mean squares."""
    count, num_values, sums = 0, np.zeros(len(data.features), np.int64), np.zeros((len(data.features), 2))
    labels = np.zeros(data.num_classes, np.int64)
    for batch in batches:
        valid = np.asarray(batch.get("valid", np.ones(len(batch["labels"]), bool)))
        count += valid.sum()
        rows = np.asarray(batch["labels"])[valid]
        labels += rows.sum(axis=0) if rows.dtype == bool else np.bincount(rows[rows >= 0], minlength=data.num_classes)
        for i, name in enumerate(data.features):
            values = np.asarray(batch[name])[valid]
            if values.dtype == np.uint8:
                values = values * (4 / 255) + (4 / 512 - 2)
            if data.level == "frame":
                values = values[np.arange(values.shape[1]) < np.asarray(batch["num_frames"])[valid][:, None]]
            num_values[i] += values.size
            sums[i] += values.sum(dtype=np.float64), np.square(values, dtype=np.float64).sum()
    return [count, *num_values], labels, sums / num_values[:, None]


@pytest.mark.parametrize("level", ["video", "frame"])
def test_readers_read_the_same(tmp_path, level):
    if level == "video":
        data, shards = workload.video_data(), workload.video_shards(quick(tmp_path))
    else:
        data, shards = workload.frame_data(), workload.frame_shards(quick(tmp_path))
    number = workload.count_records(shards)
    assert number == {"video": 80, "frame": 10}[level]
    counts, labels, means = totals(read.plain_dataset(shards, data, 7), data)
    assert counts[0] == number
    # One pass of the training stream in two batches: the same records in another order.
    stream = read.ours_training(shards, data, number // 2)
    for batches in (read.ours_evaluation(shards, data, 7), [next(stream), next(stream)]):
        ours_counts, ours_labels, ours_means = totals(batches, data)
        assert ours_counts == counts
        np.testing.assert_array_equal(ours_labels, labels)
        np.testing.assert_allclose(ours_means, means, rtol=0, atol=1e-6)  # float32 rounds the codes of frames


@pytest.mark.slow
def test_read_benchmark_runs(tmp_path):
    data, shards = workload.video_data(), workload.video_shards(quick(tmp_path))
    measurement = read.measure_level(shards, 80, data, quick(tmp_path))
    demanded = [(t.ours, t.against, t.at_least) for t in measurement.targets if t.at_least]
    assert demanded == [
        ("training_stream", "one record at a time", 5.0),
        ("training_stream", "raw, in batches", 0.5),
        ("evaluation_stream", "one record at a time", 5.0),
        ("evaluation_stream", "raw, in batches", 0.5),
    ]
    assert all(len(rates) == 1 and rates[0] > 0 for rates in measurement.rates.values())


def test_data_dir_of_the_user(tmp_path):
    workload.video_shards(quick(tmp_path))
    (tmp_path / "other.txt").write_text("no shard")
    found = workload.video_shards(quick(tmp_path / "unused", data_dir=str(tmp_path)))
    assert [os.path.basename(path) for path in found] == ["video0000.tfrecord", "video0001.tfrecord"]


@pytest.mark.slow
def test_evaluators_agree(rng):
    batches = [evaluate.make_batch(24, 300, rng) for _ in range(3)]
    ours = evaluate.ours(batches, evaluate.compiled_statistics()).scalars()
    for top in (heap_evaluator.heap_top, heap_evaluator.numpy_top):
        plain = evaluate.plain(batches, top)
        assert set(plain) == {"gap_at_20", "hit_at_1", "perr", "map"}
        for name, value in plain.items():
            assert value == pytest.approx(ours[name], abs=1e-6), name
    assert 0.2 < ours["gap_at_20"] < 0.999  # neither uninformative nor perfect


def test_heap_evaluator_by_hand():
    evaluator = heap_evaluator.HeapEvaluator(3)
    scores = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.05]], np.float32)
    evaluator.update(scores, np.array([[True, False, True], [False, True, False]]))
    result = evaluator.result()
    assert result["gap_at_20"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3, abs=1e-12)
    assert result["hit_at_1"] == 0.5
    assert result["perr"] == 0.25  # video 1: one of its two highest is a label; video 2: its highest is not
    assert result["map"] == 1.0  # each class's own positive is its highest pair


@pytest.mark.slow
def test_evaluate_benchmark_runs(tmp_path):
    result = evaluate.run(quick(tmp_path))
    (measurement,), (table,) = result.measurements, result.tables
    assert [t.at_least for t in measurement.targets] == [30.0, None]
    assert [row[0] for row in table.rows] == ["64", "128", "256"]
    assert "benchmark evaluate" in report.render("evaluate", result)


def test_implementations_run_alternately_and_ratios_are_paired():
    """Rates 10, 40, 90 against 5, 10, 15: ratios 2, 4, 6."""
    calls = []

    def way(name, rates):
        waiting = [1.0, 1.0, *rates]  # two untimed runs

        def run(amount):
            calls.append((name, amount))
            return waiting.pop(0) * 0.25 * amount, 0.25 * amount

        return harness.Variant(name, "", run)

    ways = [way("a", (10.0, 40.0, 90.0)), way("b", (5.0, 10.0, 15.0))]
    target = harness.Target("a", "b", 4.5)
    measurement = harness.measure(
        "title", "things/s", ways, [target], harness.Options("", repetitions=3), min_seconds=1.0, progress=False
    )
    assert calls == [("a", 1)] * 2 + [("b", 1)] * 2 + [("a", 4), ("b", 4)] * 3  # 4 times 0.25 s make 1 s
    assert measurement.median("a") == 40.0
    assert measurement.ratios(target) == [2.0, 4.0, 6.0] and measurement.ratio(target) == 4.0
    assert report.ratio_table(measurement).rows == [["a / b", "4.00", "2.00", "6.00", "4.5", "NO"]]
    assert report.rate_table(measurement).rows == [["a", "40", "10", "90"], ["b", "10", "5", "15"]]


def test_tables_and_json(tmp_path):
    table = report.Table("Title", ("way", "rate"), [["long name", "1"], ["b", "1,000"]])
    assert table.render().splitlines() == ["Title", "  way         rate", "  long name      1", "  b          1,000"]
    assert table.render(markdown=True).splitlines() == [
        *("**Title**", "", "| way       |   rate |", "|:----------|-------:|", "| long name |      1 |"),
        "| b         |  1,000 |",
    ]
    way = harness.Variant("a", "everything", lambda amount: amount)
    measurement = harness.Measurement("m", "x/s", [way], [harness.Target("a", "a", 1.0)], {"a": [3.0, 1.0, 2.0]})
    path = tmp_path / "result.json"
    report.write_json(path, "read", report.Result([measurement], [table], {"records": 7}), quick=True)
    contents = json.loads(path.read_text())
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
    assert contents["quick"] and contents["benchmark"] == "read" and contents["workload"] == {"records": 7}
    assert contents["machine"]["cores"] >= 1 and "tensorflow 2." in contents["machine"]["versions"]
    (measured,) = contents["measurements"]
    assert measured["ways"] == [{"name": "a", "counted": "everything", "median": 2.0, "rates": [3.0, 1.0, 2.0]}]
    assert measured["targets"][0]["ratio"] == 1.0


def test_operations_of_a_training_step():
    """`inner_size` 32: first layers of 1024 x 32 and 128 x 32 at 4 operations per weight, all other matrices at 6."""
    experiment = workload.experiment(quick=True, batch_size=16)
    model = models.build_model(experiment.model, experiment.data.spec)
    first = (1024 + 128) * 32
    blocks = 2 * (2 * 32 * 32) + 2 * 64 * 32  # one in each branch, one on both concatenated
    last = 64 * 32 + 32 * schema.NUM_CLASSES
    assert train.flops_per_example(model, experiment) == 4 * first + 6 * (blocks + last)


@pytest.mark.skipif(not memory.available(), reason="no /proc/self/status")
@pytest.mark.slow
def test_resident_memory_is_seen():
    before = memory.resident_bytes()
    held = np.ones(25_000_000)  # 200 MB, all of it written
    assert 150e6 < memory.resident_bytes() - before < 300e6
    del held


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of read, train, evaluate, infer, score, models, stack, trees, export; got none"),
        (["write"], "got 'write'"),
        (["read", "--output=missing/a.json"], "--output=missing/a.json: cannot be written"),
        (["models", "--match=["], "--match=[: not a regular expression (unterminated character set"),
        pytest.param(["models", "--match=nothing"], "--match=nothing: matches no model", marks=pytest.mark.slow),
        pytest.param(["read", "--data_dir=."], "--data_dir: no file matches './*.tfrecord'", marks=pytest.mark.slow),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    command = [sys.executable, str(ROOT / "tools" / "benchmark.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("benchmark: error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_matrix_products_are_counted():
    assert train._products(8, flops=64.0)(3) == pytest.approx(3 * 2 * 8**3 / 64.0)


def test_operations_of_a_graph_are_counted():
    """Products [3, 4] x [4, 5]: alone, in a batch of 2, as an einsum, and five times in a loop; a convolution."""
    left, right, one = tf.ones([3, 4]), tf.ones([4, 5]), 2 * 3 * 4 * 5

    def loop():
        step = lambda i, x: (i + 1, x + tf.reduce_sum(tf.matmul(left, right)))  # noqa: E731
        return tf.while_loop(lambda i, _: i < 9, step, (0, 0.0), maximum_iterations=5)

    images, kernel = tf.ones([2, 1, 10, 4]), tf.ones([1, 3, 4, 6])

    def convolution_and_gradients():
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            found = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "VALID") ** 2)
        return tape.gradient(found, [images, kernel])

    for function, expected in (
        (lambda: tf.matmul(left, right), one),
        (lambda: tf.matmul(right, left, transpose_a=True, transpose_b=True), one),
        (lambda: tf.matmul(tf.stack([left, left]), tf.stack([right, right])), 2 * one),
        (lambda: tf.einsum("ab,bc->ac", left, right), one),
        (lambda: tf.function(lambda: tf.matmul(left, right))(), one),
        (loop, 5 * one),
        (lambda: tf.nn.conv2d(images, kernel, 1, "VALID"), 2 * (2 * 8 * 6) * (3 * 4)),
        (convolution_and_gradients, 3 * 2 * (2 * 8 * 6) * (3 * 4)),
    ):
        assert matrix_operations(function) == expected


@pytest.mark.slow
def test_models_benchmark_measures_a_model():
    command = [sys.executable, "-m", "benchmarks.models"]
    job = {"model": "mean_fcn", "level": "frame", "quick": True, "repetitions": 1}
    done = subprocess.run([*command, json.dumps(job)], capture_output=True, text=True, cwd=ROOT / "tools", check=False)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    weights = 1152 * 2048 + 2048 * 2048 + 2048 * schema.NUM_CLASSES
    assert row["num_parameters"] == weights + 2 * 2048 + schema.NUM_CLASSES
    means = 12 * 1152  # multiplications and additions of the means over 12 frames
    # 2 operations per weight for the output, 2 for its gradient, 2 for that of the input, except in the first layer.
    assert row["gflop_per_example"] == pytest.approx(1e-9 * (6 * weights - 2 * 1152 * 2048 + 2 * means), rel=1e-6)
    assert row["peak_gb"] > 0.1 and row["steps_per_second"] > 0 and "clips of 12 frames" in row["text"]


def test_both_ways_make_the_same_rows(rng):
    """Lists have all classes here; lists of 100 would lack scores that the published implementation uses."""
    scores = stack.make_scores(5, 3, rng)
    videos, classes = features.candidates(scores, 20, schema.NUM_CLASSES)
    config = settings.StackConfig(aggregates=False)
    ours = features.features(scores, videos, classes, schema.NUM_CLASSES, config)
    theirs = stack.published_rows(stack._dense(scores))
    np.testing.assert_array_equal(theirs[:, 0], classes)
    np.testing.assert_array_equal(theirs[:, 1:], np.nan_to_num(ours.astype(np.float32)))


@pytest.mark.slow
def test_memory_of_stacking_is_measured(tmp_path):
    found = stack.measure_memory({"directory": str(tmp_path), "shards": 4, "videos": 10})
    assert found["videos"] == 40 and found["rows"] >= 40 * 20
    assert found["all"] >= found["all_but_lightgbm"] >= found["before"] > 1e8


@pytest.mark.slow
def test_scoring_is_measured(tmp_path):
    (measurement,) = score.run(quick(tmp_path)).measurements
    assert [len(rates) for rates in measurement.rates.values()] == [1, 1, 1]
    assert not list(tmp_path.glob("turn_*"))
