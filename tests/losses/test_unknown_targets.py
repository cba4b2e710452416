"""Unknown targets count in no loss: each loss against plain loops over rated outputs in float64."""

from __future__ import annotations

import math
import typing

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.experiment import LossConfig
from yt8m_tf.losses import losses

_NAMES = typing.get_args(typing.get_type_hints(LossConfig)["name"])
_NUM_CLASSES, _NEGATIVES = 7, 2
_PAIRS = {
    "soft_ranking": lambda d: np.logaddexp(0, d + 1),
    "soft_ranking_per_example": lambda d: np.logaddexp(0, d + 1),
    "sigmoid_ranking": lambda d: np.log1p(1 / (1 + np.exp(-d))),
    "hinge_ranking": lambda d: max(0.0, 1 + d),
    "lsep": np.exp,
}


def _config(name: str) -> LossConfig:
    options = {"ranking_weight": 0.7, "poisson_weight": 0.3, "label_weight": 0.5, "tag_weight": 2.0}
    return LossConfig(name=name, negatives=_NEGATIVES, **options)  # type: ignore[arg-type]


def _random(rng: np.random.Generator, size: int = 6, outputs: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, soft and hard targets, and the mask of known ones: row 1 has only positives, and row 2 is unknown."""
    logits = rng.normal(size=(size, outputs)).astype(np.float32) * 2
    targets = rng.choice([0.0, 0.25, 0.75, 1.0], (size, outputs)).astype(np.float32)
    known = rng.random((size, outputs)) < 0.5
    targets[1], known[2] = 1.0, False
    return logits, np.where(known, targets, 0.0).astype(np.float32), known


def _rated(known: np.ndarray) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in np.argwhere(known)]


def _pairs(name: str, logits: np.ndarray, targets: np.ndarray, known: np.ndarray) -> float:
    rated, values = _rated(known), []
    for mine in (place for place in rated if targets[place] > 0.5):
        own = name == "soft_ranking_per_example"
        others = [logits[o] for o in rated if targets[o] <= 0.5 and (o[0] == mine[0] or not own)]
        highest = sorted(others, reverse=True)[: _NEGATIVES * (1 if own else len(logits))]
        values += [_PAIRS[name](other - logits[mine]) for other in highest]
    mean = float(np.mean(values)) if values else 0.0
    return math.log1p(mean) if name == "lsep" else mean


def _misranked(place: tuple[int, int], logits: np.ndarray, targets: np.ndarray, known: np.ndarray) -> int:
    if targets[place] > 0.5:
        return sum(targets[o] <= 0.5 and logits[o] > logits[place] for o in _rated(known))
    return sum(targets[o] > 0.5 and logits[o] < logits[place] for o in _rated(known))


def _expected(name: str, logits: np.ndarray, targets: np.ndarray, known: np.ndarray) -> float:
    config, size = _config(name), len(logits)
    bce = {place: np.logaddexp(0, logits[place]) - targets[place] * logits[place] for place in _rated(known)}
    if name in _PAIRS:
        return _pairs(name, logits, targets, known)
    if name == "mse":
        return sum((1 / (1 + np.exp(-logits[p])) - targets[p]) ** 2 for p in bce) / size
    if name == "rank_weighted_bce":
        return sum(max(1, _misranked(p, logits, targets, known)) * loss for p, loss in bce.items()) / size
    if name == "bce_labels_tags":
        weights = {p: config.label_weight if p[1] < _NUM_CLASSES else config.tag_weight for p in bce}
        return sum(weights[p] * loss for p, loss in bce.items()) / size
    total = sum(bce.values()) / size
    if name == "bce_plus_soft_ranking":
        total += config.ranking_weight * _pairs("soft_ranking", logits, targets, known)
    if name == "bce_plus_poisson":
        for row in range(size):
            own = [p for p in bce if p[0] == row]
            rate = sum(1 / (1 + np.exp(-logits[p])) for p in own)
            if own:  # with no ratings, the count is 0, and so is the rate
                total += config.poisson_weight * (rate - sum(targets[p] for p in own) * np.log(rate)) / size
    return float(total)


@pytest.mark.parametrize("name", _NAMES)
def test_each_loss_uses_only_rated_outputs(name: str, rng: np.random.Generator) -> None:
    logits, targets, known = _random(rng)
    expected = _expected(name, logits.astype(np.float64), targets.astype(np.float64), known)
    value = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = losses.make_loss(_config(name), _NUM_CLASSES)(value, tf.constant(targets), tf.constant(known))
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    gradient = tape.gradient(loss, value).numpy()
    assert np.abs(gradient[known]).max() > 0 and not gradient[~known].any()
    negative = losses.make_loss(_config(name), _NUM_CLASSES)(value, tf.constant(targets))
    assert abs(float(negative) - expected) > 1e-3  # unrated outputs taken as negatives


@pytest.mark.parametrize("name", _NAMES)
def test_loss_is_zero_if_nothing_is_rated(name: str) -> None:
    logits = tf.Variable([[3.0, -2.0, 0.5] * 3] * 2)
    with tf.GradientTape() as tape:
        nothing = tf.zeros([2, 9], tf.bool)
        loss = losses.make_loss(_config(name), _NUM_CLASSES)(logits, tf.zeros([2, 9]), nothing)
    assert float(loss) == 0.0 and not tape.gradient(loss, logits).numpy().any()


@pytest.mark.parametrize("name", [name for name in _NAMES if name in _PAIRS])
def test_rankings_with_all_targets_known_equal_those_without_a_mask(name: str, rng: np.random.Generator) -> None:
    logits, targets, _ = _random(rng)
    loss = losses.make_loss(_config(name), _NUM_CLASSES)
    known = tf.ones(logits.shape, tf.bool)
    assert float(loss(logits, tf.constant(targets), known)) == float(loss(logits, tf.constant(targets)))


def test_the_mean_of_two_halves_is_the_loss_of_the_whole(rng: np.random.Generator) -> None:
    logits, targets, known = _random(rng)
    known[:3] &= rng.random((3, 9)) < 0.3  # fewer ratings in one half
    loss = losses.make_loss(LossConfig(), _NUM_CLASSES)
    halves = [float(loss(logits[own], tf.constant(targets[own]), known[own])) for own in (slice(0, 3), slice(3, 6))]
    np.testing.assert_allclose(np.mean(halves), float(loss(logits, tf.constant(targets), known)), rtol=1e-6)


def test_rated_targets_are_spread(rng: np.random.Generator) -> None:
    classes = np.array([[4, 0, -1], [-1, -1, -1], [6, 2, 3]], np.int32)
    ratings = np.array([[0.5, 1.0, 0.0], [0.0] * 3, [0.0, 1.0, 0.25]], np.float32)
    targets, known = losses.rated_targets(tf.constant(classes), tf.constant(ratings), _NUM_CLASSES)
    expected, rated = np.zeros((3, _NUM_CLASSES)), np.zeros((3, _NUM_CLASSES), bool)
    for row, column in np.argwhere(classes >= 0):
        expected[row, classes[row, column]], rated[row, classes[row, column]] = ratings[row, column], True
    np.testing.assert_array_equal(targets, expected)
    np.testing.assert_array_equal(known, rated)
