"""Losses against their definitions, written as plain loops in float64."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.experiment import LossConfig
from yt8m_tf.losses import losses, ranking
from yt8m_tf.training import mixup

NAMES = typing.get_args(typing.get_type_hints(LossConfig)["name"])
_NUM_CLASSES = 7  # of the outputs, before the tags
_PAIRWISE = {
    "soft_ranking": lambda d: np.logaddexp(0, d + 1),
    "soft_ranking_per_example": lambda d: np.logaddexp(0, d + 1),
    "sigmoid_ranking": lambda d: np.log1p(1 / (1 + np.exp(-d))),
    "hinge_ranking": lambda d: max(0.0, 1 + d),
    "lsep": np.exp,
}
_WITH_POSITIVES = (*_PAIRWISE, "rank_weighted_bce", "bce_plus_soft_ranking")


def _config(name: str) -> LossConfig:
    options = {"negatives": 3, "ranking_weight": 0.7, "poisson_weight": 0.3, "label_weight": 0.5, "tag_weight": 20.0}
    return LossConfig(name=name, **options)  # type: ignore[arg-type]


def _slow_pairs(name: str, logits: np.ndarray, targets: np.ndarray, negatives: int, above: float = 0.5) -> float:
    """Computes every pair separately, in float64."""
    values = []
    whole = [(row, c) for row in range(len(logits)) for c in range(logits.shape[1])]
    for row, column in whole:
        if targets[row, column] <= above:
            continue
        mine = name == "soft_ranking_per_example"
        others = [logits[i] for i in whole if targets[i] <= above and (i[0] == row or not mine)]
        highest = sorted(others, reverse=True)[: negatives * (1 if mine else len(logits))]
        values += [_PAIRWISE[name](other - logits[row, column]) for other in highest]
    mean = float(np.mean(values)) if values else 0.0
    return math.log1p(mean) if name == "lsep" else mean


def _slow_bce(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, logits) - targets * logits


def _slow_loss(config: LossConfig, logits: np.ndarray, targets: np.ndarray) -> float:
    """The definition of each loss, as plainly as possible."""
    bce = _slow_bce(logits, targets)
    if config.name in _PAIRWISE:
        return _slow_pairs(config.name, logits, targets, config.negatives, config.positive_above)
    if config.name == "mse":
        return float(np.mean((1 / (1 + np.exp(-logits)) - targets) ** 2))
    if config.name == "rank_weighted_bce":
        return float((_slow_weights(logits, targets, config.positive_above) * bce).mean())
    if config.name == "bce_plus_soft_ranking":
        pairs = _slow_pairs("soft_ranking", logits, targets, config.negatives, config.positive_above)
        return float(bce.mean() + config.ranking_weight * pairs)
    if config.name == "bce_plus_poisson":
        likelihoods = []
        for row, labels in zip(logits, targets, strict=True):
            rate = sum(1 / (1 + math.exp(-z)) for z in row)
            likelihoods.append(rate - labels.sum() * math.log(rate))
        return float(bce.mean() + config.poisson_weight * np.mean(likelihoods))
    if config.name == "bce_labels_tags":
        return float(
            config.label_weight * bce[:, :_NUM_CLASSES].mean() + config.tag_weight * bce[:, _NUM_CLASSES:].mean()
        )
    return float(bce.mean())


def _slow_weights(logits: np.ndarray, targets: np.ndarray, above: float = 0.5) -> np.ndarray:
    weights = np.ones(logits.shape)
    for i in np.ndindex(logits.shape):
        for j in np.ndindex(logits.shape):
            if targets[i] > above >= targets[j] and logits[j] > logits[i]:
                weights[i] += 1
            if targets[i] <= above < targets[j] and logits[j] < logits[i]:
                weights[i] += 1
    return np.maximum(weights - 1, 1)


@functools.cache
def _compiled(name: str, *, jit: bool) -> Callable[..., tuple[float, np.ndarray]]:
    """Returns a function from logits and targets to the loss and its gradient."""
    loss = losses.make_loss(_config(name), _NUM_CLASSES)

    @tf.function(jit_compile=jit, autograph=False)
    def compute(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(logits, targets)
            scaled = 8.0 * value  # as with loss scaling
        return value, tape.gradient(scaled, logits) / 8.0

    def call(logits: np.ndarray, targets: np.ndarray, dtype: tf.DType = tf.float32) -> tuple[float, np.ndarray]:
        value, gradient = compute(tf.constant(logits, dtype), tf.constant(targets, tf.float32))
        assert value.dtype == tf.float32 and value.shape == ()
        return float(value), tf.cast(gradient, tf.float64).numpy()

    return call


def _batch(rng: np.random.Generator, positives: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Logits and soft targets of shape [5, 9], exact in float32: positives, improbable candidates, and zeros."""
    logits = rng.normal(-1, 2, (5, _NUM_CLASSES + 2)).astype(np.float32).astype(np.float64)
    draw, size = rng.uniform(size=logits.shape), rng.uniform(0.01, 0.49, logits.shape)
    targets = np.where(draw < positives, size + 0.5, np.where(draw < (1 + positives) / 2, size, 0.0))
    return logits, targets.astype(np.float32).astype(np.float64)


