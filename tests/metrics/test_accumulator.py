"""Metrics against a slow reference: one heap per video, exact fractions, NumPy only for rounding to float32."""

import heapq
import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import NUM_THRESHOLDS, MetricAccumulator, Metrics, global_average_precision
from yt8m_tf.metrics.batch_statistics import (
    NUM_BINS,
    batch_statistics,
    compiled_statistics,
    concatenate_statistics,
    top_score_statistics,
)
from yt8m_tf.schema import NO_LABEL

RANKED = ("gap", "map", "average_precision", "pairs_above")  # identical bit for bit, however the videos are batched


def average_precision(pairs, num_positives):
    """Computes the AP of (score, hit) pairs exactly; among equal scores, negatives rank first."""
    hits, total = 0, Fraction(0)
    for rank, (_, hit) in enumerate(sorted(pairs, key=lambda pair: (-pair[0], pair[1])), start=1):
        if hit:
            hits += 1
            total += Fraction(hits, rank)
    return float(total / num_positives)


def reference(logits, labels, valid):
    """All metrics of [B, C] logits, [B, L] labels and [B] valid, by definition."""
    num_classes = logits.shape[1]
    pooled, by_class, positives = [], [[] for _ in range(num_classes)], [0] * num_classes
    hit_at_1, perr, bce = [], [], []
    bins = np.zeros((3, NUM_BINS))
    for row in range(len(logits)):
        if not valid[row]:
            continue
        truth = {int(label) for label in labels[row] if label != NO_LABEL}
        z = [float(value) for value in logits[row]]
        order = heapq.nsmallest(num_classes, range(num_classes), key=lambda c, z=z: (-z[c], c))
        score = [float(np.float32(1 / (1 + math.exp(-value)))) for value in z]
        for c in order[:20]:
            pooled.append((score[c], c in truth))
            by_class[c].append((score[c], c in truth))
        for c in truth:
            positives[c] += 1
        hit_at_1.append(order[0] in truth)
        perr.append(len(truth & set(order[: len(truth)])) / len(truth) if truth else 0.0)
        bce.append(
            math.fsum(math.log1p(math.exp(z[c])) - z[c] * (c in truth) for c in range(num_classes)) / num_classes
        )
        for c in range(num_classes):
            bins[:, min(int(np.float32(score[c]) * np.float32(NUM_BINS)), NUM_BINS - 1)] += 1, score[c], c in truth
    per_class = [
        average_precision(pairs, count) if count else math.nan for pairs, count in zip(by_class, positives, strict=True)
    ]
    count = len(hit_at_1)
    return {
        "gap": average_precision(pooled, sum(positives)),
        "map": math.fsum(p for p in per_class if not math.isnan(p)) / sum(n > 0 for n in positives),
        "average_precision": per_class,
        "num_positives": positives,
        "hit_at_1": sum(hit_at_1) / count,
        "perr": math.fsum(perr) / count,
        "bce": math.fsum(bce) / count,
        "calibration": bins,
        "pairs_above": [
            [sum(s >= i / (NUM_THRESHOLDS - 1) and h == hit for s, h in pooled) for i in range(NUM_THRESHOLDS)]
            for hit in (True, False)
        ],
        "num_videos": count,
        "num_labels": sum(positives),
    }


def random_batch(rng, num_videos, num_classes, max_labels, *, ties=False, mean=-3.0):
    """Logits that correlate with the labels; videos without labels, repeated labels, labels in any order."""
    logits = rng.normal(mean, 2.0, (num_videos, num_classes))
    labels = np.full((num_videos, max_labels), NO_LABEL, np.int32)
    for row in range(num_videos):
        drawn = rng.integers(0, num_classes, rng.integers(0, max_labels + 1))
        labels[row, : len(drawn)] = drawn
        logits[row, drawn] += 3.0
    if ties:  # including scores of exactly 0 and exactly 1
        logits = np.choose(np.digitize(logits, [-5, -4, -1, 1, 6]), [-200.0, -5.0, -2.0, 0.0, 2.0, 40.0])
    return logits.astype(np.float32), labels, rng.random(num_videos) < 0.9


def measure(logits, labels, valid, batch_size=None, function=batch_statistics) -> Metrics:
    accumulator = MetricAccumulator(logits.shape[1])
    size = batch_size or len(logits)
    for i in range(0, len(logits), size):
        accumulator.update(function(logits[i : i + size], tf.constant(labels[i : i + size]), valid[i : i + size]))
    return accumulator.result()


