"""Candidates, features and GAP of rows against plain loops over videos."""

from __future__ import annotations

import numpy as np
import pytest

from yt8m_tf.metrics.accumulator import global_average_precision
from yt8m_tf.metrics.gap_histogram import GapHistogram, top_pairs
from yt8m_tf.score_shards.reading import ShardScores
from yt8m_tf.stacking.features import candidates, feature_names, features
from yt8m_tf.stacking.settings import StackConfig

_CLASSES = 37


def random_scores(rng: np.random.Generator, num_videos: int, width: int = 12, classes: int = _CLASSES) -> ShardScores:
    """Lists of different lengths, highest first, padded."""
    ids = np.array([f"v{i}".encode() for i in range(num_videos)], object)
    chosen = np.full((num_videos, width), -1, np.int32)
    scores = np.zeros((num_videos, width), np.float16)
    for video in range(num_videos):
        length = int(rng.integers(1, width + 1))
        chosen[video, :length] = rng.choice(classes, length, replace=False)
        scores[video, :length] = -np.sort(-rng.random(length))
    return ShardScores(ids, chosen, scores)


def _as_dicts(scores: ShardScores) -> list[dict[int, float]]:
    return [
        {int(c): float(s) for c, s in zip(classes, values, strict=True) if c >= 0}
        for classes, values in zip(scores.classes, scores.scores, strict=True)
    ]


@pytest.mark.parametrize("top", [1, 5, 20])
def test_candidates_by_loops(top: int, rng: np.random.Generator) -> None:
    models = [random_scores(rng, 23) for _ in range(4)]
    videos, classes = candidates(models, top, _CLASSES)
    expected = []
    for video in range(23):
        union = {int(c) for model in models for c in model.classes[video, :top] if c >= 0}
        expected += [(video, c) for c in sorted(union)]
    assert list(zip(videos.tolist(), classes.tolist(), strict=True)) == expected


@pytest.mark.parametrize("ranks", [False, True])
@pytest.mark.parametrize("aggregates", [False, True])
def test_features_by_loops(ranks: bool, aggregates: bool, rng: np.random.Generator) -> None:
    config = StackConfig(ranks=ranks, aggregates=aggregates)
    models = [random_scores(rng, 17) for _ in range(3)]
    videos, classes = candidates(models, 4, _CLASSES)
    found = features(models, videos, classes, _CLASSES, config)
    lists = [_as_dicts(model) for model in models]
    for row, (video, c) in enumerate(zip(videos.tolist(), classes.tolist(), strict=True)):
        own = [model[video].get(c, np.nan) for model in lists]
        expected = list(own)
        if ranks:
            orders = [list(model[video]) for model in lists]
            expected += [order.index(c) + 1 if c in order else np.nan for order in orders]
        if aggregates:
            given = [score for score in own if score == score]
            expected += [sum(given) / 3, max(given), len(given)]
        np.testing.assert_allclose(found[row], np.array(expected), rtol=1e-3, atol=1e-7)
    assert found.dtype == np.float16
    assert found.shape[1] == len(feature_names(["a", "b", "c"], config))


def test_the_mean_of_many_models_is_not_lost_in_float16(rng: np.random.Generator) -> None:
    models = [random_scores(rng, 9, width=5) for _ in range(115)]
    videos, classes = candidates(models, 20, _CLASSES)
    found = features(models, videos, classes, _CLASSES, StackConfig())
    own = np.nan_to_num(found[:, :115].astype(np.float64))
    np.testing.assert_allclose(found[:, 115], own.mean(axis=1), rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(found[:, 116], own.max(axis=1))
    np.testing.assert_array_equal(found[:, 117], np.sum(~np.isnan(found[:, :115]), axis=1))


def test_top_pairs_by_loops(rng: np.random.Generator) -> None:
    videos = np.sort(rng.integers(0, 9, 200)).astype(np.int32)
    classes = rng.permutation(5000)[:200].astype(np.int32)
    scores = rng.choice(np.linspace(0, 1, 7), 200).astype(np.float16)  # many are equal
    found, ranks = top_pairs(videos, classes, scores, 5)
    expected = []
    for video in range(9):
        rows = np.flatnonzero(videos == video).tolist()
        expected += sorted(rows, key=lambda r: (-float(scores[r]), classes[r]))[:5]
    assert found.tolist() == expected
    assert ranks.max() < 5 and ranks[0] == 0


def test_gap_of_a_histogram_is_that_of_the_pairs(rng: np.random.Generator) -> None:
    scores = rng.beta(0.3, 3, (300, 20)).astype(np.float16)
    scores[:10] = [0.0, 1.0] * 10
    hits = rng.random((300, 20)) < scores
    whole, first, second = GapHistogram(), GapHistogram(), GapHistogram()
    whole.add(scores, hits, 1000)
    first.add(scores[:100], hits[:100], 400)
    second.add(scores[100:], hits[100:], 600)
    first.merge(second)
    expected = global_average_precision(scores.astype(np.float32), hits, 1000)
    assert whole.gap() == pytest.approx(expected, rel=1e-12) == first.gap()
    assert np.isnan(GapHistogram().gap())


def test_gap_by_hand() -> None:
    """Among equal scores, misses rank first: hits at ranks 2 and 3, of 4 labels."""
    histogram = GapHistogram()
    histogram.add(np.array([0.5, 0.5, 0.25], np.float16), np.array([True, False, True]), 4)
    assert histogram.gap() == pytest.approx((1 / 2 + 2 / 3) / 4)
