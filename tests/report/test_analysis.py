"""Analyses of predictions, against slow loops over videos and numbers computed by hand."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from report_world import random_predictions

from yt8m_tf.metrics.accumulator import global_average_precision
from yt8m_tf.report import predictions
from yt8m_tf.report.analysis import (
    confusions,
    ensemble_gaps,
    example_videos,
    paired_interval,
    precision_recall,
    prior_gap,
    video_average_precision,
)
from yt8m_tf.report.predictions import Predictions
from yt8m_tf.stacking.rows import Rows, save_rows


def _by_hand() -> Predictions:
    """Two videos: the first has labels 0 and 1, the second label 2."""
    classes = np.array([[0, 2, 1], [1, 2, -1]], np.int32)
    scores = np.array([[0.75, 0.5, 0.25], [0.875, 0.5, 0]], np.float16)
    return Predictions(
        np.array([b"a", b"b"], object), np.array([[0, 1], [2, -1]], np.int32), classes, scores, 3, (1, 1)
    )


def test_precision_and_recall_computed_by_hand() -> None:
    curve = precision_recall(_by_hand())
    # Ranked: 0.875 miss, 0.75 hit, 0.5 miss, 0.5 hit, 0.25 hit; among equal scores, misses rank first.
    np.testing.assert_allclose(curve.precision, [1 / 2, 2 / 4, 3 / 5])
    np.testing.assert_allclose(curve.recall, [1 / 3, 2 / 3, 1])
    assert curve.gap == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    assert curve.at(0.5) == pytest.approx((1 / 2, 2 / 3)) and curve.at(0.8)[1] == 0


def test_precision_and_recall_against_loops(rng: np.random.Generator) -> None:
    predictions = random_predictions(rng)
    pairs = []
    for labels, classes, scores in zip(predictions.labels, predictions.classes, predictions.scores, strict=True):
        own = [(float(s), int(c) in labels) for c, s in list(zip(classes, scores, strict=True))[:20] if c >= 0]
        pairs += own
    pairs.sort(key=lambda pair: (-pair[0], pair[1]))
    total = int((predictions.labels >= 0).sum())
    points, found = [], 0
    for rank, (_, hit) in enumerate(pairs, 1):
        if hit:
            found += 1
            points.append((found / total, found / rank))
    curve = precision_recall(predictions)
    np.testing.assert_allclose(np.stack([curve.recall, curve.precision], axis=1), points, rtol=1e-12)
    assert curve.gap == pytest.approx(curve.precision.sum() / total, abs=1e-12)  # the area under the curve


def test_confusions_computed_by_hand() -> None:
    (found,) = confusions(_by_hand(), 10)
    assert (found.meant, found.predicted, found.count, found.videos, found.together) == (2, 1, 1, 1, 0)


def test_confusions_against_loops(rng: np.random.Generator) -> None:
    predictions = random_predictions(rng, videos=300, classes=8)
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    together: collections.Counter[tuple[int, int]] = collections.Counter()
    totals: collections.Counter[int] = collections.Counter()
    for row, classes in zip(predictions.labels, predictions.classes, strict=True):
        labels = {int(label) for label in row if label >= 0}
        totals.update(labels)
        together.update((a, b) for a in labels for b in labels)
        if int(classes[0]) not in labels:
            counts.update((label, int(classes[0])) for label in labels)
    expected = sorted(counts, key=lambda pair: (-counts[pair], totals[pair[0]], *pair))
    for most in (3, 1000):
        found = confusions(predictions, most)
        assert [(pair.meant, pair.predicted) for pair in found] == expected[:most]
        for pair in found:
            key = (pair.meant, pair.predicted)
            assert (pair.count, pair.videos, pair.together) == (counts[key], totals[pair.meant], together[key])


def test_average_precision_of_videos_and_examples(rng: np.random.Generator) -> None:
    np.testing.assert_allclose(video_average_precision(_by_hand()), [(1 / 1 + 2 / 3) / 2, 1 / 2])
    predictions = random_predictions(rng)
    found = video_average_precision(predictions)
    for row, (labels, classes) in enumerate(zip(predictions.labels, predictions.classes, strict=True)):
        wanted = {int(label) for label in labels if label >= 0}
        hits, total = 0, 0.0
        for rank, number in enumerate(classes[:20].tolist(), 1):
            if number in wanted:
                hits += 1
                total += hits / rank
        assert found[row] == pytest.approx(total / len(wanted)) if wanted else np.isnan(found[row])
    rows = example_videos(predictions, 5, seed=3)
    assert {len(own) for own in rows.values()} == {5}
    labelled = ~np.isnan(found)
    assert found[rows["best"]].min() >= np.sort(found[labelled])[-5] and labelled[rows["random"]].all()
    np.testing.assert_allclose(found[rows["worst"]], np.sort(found[labelled])[:5])
    np.testing.assert_array_equal(rows["random"], example_videos(predictions, 5, seed=3)["random"])
    assert not np.array_equal(
        example_videos(predictions, 40, 3)["random"], example_videos(predictions, 40, 4)["random"]
    )


def test_means_of_more_and_more_models(rng: np.random.Generator, tmp_path: Path) -> None:
    """Ten models: sizes 1, 2, 4, 8, 10, in both orders, against a mean over all classes of each video."""
    count, classes, models = 12, 40, [f"m{number}" for number in range(10)]
    everything = []
    for shard in range(2):
        scores = rng.random((count, classes, len(models))).astype(np.float16)
        scores[rng.random(scores.shape) < 0.3] = np.nan
        labels = rng.random((count, classes)) < 0.1
        labels[0, 0] = True
        videos, numbers = (part.ravel().astype(np.int32) for part in np.indices((count, classes)))
        ids = np.array([f"{shard}{video}" for video in range(count)], np.bytes_)
        rows = Rows(ids, int(labels.sum()), videos, numbers, scores.reshape(-1, len(models)), labels.ravel())
        save_rows(tmp_path / f"{shard}.npz", rows)
        everything.append((scores, labels))
    gaps = {name: float(value) for name, value in zip(models, rng.random(len(models)), strict=True)}
    sizes, found = ensemble_gaps(tmp_path, models, gaps, num_shards=0, progress=False)
    assert sizes == [1, 2, 4, 8, 10]
    best = sorted(range(len(models)), key=lambda number: gaps[models[number]], reverse=True)
    for name, order in (("best first", best), ("worst first", best[::-1])):
        for size, gap in zip(sizes, found[name], strict=True):
            tops, hits = [], []
            for scores, labels in everything:
                for video, own in zip(np.nan_to_num(scores.astype(np.float32)), labels, strict=True):
                    mean = video[:, order[:size]].mean(axis=1).astype(np.float16)
                    top = np.argsort(-mean, kind="stable")[:20]
                    tops.append(mean[top])
                    hits.append(own[top])
            total = sum(int(labels.sum()) for _, labels in everything)
            assert gap == pytest.approx(global_average_precision(np.array(tops), np.array(hits), total), abs=1e-9)


def test_shards_are_taken_from_the_whole_list() -> None:
    assert predictions._spread("abcdefghij", 4) == ["a", "c", "f", "h"]
    assert predictions._spread("abc", 3) == predictions._spread("abc", 0) == ["a", "b", "c"]


def test_prior_gap_is_that_of_equal_scores_for_every_video(rng: np.random.Generator) -> None:
    """Compares with the metric itself: 30 classes, two of them equally frequent; the 20 best scores of videos count."""
    labels = rng.random((50, 30)) < rng.random(30) * 0.4
    labels[:, 3] = rng.permutation(labels[:, 4])
    counts = labels.sum(axis=0)
    top = np.argsort(-counts, kind="stable")[:20]
    scores = np.broadcast_to(counts[top] / 50, (50, 20))
    expected = global_average_precision(scores, labels[:, top], int(labels.sum()))
    assert prior_gap(counts.tolist(), 50) == pytest.approx(expected, abs=1e-12)
    assert prior_gap([2, 0], 4) == pytest.approx((1 / 3 + 2 / 4) / 2)  # misses among equal scores rank first


def test_the_paired_interval_is_of_the_same_videos(rng: np.random.Generator) -> None:
    """A model that ranks labels first in half of the videos is better, whatever the order of its videos."""
    own = random_predictions(rng, videos=200)
    classes = own.classes.copy()
    for row in np.flatnonzero(own.num_labels)[::2]:
        labels = own.labels[row][own.labels[row] >= 0]
        classes[row] = np.concatenate([labels, classes[row][~np.isin(classes[row], labels)]])[: classes.shape[1]]
    order = rng.permutation(200)
    better = Predictions(own.ids[order], own.labels[order], classes[order], own.scores[order], own.num_classes, (1, 1))
    interval = paired_interval(better, own)
    assert interval is not None and interval.low > 0
    assert interval.low < precision_recall(better).gap - precision_recall(own).gap < interval.high
    same = paired_interval(own, own)
    assert same is not None and same.low == same.high == 0
    fewer = {name: getattr(own, name)[:100] for name in ("ids", "labels", "classes", "scores")}
    assert paired_interval(own, dataclasses.replace(own, **fewer)) is None
