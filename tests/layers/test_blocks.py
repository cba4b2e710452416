import keras
import numpy as np
import pytest

from yt8m_tf.layers import blocks
from yt8m_tf.layers.gating import context_gating


def as_model(block, size):
    x = keras.Input((size,))
    return keras.Model(x, block(x))


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def test_initial_weights_are_uniform_in_the_inverse_root_of_fan_in():
    layer = as_model(lambda x: blocks.dense(x, 4000, "d"), 25).get_layer("d")
    for values in (np.asarray(layer.kernel), np.asarray(layer.bias)):
        assert np.abs(values).max() <= 0.2  # 1 / sqrt(25)
        assert np.abs(values).max() > 0.199
        # The standard deviation of U(-a, a) is a / sqrt(3); over 4000 draws it varies by 0.7 % (one sigma).
        assert values.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.035)


def test_l2_does_not_apply_to_the_bias():
    model = as_model(lambda x: blocks.dense(x, 2, "d", l2=0.5), 3)
    layer = model.get_layer("d")
    layer.kernel.assign(np.full((3, 2), 2.0))
    layer.bias.assign([10.0, 10.0])
    assert float(sum(model.losses)) == pytest.approx(0.5 * 6 * 4.0)


def test_fc_block_in_training(rng):
    model = as_model(lambda x: blocks.fc_block(x, 5, 0.0, "fc"), 3)
    x = rng.normal(size=(8, 3)).astype("float32")
    dense, norm = model.get_layer("fc_dense"), model.get_layer("fc_bn")
    h = x @ np.asarray(dense.kernel)
    expected = leaky((h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5))
    np.testing.assert_allclose(model(x, training=True), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * h.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * h.var(axis=0), rtol=1e-4)


def test_fc_block_ends_with_dropout(rng):
    keras.utils.set_random_seed(1)
    model = as_model(lambda x: blocks.fc_block(x, 400, 0.25, "fc"), 3)
    outputs = np.asarray(model(rng.normal(size=(50, 3)).astype("float32"), training=True))
    assert (outputs == 0).mean() == pytest.approx(0.25, abs=0.015)  # 20,000 draws: five sigma


def test_res_block_with_zero_residual_is_a_leaky_relu():
    model = as_model(lambda x: blocks.res_block(x, 7, 0.0, "res"), 2)
    model.get_layer("res_outer").kernel.assign(np.zeros((7, 2)))
    model.get_layer("res_outer").bias.assign([1.0, 0.0])
    np.testing.assert_allclose(model(np.array([[-3.0, 5.0], [2.0, -1.0]])), [[-0.02, 5.0], [3.0, -0.01]], rtol=1e-6)


def test_context_gating_of_known_weights():
    model = as_model(lambda x: context_gating(x, "gate"), 2)
    model.get_layer("gate").kernel.assign(np.zeros((2, 2)))
    model.get_layer("gate").bias.assign(np.log([3.0, 1.0]))  # gates of 3/4 and 1/2
    np.testing.assert_allclose(model(np.array([[4.0, -6.0]])), [[3.0, -3.0]], rtol=1e-6)


def test_concat_features_follows_the_order_of_the_names():
    tensors = {"rgb": np.ones((2, 3)), "audio": np.zeros((2, 1))}
    np.testing.assert_array_equal(blocks.concat_features(tensors, ["audio", "rgb"]), [[0, 1, 1, 1]] * 2)
    np.testing.assert_array_equal(blocks.concat_features(tensors, ["rgb"]), tensors["rgb"])