def test_bce_computed_by_hand():
    # Probabilities 1/2 and 3/4.
    expected = (math.log(2) - 0.25 * math.log(0.75) - 0.75 * math.log(0.25)) / 2
    loss = losses.bce(tf.constant([[0.0, math.log(3)]]), tf.constant([[1.0, 0.25]]))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_bce_matches_the_definition(rng):
    logits, targets = rng.normal(0, 5, (40, 70)), rng.uniform(size=(40, 70))
    probability = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(probability) + (1 - targets) * np.log1p(-probability)).mean()
    assert float(losses.bce(tf.constant(logits), tf.constant(targets))) == pytest.approx(expected, rel=1e-5)


def test_bce_of_extreme_logits():
    logits = tf.constant([[1e4, -1e4, 1e4, -1e4]])
    loss = losses.bce(logits, tf.constant([[1.0, 0.0, 0.0, 1.0]]))
    assert float(loss) == pytest.approx(5e3)


def test_bce_of_half_precision_is_float32():
    loss = losses.bce(tf.zeros([2, 3], tf.bfloat16), tf.ones([2, 3], tf.bfloat16))
    assert loss.dtype == tf.float32
    assert float(loss) == pytest.approx(math.log(2), rel=1e-6)


# Pairwise losses differ only in a function of a difference: one of them is enough to test with XLA.
_SLOW_WITH_XLA = ("sigmoid_ranking", "hinge_ranking", "lsep", "bce_plus_soft_ranking")


@pytest.mark.parametrize(
    ("name", "jit"),
    [
        *(pytest.param(name, False, id=f"{name}-plain") for name in NAMES),
        *(
            pytest.param(name, True, id=f"{name}-xla", marks=[pytest.mark.slow] * (name in _SLOW_WITH_XLA))
            for name in NAMES
        ),
    ],
)
def test_values_and_gradients_match_the_definition(name: str, jit: bool, rng: np.random.Generator) -> None:
    """Values equal loops in float64, and gradients equal finite differences of these."""
    config, loss = _config(name), _compiled(name, jit=jit)
    for positives in (0.3, 0.8):  # with 0.8 there are fewer negatives than requested
        logits, targets = _batch(rng, positives)
        value, gradient = loss(logits, targets)
        assert value == pytest.approx(_slow_loss(config, logits, targets), rel=1e-5, abs=1e-6)
        weights = _slow_weights(logits, targets)
        for i in [(row, column) for row in range(5) for column in (0, 3, 8)]:
            change = np.zeros(logits.shape)
            change[i] = 1e-7
            if name == "rank_weighted_bce":  # the weights are constants
                ends = [(weights * _slow_bce(logits + sign * change, targets)).mean() for sign in (1, -1)]
            else:
                ends = [_slow_loss(config, logits + sign * change, targets) for sign in (1, -1)]
            assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-4, abs=1e-6), i


@pytest.mark.parametrize("name", _WITH_POSITIVES)
def test_improbable_candidates_are_negatives(name: str, rng: np.random.Generator) -> None:
    """Forty soft labels of a video do not make forty positives, unless `positive_above` is 0."""
    logits, hard = rng.normal(size=(4, 60)).astype(np.float32), np.zeros((4, 60))
    hard[:, :2] = 1.0
    soft = np.where(hard > 0, 0.9, np.where(np.arange(60) < 40, 0.01, 0.0)).astype(np.float32)
    value = float(losses.make_loss(_config(name), 60)(tf.constant(logits), tf.constant(soft)))
    assert value == pytest.approx(_slow_loss(_config(name), logits.astype(float), soft), rel=1e-5)
    published = dataclasses.replace(_config(name), positive_above=0.0)
    as_published = float(losses.make_loss(published, 60)(tf.constant(logits), tf.constant(soft)))
    assert as_published == pytest.approx(_slow_loss(published, logits.astype(float), soft), rel=1e-5)
    assert as_published != pytest.approx(value, rel=1e-4)
    if name in _PAIRWISE:  # they use nothing else
        assert value == pytest.approx(_slow_loss(_config(name), logits.astype(float), hard), rel=1e-5)


