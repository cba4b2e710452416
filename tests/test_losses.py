import math

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf import losses


def test_bce_worked_out_by_hand():
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


def test_losses_are_known_by_name():
    assert losses.LOSSES["bce"] is losses.bce


@pytest.mark.parametrize("jit", [False, True])
def test_dense_targets_worked_out_by_hand(jit):
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