def assert_close_bins(actual, expected) -> None:
    """Compares calibration bins: a score near the edge of a bin may fall on either side; all else must agree."""
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1.01)
    np.testing.assert_allclose(np.sum(actual, axis=1), np.sum(expected, axis=1), rtol=1e-5)


def assert_same_ranking(actual: Metrics, expected: Metrics) -> None:
    """Checks that the ranking agrees bit for bit, and float32 sums over the classes approximately."""
    for name in RANKED:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)
    for name, tolerance in {"hit_at_1": 1e-12, "perr": 1e-12, "bce": 1e-5}.items():
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=tolerance, err_msg=name)
    assert_close_bins(actual.calibration, expected.calibration)


@pytest.mark.parametrize(
    ("num_classes", "max_labels", "ties", "mean", "compiled"),
    [
        (60, 5, False, -3.0, False),
        (60, 5, True, -3.0, False),
        (60, 30, False, -6.0, False),  # more than 20 labels
        (60, 30, True, -1.0, True),
        (7, 9, False, -3.0, False),  # fewer classes than 20
        (7, 2, True, 0.0, True),
        (1, 1, False, 0.0, False),
        (200, 4, False, -9.0, False),  # all scores except those of labels are in the lowest bin of the calibration
    ],
)
def test_against_reference(num_classes, max_labels, ties, mean, compiled, rng):
    batch = random_batch(rng, 40, num_classes, max_labels, ties=ties, mean=mean)
    function = compiled_statistics() if compiled else batch_statistics
    actual, expected = measure(*batch, function=function), reference(*batch)
    assert actual.num_videos == expected["num_videos"] and actual.num_labels == expected["num_labels"]
    np.testing.assert_array_equal(actual.num_positives, expected["num_positives"])
    for name in (*RANKED, "hit_at_1", "perr"):
        np.testing.assert_allclose(getattr(actual, name), expected[name], rtol=0, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(actual.bce, expected["bce"], rtol=1e-5)  # a float32 sum over the classes
    assert_close_bins(actual.calibration, expected["calibration"])
    pairs, scores, hits = actual.calibration
    error = sum(n / pairs.sum() * abs(s / n - h / n) for n, s, h in zip(pairs, scores, hits, strict=True) if n)
    assert actual.calibration_error == pytest.approx(error, abs=1e-12)


def test_twenty_five_labels_ranked_perfectly_score_four_fifths():
    logits = np.where(np.arange(40) < 25, 5.0, -5.0)[None].astype(np.float32)
    metrics = measure(logits, np.arange(25, dtype=np.int32)[None], np.array([True]))
    assert metrics.gap == pytest.approx(0.8, abs=1e-15)
    assert metrics.perr == 1.0 and metrics.hit_at_1 == 1.0
    # 20 of the 25 classes are among the pairs, with precision 1; the other five have no pairs.
    assert metrics.map == pytest.approx(0.8, abs=1e-15)
    assert metrics.bce == pytest.approx(math.log1p(math.exp(-5)), rel=1e-5)  # float32 computes 125.27 - 125


def test_two_videos_by_hand():
    # Scores in order: a1 (no), a0 (yes), b0 (yes), b2 (no), a2 (yes), b1 (no). P = 3.
    logits = np.array([[2.0, 3.0, -1.0], [1.0, -2.0, 0.0]], np.float32)
    labels = np.array([[0, 2], [0, NO_LABEL]], np.int32)
    metrics = measure(logits, labels, np.array([True, True]))
    assert metrics.gap == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3, abs=1e-15)
    assert metrics.hit_at_1 == 1 / 2  # a1 is not a label, b0 is one
    assert metrics.perr == pytest.approx((1 / 2 + 1) / 2, abs=1e-15)  # a: {1, 0} against {0, 2}; b: {0}
    # Class 0: both videos. Class 2: b's pair (not a label) before a's. Class 1 has no positive and is left out.
    np.testing.assert_allclose(metrics.average_precision, [1.0, math.nan, 1 / 2], atol=1e-15)
    assert metrics.map == pytest.approx(3 / 4, abs=1e-15)


def test_equal_scores_rank_negatives_first():
    scores = np.array([0.5, 0.5, 0.0, -0.0], np.float32)
    hits = np.array([True, False, True, False])
    # Order: 0.5 no, 0.5 yes, 0 no, 0 yes; both zeros count as pairs.
    assert global_average_precision(scores, hits, 2) == pytest.approx((1 / 2 + 2 / 4) / 2, abs=1e-15)
    assert global_average_precision(scores[::-1], hits[::-1], 2) == global_average_precision(scores, hits, 2)