def test_positives_under_mixup() -> None:
    """Positives are those of the video with the larger weight, and those that both videos have."""
    targets = losses.dense_targets(tf.constant([[0, 1], [1, 2], [3, -1]]), 4)
    _, mixed = mixup.mix({}, targets, tf.constant([0.9, 0.6, 0.2]))
    expected = [[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]  # the third weighs 0.2, the second, its partner, 0.8
    np.testing.assert_array_equal(losses.positives(mixed, 0.5), expected)


@pytest.mark.parametrize("name", _WITH_POSITIVES)
def test_weighted_targets_stay_positive(name: str, rng: np.random.Generator) -> None:
    """A frequent class has less weight in the cross-entropy; in the ranking, its positives stay positives."""
    logits, targets = rng.normal(size=(6, 9)).astype(np.float32), (rng.uniform(size=(6, 9)) < 0.4).astype(np.float32)
    weights = np.full(9, 0.1)
    value = float(losses.make_loss(_config(name), 9, weights)(tf.constant(logits), tf.constant(targets)))
    if name in _PAIRWISE:
        expected = _slow_loss(_config(name), logits.astype(float), targets)
    else:
        bce = _slow_bce(logits.astype(float), 0.1 * targets)
        if name == "rank_weighted_bce":
            expected = (_slow_weights(logits, targets) * bce).mean()
        else:
            expected = bce.mean() + 0.7 * _slow_pairs("soft_ranking", logits.astype(float), targets, 3)
    assert value == pytest.approx(expected, rel=1e-5)


def test_pairs_computed_by_hand() -> None:
    logits, targets = tf.constant([[2.0, 1.0, 0.0], [0.5, 3.0, -1.0]]), tf.constant([[0.3, 1.0, 0.0], [0.6, 0.5, 0.0]])
    # Of the negatives 2, 0 and 3, -1, the two highest are 3 and 2; the positives, of targets 1 and 0.6, are 1 and 0.5.
    hinge = losses.make_loss(LossConfig("hinge_ranking", negatives=1), 3)
    assert float(hinge(logits, targets)) == pytest.approx((3 + 2 + 3.5 + 2.5) / 4)
    lsep = losses.make_loss(LossConfig("lsep", negatives=1), 3)
    expected = math.log1p((math.exp(2) + math.exp(1) + math.exp(2.5) + math.exp(1.5)) / 4)
    assert float(lsep(logits, targets)) == pytest.approx(expected)
    # Within an example, 1 is paired with 2, and 0.5 with 3.
    per_example = losses.make_loss(LossConfig("soft_ranking_per_example", negatives=1), 3)
    expected = (math.log1p(math.exp(2)) + math.log1p(math.exp(3.5))) / 2
    assert float(per_example(logits, targets)) == pytest.approx(expected)


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "xla"])
def test_misranked_counts_with_equal_scores(jit: bool, rng: np.random.Generator) -> None:
    """Few distinct scores, including both zeros; equal scores are not misranked."""
    logits = rng.choice([-np.inf, -2.5, -0.0, 0.0, 1e-30, 3.0, 100.0], (6, 8)).astype(np.float32)
    targets = (rng.uniform(size=(6, 8)) < 0.4).astype(np.float32)
    counts = tf.function(ranking.misranked_counts, jit_compile=jit)(tf.constant(logits), tf.constant(targets > 0))
    np.testing.assert_array_equal(np.maximum(counts, 1), _slow_weights(logits, targets))


