"""Means of scores by hand, and optimality of the fitted weights."""

from __future__ import annotations

import numpy as np
import pytest

from yt8m_tf.stacking import means

_NAN = np.nan


def test_means_by_hand() -> None:
    scores = np.array([[0.5, 0.25, _NAN], [1.0, 0.0, 0.5]], np.float16)
    np.testing.assert_allclose(means.plain_mean(scores), [0.25, 0.5])
    np.testing.assert_allclose(means.weighted_mean(scores, np.array([0.5, 0.5, 0.0])), [0.375, 0.5])
    logits = [np.log(0.5 / 0.5), np.log(0.25 / 0.75), np.log(1e-4 / (1 - 1e-4))]
    np.testing.assert_allclose(means.logit_mean(scores)[0], 1 / (1 + np.exp(-np.mean(logits))), rtol=1e-5)
    assert 0 < means.logit_mean(scores)[1] < 1


def _loss(weights: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> float:
    mixed = np.clip(np.nan_to_num(scores.astype(np.float64)) @ weights, 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(labels, np.log(mixed), np.log(1 - mixed))))


def test_no_other_weights_are_better(rng: np.random.Generator) -> None:
    """The loss is convex in the weights, so weights that no neighbour improves on are optimal."""
    truth = rng.beta(0.5, 2, 4000)
    labels = rng.random(4000) < truth
    noise = [0.1, 0.3, 1.0, 3.0]
    logits = np.log(truth / (1 - truth) + 1e-9)[:, None] + rng.normal(size=(4000, 4)) * noise
    scores = (1 / (1 + np.exp(-logits))).astype(np.float16)
    weights = means.fit_weights(scores, labels)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    best = _loss(weights, scores, labels)
    assert best <= _loss(np.full(4, 0.25), scores, labels) - 1e-3
    assert np.argmax(weights) == 0
    for _ in range(50):
        other = np.clip(weights + rng.normal(size=4) * 0.02, 0, None)
        assert _loss(other / other.sum(), scores, labels) >= best - 1e-7


def test_a_model_that_lists_nothing_gets_no_weight(rng: np.random.Generator) -> None:
    labels = rng.random(500) < 0.5
    good = np.where(labels, 0.9, 0.1)
    weights = means.fit_weights(np.stack([good, np.full(500, _NAN)], axis=1).astype(np.float16), labels)
    assert weights[0] > 0.99


def test_equal_scores_have_equal_means_in_any_memory_layout(rng: np.random.Generator) -> None:
    scores = rng.random((2000, 5)).astype(np.float16)
    by_column, weights = np.asfortranarray(scores), rng.dirichlet(np.ones(5))
    np.testing.assert_array_equal(means.weighted_mean(by_column, weights), means.weighted_mean(scores, weights))
    for mean in (means.plain_mean, means.logit_mean):
        np.testing.assert_array_equal(mean(by_column), mean(scores))
