import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.power import SignedPower


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0, 3.7])
def test_signed_power(power, rng):
    x = rng.normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(SignedPower(power)(x), np.sign(x) * np.abs(x) ** power, rtol=1e-5, atol=1e-6)


def test_gradients_by_hand():
    layer, x = SignedPower(3.0), tf.constant([-2.0, 0.5])
    layer(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x)
    for_x, for_power = tape.gradient(outputs, [x, layer.exponent.value])
    np.testing.assert_allclose(for_x, [12.0, 0.75], rtol=1e-5)  # 3 * x ** 2
    expected = -8 * np.log(2) + 0.125 * np.log(0.5)
    np.testing.assert_allclose(for_power, expected, rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("power", [-1.0, 0.5, 1.0, 3.0])
def test_gradients_at_zero_are_finite(power, jit):
    layer = SignedPower(power)
    layer(tf.zeros(1))

    @tf.function(jit_compile=jit)
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
        return outputs, tape.gradient(outputs, [x, layer.exponent.value])

    outputs, (for_x, for_power) = gradients(tf.constant([0.0, -0.0]))
    np.testing.assert_array_equal(outputs, [0.0, 0.0])
    assert np.isfinite(for_x).all() and np.isfinite(for_power)


def test_power_is_one_weight_that_may_be_fixed():
    layer = SignedPower(2.0, learnable=False)
    layer(tf.zeros((2, 3, 4)))
    layer(tf.zeros((2, 5)))
    assert [variable.shape for variable in layer.weights] == [()]
    assert layer.trainable_weights == []
