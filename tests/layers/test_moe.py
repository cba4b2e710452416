import decimal
import math

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.moe import MixtureOfExperts, mixture_log_odds


def exact_log_odds(gates, experts):
    """The log odds by definition, with 500 digits."""
    with decimal.localcontext(decimal.Context(prec=500)):
        weights = [decimal.Decimal(float(gate)).exp() for gate in gates]
        yes = [1 / (1 + (-decimal.Decimal(float(expert))).exp()) for expert in experts]
        probability = sum((w * y for w, y in zip(weights, yes, strict=False)), decimal.Decimal(0)) / sum(weights)
        return float((probability / (1 - probability)).ln())


def test_log_odds_computed_by_hand():
    # Three equal gates, two experts at one half: 2/3 * 1/2 = 1/3, whose odds are 1/2.
    assert float(mixture_log_odds(np.zeros(3), np.zeros(2))) == pytest.approx(-math.log(2))
    # Gates 1/2 and 1/2, one expert at 2/3: 1/3 again.
    assert float(mixture_log_odds(np.zeros(2), np.log([2.0]))) == pytest.approx(-math.log(2))


@pytest.mark.parametrize(("scale", "num_mixtures"), [(1.0, 1), (10.0, 4), (200.0, 2)])
def test_log_odds_match_the_definition(scale, num_mixtures, rng):
    gates = rng.uniform(-scale, scale, (20, num_mixtures + 1)).astype("float32")
    experts = rng.uniform(-scale, scale, (20, num_mixtures)).astype("float32")
    expected = [exact_log_odds(*pair) for pair in zip(gates, experts, strict=True)]
    # Rounding a number of this size to float32 costs 6e-8 of it; a handful of roundings add up.
    np.testing.assert_allclose(mixture_log_odds(gates, experts), expected, rtol=2e-6, atol=2e-6 * scale)


def test_log_odds_and_gradients_stay_finite():
    extremes = [-1e30, -1e4, -100.0, 0.0, 100.0, 1e4]
    gates = tf.constant([[a, b, c] for a in extremes for b in extremes for c in extremes])
    experts = tf.constant([[b, -a] for a in extremes for b in extremes for _ in extremes])
    with tf.GradientTape() as tape:
        tape.watch([gates, experts])
        log_odds = mixture_log_odds(gates, experts)
    assert np.isfinite(log_odds).all()
    for gradient in tape.gradient(log_odds, [gates, experts]):
        assert np.isfinite(gradient).all()


def test_columns_are_ordered_by_class():
    layer = MixtureOfExperts(num_classes=2, num_mixtures=3)
    layer(np.zeros((1, 4), "float32"))
    layer.bias.assign([0.0, 0.0, 0.0, 50.0, 50.0, 50.0])  # the second class's experts all predict 1: 3/4 with the dummy
    np.testing.assert_allclose(layer(np.zeros((1, 4), "float32"))[0], [math.log(3 / 5), math.log(3)], rtol=1e-5)


def test_l2_applies_to_both_kernels_and_not_to_the_bias():
    layer = MixtureOfExperts(num_classes=2, num_mixtures=1, l2=0.5)
    layer(np.zeros((1, 3), "float32"))
    for variable in layer.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    assert float(sum(layer.losses)) == pytest.approx(0.5 * 4.0 * (3 * 4 + 3 * 2))


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"num_classes": 2, "num_mixtures": 0}])
def test_sizes_are_checked(arguments):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        MixtureOfExperts(**arguments)