@pytest.mark.parametrize("name", ["soft_ranking", "soft_ranking_per_example"])
def test_many_positives_in_several_chunks(name: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Chunks of one positive, and chunks with a remainder, give the same result as a single chunk."""
    logits, targets = _batch(rng, 0.5)
    expected = _compiled(name, jit=False)(logits, targets)
    for pairs, jit in ((1, False), (60, False), (60, True)):
        monkeypatch.setattr(ranking, "MAX_PAIRS", pairs)
        value, gradient = _compiled.__wrapped__(name, jit=jit)(logits, targets)
        assert value == pytest.approx(expected[0], rel=1e-5)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "targets", [0.0, 1.0, 0.5, 0.6], ids=["no positives", "all positives", "all half", "all above"]
)
@pytest.mark.parametrize("name", NAMES)
def test_without_pairs_everything_stays_finite(name: str, targets: float, rng: np.random.Generator) -> None:
    logits, _ = _batch(rng)
    value, gradient = _compiled(name, jit=True)(logits, np.full(logits.shape, targets))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if name in _PAIRWISE:
        assert value == 0.0 and not gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_stay_finite(name: str, rng: np.random.Generator) -> None:
    logits = rng.choice([-100.0, 100.0], (5, _NUM_CLASSES + 2))
    loss = _compiled(name, jit=True)
    for targets in (_batch(rng)[1], (logits < 0).astype(float), (logits > 0).astype(float)):
        value, gradient = loss(logits, targets)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        if name != "lsep":  # its definition overflows even in float64
            assert value == pytest.approx(_slow_loss(_config(name), logits, targets), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits(name: str, rng: np.random.Generator) -> None:
    """The arithmetic is float32; only the gradient is rounded on its way back."""
    logits, targets = _batch(rng)
    logits = tf.cast(tf.cast(logits, tf.bfloat16), tf.float64).numpy()
    loss = _compiled(name, jit=False)
    value, gradient = loss(logits, targets, tf.bfloat16)
    exact = loss(logits, targets)
    assert value == pytest.approx(exact[0], rel=1e-5)
    # If a loss is the sum of two losses, their gradients are rounded separately.
    np.testing.assert_allclose(gradient, exact[1], rtol=2e-2, atol=1e-2 * np.abs(exact[1]).max())


@pytest.mark.parametrize("name", NAMES)
def test_memory_of_large_batches_is_bounded(name: str) -> None:
    """No operation of the graph, including loops and the backward pass, makes more than the scores or a chunk's pairs.

    At this size, the pairs of three positives per example would exceed the bound 22 times.
    """
    batch_size, outputs = 512, 3862
    loss = losses.make_loss(LossConfig(name), outputs - 25)  # type: ignore[arg-type]

    def compute(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(logits, targets)
        return tape.gradient(value, logits)

    shape = tf.TensorSpec([batch_size, outputs])
    graph = tf.function(compute, autograph=False).get_concrete_function(shape, shape).graph
    functions = [function.graph for function in graph._functions.values() if hasattr(function, "graph")]
    assert functions or name not in _PAIRWISE or name == "lsep"
    sizes = {
        output.name: output.shape.num_elements()
        for each in [graph, *functions]
        for operation in each.get_operations()
        for output in operation.outputs
        if "redundant_placeholder" not in output.name  # an argument that a loop's condition does not use
    }
    assert None not in sizes.values()
    assert max(sizes.values()) <= max(batch_size * outputs + 1024, ranking.MAX_PAIRS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("soft_ranking", "lsep") else pytest.mark.slow) for name in NAMES],
)
def test_a_linear_model_learns_to_rank(name: str, rng: np.random.Generator) -> None:
    """On held-out examples, positives rank above negatives far more often than at the start."""
    truth = rng.normal(size=(8, 10))
    inputs = rng.normal(size=(256, 8)).astype(np.float32)
    targets = (inputs @ truth > 3.0).astype(np.float32)
    kernel = tf.Variable(rng.normal(0, 0.1, (8, 10)).astype(np.float32))
    bias = tf.Variable(np.full(10, -2.0, np.float32))
    optimizer = keras.optimizers.Adam(0.05)
    loss = losses.make_loss(_config(name), _NUM_CLASSES)

    @tf.function(autograph=False)
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(inputs[:128] @ kernel + bias, tf.constant(targets[:128]))
        return tape.gradient(value, [kernel, bias])

    def misranked() -> float:
        scores, labels = inputs[128:] @ kernel.numpy() + bias.numpy(), targets[128:]
        return float(np.mean(scores[labels > 0][:, None] <= scores[labels == 0][None]))

    before = misranked()
    for _ in range(60):
        optimizer.apply_gradients(zip(gradients(), [kernel, bias], strict=True))
    assert misranked() < 0.15 and misranked() < 0.5 * before


def test_ranking_needs_a_static_shape() -> None:
    loss = tf.function(losses.make_loss(_config("soft_ranking"), 4), autograph=False)
    unknown = tf.TensorSpec([None, 4])
    with pytest.raises(ValueError, match="static shape"):
        loss.get_concrete_function(unknown, unknown)


def test_classes_and_tags_have_separate_means_or_a_common_one() -> None:
    """Two classes and one tag, whose cross-entropies are all log 2."""
    logits, targets = tf.zeros([4, 3]), tf.zeros([4, 3])
    for separate, expected in ((True, 1 + 2), (False, (2 * 1 + 1 * 2) / 3)):
        config = LossConfig("bce_labels_tags", label_weight=1.0, tag_weight=2.0, separate_means=separate)
        value = float(losses.make_loss(config, 2)(logits, targets))
        assert value == pytest.approx(expected * math.log(2), rel=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_dense_targets_computed_by_hand(jit):
    labels = tf.constant([[2, 0, -1], [3, 3, -1], [-1, -1, -1], [-1, 1, 0]])
    targets = tf.function(losses.dense_targets, jit_compile=jit)(labels, 4)
    assert targets.dtype == tf.float32
    np.testing.assert_array_equal(targets, [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_dense_targets_match_sets_of_labels(dtype, rng):
    labels = rng.integers(-1, 50, (30, 12)).astype(dtype)
    expected = np.zeros((30, 50))
    for row, ids in enumerate(labels):
        expected[row, [i for i in set(ids.tolist()) if i >= 0]] = 1
    np.testing.assert_array_equal(losses.dense_targets(tf.constant(labels), 50), expected)
