"""Thresholds of the best F1 against a plain reference that tries every threshold, with sets of videos."""

from __future__ import annotations

import csv
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.metrics.accumulator import MetricAccumulator
from yt8m_tf.metrics.batch_statistics import batch_statistics, top_score_statistics
from yt8m_tf.schema import NO_LABEL
from yt8m_tf.serving.thresholds import read_thresholds, write_thresholds


def best_of(pairs, num_positives):
    """(threshold, predicted, correct) of (score, hit) pairs: tries every score, highest first, in exact arithmetic."""
    best = (Fraction(-1), None, 0, 0)
    scores = sorted({score for score, _ in pairs}, reverse=True)
    for number, score in enumerate(scores):
        chosen = [hit for other, hit in pairs if other >= score]
        f1 = Fraction(2 * sum(chosen), len(chosen) + num_positives)
        if f1 > best[0]:
            below = scores[number + 1] if number + 1 < len(scores) else None
            halfway = score if below is None else np.float32((float(score) + float(below)) / 2)
            best = f1, halfway if below is None or halfway > below else score, len(chosen), sum(chosen)
    return best[1:]


def reference(rows, labels, num_classes, min_positives):
    """(own, threshold, predicted, correct) of each class, from rows {class: score} and sets of labels."""
    pooled = [(score, c, c in own) for row, own in zip(rows, labels, strict=True) for c, score in row.items()]
    positives = [sum(c in own for own in labels) for c in range(num_classes)]
    shared = best_of([(score, hit) for score, _, hit in pooled], sum(positives))[0]
    found = []
    for c in range(num_classes):
        pairs = [(score, hit) for score, other, hit in pooled if other == c]
        own = positives[c] >= min_positives and any(hit for _, hit in pairs)
        threshold = best_of(pairs, positives[c])[0] if own else shared
        reached = [hit for score, hit in pairs if score >= threshold]
        found.append((own, threshold, len(reached), sum(reached)))
    return found, positives


@pytest.mark.parametrize("distinct", [5, 1000])
@pytest.mark.parametrize("min_positives", [1, 8])
def test_thresholds_are_those_of_the_reference(rng, distinct, min_positives):
    """Few distinct scores cause many ties; class 0 is never among the highest, class 1 has no positives."""
    videos, num_classes = 120, 31
    scores = (rng.integers(1, distinct, (videos, num_classes)) / distinct).astype(np.float32)
    scores[:, 0] = 0.0
    labels = [{int(c) for c in rng.choice(num_classes, rng.integers(1, 6), replace=False)} - {1} for _ in range(videos)]
    for row, own in zip(scores, labels, strict=True):  # scores correlate with labels
        row[list(own - {0})] = np.minimum(row[list(own - {0})] + np.float32(0.3), 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    top = np.take_along_axis(scores, order, 1)
    accumulator = MetricAccumulator(num_classes)
    for part in (slice(0, 50), slice(50, 51), slice(51, None)):
        known = [np.array(sorted(own), np.int64) for own in labels[part]]
        accumulator.update(top_score_statistics(order[part], top[part], known, num_classes))
    found = accumulator.result(min_positives).thresholds

    rows = [dict(zip(classes.tolist(), values, strict=True)) for classes, values in zip(order, top, strict=True)]
    expected, positives = reference(rows, labels, num_classes, min_positives)
    assert found.num_positives.tolist() == positives
    assert found.own.tolist() == [own for own, *_ in expected] and not found.own[:2].any()
    assert found.scores.tolist() == [float(threshold) for _, threshold, *_ in expected]
    assert found.num_predicted.tolist() == [predicted for *_, predicted, _ in expected]
    assert found.num_correct.tolist() == [correct for *_, correct in expected]
    assert 0 < found.own.sum() < num_classes


def test_thresholds_by_hand():
    """Class 0: scores .9 hit, .7 miss, .6 hit, .2 miss; class 1: one positive, ranked first."""
    logits = np.log(np.array([[0.9, 0.3], [0.7, 0.8], [0.6, 0.1], [0.2, 0.4]], np.float64))
    logits -= np.log1p(-np.exp(logits))
    labels = np.array([[0], [1], [0], [NO_LABEL]], np.int32)
    accumulator = MetricAccumulator(2)
    accumulator.update(batch_statistics(tf.constant(logits, tf.float32), tf.constant(labels), tf.ones(4, tf.bool)))
    found = accumulator.result(2).thresholds
    # For class 0, F1 is 2/3 from .9 on, 1/2 from .7, 4/5 from .6, 2/3 from .2. For all: 2/4, 4/5, 4/6, 6/7, ...
    assert found.scores.tolist() == pytest.approx([0.4, 0.5])
    assert (found.own.tolist(), found.shared) == ([True, False], pytest.approx(0.5))
    assert (found.num_predicted.tolist(), found.num_correct.tolist()) == ([3, 1], [2, 1])
    assert found.f1.tolist() == pytest.approx([0.8, 1.0])


def test_thresholds_read_from_the_file_are_the_same(rng, tmp_path):
    scores = np.sort(rng.uniform(size=(300, 20)).astype(np.float32))[:, ::-1]
    order = np.array([rng.permutation(25)[:20] for _ in range(300)])
    labels = [rng.choice(25, rng.integers(1, 5), replace=False) for _ in range(300)]
    accumulator = MetricAccumulator(25)
    accumulator.update(top_score_statistics(order, scores, labels, 25))
    found = accumulator.result(40).thresholds
    names = ["a, b", *(f"name {c}" for c in range(1, 25))]
    write_thresholds(tmp_path / "new" / "thresholds.csv", found, names)
    read = read_thresholds(tmp_path / "new" / "thresholds.csv", 25)
    np.testing.assert_array_equal(read.scores, found.scores)
    kept = read.reached(order, scores)
    assert [int((order[kept] == c).sum()) for c in range(25)] == found.num_predicted.tolist()
    with open(tmp_path / "new" / "thresholds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert [row["threshold_of"] for row in rows] == ["class" if own else "all" for own in found.own]
    assert [int(row["correct"]) for row in rows] == found.num_correct.tolist()
    for row in rows:
        assert float(row["f1"]) == pytest.approx(
            2 * int(row["correct"]) / (int(row["predicted"]) + int(row["positives"])), abs=1e-6
        )


def test_memory_is_below_a_kilobyte_a_video(rng):
    videos = 20_000
    accumulator = MetricAccumulator(3862)
    scores = np.sort(rng.uniform(size=(videos, 20)).astype(np.float32))[:, ::-1]
    order = np.argsort(rng.random((videos, 64)), axis=1)[:, :20] * 60
    labels = [row[:3] for row in order]
    accumulator.update(top_score_statistics(order, scores, labels, 3862))
    tracemalloc.start()
    assert accumulator.result(10).thresholds.own.sum() == 64
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / videos < 900