@pytest.mark.parametrize("score", [math.nan, -0.1])
def test_scores_that_cannot_be_ranked_are_refused(score):
    with pytest.raises(ValueError, match="not NaN"):
        global_average_precision(np.array([0.1, score]), np.array([True, False]), 1)


def test_gap_does_not_drift_as_float32_does(rng):
    scores = np.sort(rng.random(3_000_000, dtype=np.float32))[::-1]
    hits = rng.random(3_000_000) < scores  # well calibrated: about half of the pairs
    num_positives = int(hits.sum())
    ordered = hits[np.lexsort((hits, -scores))]
    ranks = np.flatnonzero(ordered) + 1
    precision = np.arange(1, num_positives + 1) / ranks
    exact = math.fsum(precision) / num_positives
    float32 = np.cumsum(precision.astype(np.float32) / np.float32(num_positives), dtype=np.float32)[-1]
    assert abs(float32 - exact) > 1e-6  # the error of plain float32 sums
    assert global_average_precision(scores, hits, num_positives) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_ranking_is_independent_of_order_batches_and_workers(ties, rng):
    batch = random_batch(rng, 311, 50, 4, ties=ties)
    specs = [tf.TensorSpec([None, 50]), tf.TensorSpec([None, 4], tf.int32), tf.TensorSpec([None], tf.bool)]
    function = tf.function(batch_statistics, input_signature=specs)
    expected = measure(*batch, function=function)
    for size in (1, 7, 64):
        order = rng.permutation(311)
        assert_same_ranking(measure(*(part[order] for part in batch), size, function), expected)

    workers = [MetricAccumulator(50) for _ in range(3)]
    for start in range(0, 311, 50):  # 3, 2 and 2 batches
        part = [array[start : start + 50] for array in batch]
        workers[start // 50 % 3].update(function(*part))
    parts = [worker.arrays() for worker in (*workers, MetricAccumulator(50))]  # one worker had nothing to do
    gathered = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert_same_ranking(MetricAccumulator.from_arrays(gathered).result(), expected)
    workers[2].merge(workers[0])
    workers[2].merge(workers[1])
    assert_same_ranking(workers[2].result(), expected)


def test_rounding_does_not_depend_on_the_place_in_a_batch(rng):
    """The CPU's sigmoid rounds the last few elements of a tensor differently; the scores of pairs must not differ."""
    logits = rng.normal(-2, 4, (101, 3)).astype(np.float32)
    labels, valid = np.zeros((101, 1), np.int32), np.ones(101, bool)
    together, one_by_one = MetricAccumulator(3), MetricAccumulator(3)
    together.update(batch_statistics(logits, labels, valid))
    for row in range(101):
        one_by_one.update(batch_statistics(logits[row : row + 1], labels[row : row + 1], valid[row : row + 1]))
    np.testing.assert_array_equal(together.arrays()["keys"], one_by_one.arrays()["keys"])


def test_compiled_and_replicated_agree_with_eager(two_replicas, rng):
    batch = random_batch(rng, 64, 90, 25)
    expected = measure(*batch)
    assert_same_ranking(measure(*batch, function=compiled_statistics()), expected)

    @tf.function
    def step(logits, labels, valid):
        values = [
            two_replicas.experimental_distribute_values_from_function(
                lambda context, whole=whole: tf.split(whole, 2)[context.replica_id_in_sync_group]
            )
            for whole in (logits, labels, valid)
        ]
        parts = two_replicas.run(compiled_statistics(xla=False), values)
        local = {name: two_replicas.experimental_local_results(value) for name, value in parts.items()}
        return concatenate_statistics([{name: value[i] for name, value in local.items()} for i in range(2)])

    assert_same_ranking(measure(*batch, function=step), expected)


def test_padding_is_never_counted(rng):
    logits, labels, _ = random_batch(rng, 16, 30, 4)
    valid = np.arange(16) < 11
    padded = logits.copy()
    padded[~valid] = np.nan  # possible output of a model for padding
    for function in (batch_statistics, compiled_statistics()):
        metrics = measure(padded, labels, valid, function=function)
        assert_same_ranking(metrics, measure(logits[:11], labels[:11], valid[:11]))
        nothing = function(padded, labels, np.zeros(16, bool))
        accumulator = MetricAccumulator(30)
        accumulator.update(nothing)
        assert accumulator.num_videos == 0
        with pytest.raises(InputError, match="no videos"):
            accumulator.result()


def test_metrics_of_low_precision_logits_are_computed_in_float32(rng):
    logits, labels, valid = random_batch(rng, 30, 40, 4)
    half = logits.astype(np.float16)
    assert_same_ranking(measure(half, labels, valid), measure(half.astype(np.float32), labels, valid))


@pytest.mark.parametrize("position", [0, 17, 49])
def test_nan_score_names_the_video(position, rng):
    logits, labels, _ = random_batch(rng, 8, 50, 3)
    valid = np.ones(8, bool)
    accumulator = MetricAccumulator(50)
    accumulator.update(batch_statistics(logits, labels, valid))
    before = {name: array.copy() for name, array in accumulator.arrays().items()}
    logits[5, position] = np.nan
    statistics = batch_statistics(logits, labels, valid)
    with pytest.raises(InputError, match="video id05: its scores are NaN"):
        accumulator.update(statistics, [b"id%02d" % i for i in range(8)])
    with pytest.raises(InputError, match="video number 14: "):
        accumulator.update(statistics)
    for name, array in accumulator.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_videos_without_any_label_are_an_error():
    accumulator = MetricAccumulator(5)
    accumulator.update(batch_statistics(np.zeros((3, 5), "f4"), np.full((3, 2), NO_LABEL, "i4"), np.ones(3, bool)))
    with pytest.raises(InputError, match="none of the 3 videos evaluated has labels"):
        accumulator.result()


@pytest.mark.parametrize(("num_classes", "batch_size"), [(3862, 64), (3862, 1), (70_000, 8)])
def test_memory_per_video(num_classes, batch_size, rng):
    logits = rng.normal(size=(batch_size, num_classes)).astype(np.float32)
    statistics = batch_statistics(logits, np.zeros((batch_size, 1), np.int32), np.ones(batch_size, bool))
    statistics = {name: np.asarray(value) for name, value in statistics.items()}
    accumulator, largest = MetricAccumulator(num_classes), 0.0
    for _ in range(300):
        accumulator.update(statistics)
        reserved = accumulator._keys.nbytes + accumulator._classes.nbytes
        largest = max(largest, reserved / accumulator.num_videos)
    assert largest < 200


def test_metrics_by_name(rng):
    metrics = measure(*random_batch(rng, 20, 30, 4))
    scalars = metrics.scalars()
    assert list(scalars) == ["gap_at_20", "hit_at_1", "perr", "map", "bce", "calibration_error"]
    assert scalars["gap_at_20"] == metrics.gap and scalars["map"] == metrics.map


@pytest.mark.parametrize(("k", "max_labels"), [(20, 5), (26, 24), (6, 5), (6, 24)])
def test_metrics_of_only_the_highest_scores(k, max_labels, rng):
    logits, labels, _ = random_batch(rng, 60, 40, max_labels)
    classes = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    scores = (1 / (1 + np.exp(-np.take_along_axis(logits, classes, 1).astype(np.float64)))).astype(np.float32)
    accumulator = MetricAccumulator(40, k)
    for part in (slice(0, 23), slice(23, None)):
        given = [[*row[row != NO_LABEL], *row[row != NO_LABEL][:1]] for row in labels[part]]  # one of them repeated
        ids = [np.array(row, np.int64) for row in given]
        accumulator.update(top_score_statistics(classes[part], scores[part], ids, 40))
    actual, expected = accumulator.result(), reference(logits, labels, np.ones(60, bool))

    truth = [set(row.tolist()) - {NO_LABEL} for row in labels]
    pairs = [(float(scores[v, i]), classes[v, i] in truth[v]) for v in range(60) for i in range(min(k, 20))]
    assert actual.gap == pytest.approx(average_precision(pairs, sum(map(len, truth))), abs=1e-12)
    if k >= 20:
        for name in RANKED:
            np.testing.assert_allclose(getattr(actual, name), expected[name], atol=1e-12, rtol=0, err_msg=name)
    known = {"gap_at_20", "hit_at_1", "map"} | ({"perr"} if max(map(len, truth)) <= k else set())
    assert set(actual.scalars()) == known
    for name in {"hit_at_1", "perr"} & known:
        assert getattr(actual, name) == pytest.approx(expected[name], abs=1e-12)
    assert actual.num_positives.tolist() == expected["num_positives"]
    assert ("perr" in known) == (max_labels == 5 or k == 26)
