import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import masking

NUM_FRAMES = np.array([0, 1, 3, 9], "int32")
MASK = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]], bool)


@pytest.mark.parametrize("jit", [False, True])
def test_sequence_mask(jit):
    mask = tf.function(masking.sequence_mask, jit_compile=jit)(NUM_FRAMES, tf.zeros([4, 3, 2]))
    np.testing.assert_array_equal(mask, MASK)


def test_sequence_mask_in_a_model_of_unknown_length():
    inputs = {
        "num_frames": keras.Input((), dtype="int32", name="num_frames"),
        "rgb": keras.Input((None, 2), name="rgb"),
    }
    model = keras.Model(inputs, masking.clip_mask(inputs))
    np.testing.assert_array_equal(model({"num_frames": NUM_FRAMES, "rgb": np.zeros((4, 3, 2))}), MASK)


def test_masked_mean_ignores_padding_and_is_zero_for_empty_clips(rng):
    frames = rng.normal(size=(4, 3, 5)).astype("float32")
    outputs = np.asarray(masking.masked_mean(frames, MASK))
    expected = [np.zeros(5), frames[1, 0], frames[2].mean(axis=0), frames[3].mean(axis=0)]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_zero_padding_keeps_real_frames(rng):
    frames = rng.normal(size=(4, 3, 5)).astype("float32")
    frames[1, 2] = np.nan
    np.testing.assert_array_equal(masking.zero_padding(frames, MASK), np.where(MASK[:, :, None], frames, 0))


def test_masked_max_ignores_padding_and_is_zero_for_empty_clips(rng):
    frames = rng.normal(size=(4, 3, 5)).astype("float32") - 5.0  # zeros would be the maxima
    expected = [np.zeros(5), frames[1, 0], frames[2].max(axis=0), frames[3].max(axis=0)]
    np.testing.assert_array_equal(masking.masked_max(frames, MASK), expected)


@pytest.mark.parametrize("offset", [0.0, -1000.0, 1000.0])
def test_masked_softmax_ignores_padding_and_is_zero_for_empty_clips(offset):
    scores = np.float32([[5, 5, 5], [1, 50, 50], [0, np.log(2), np.log(5)], [7, 7, 7]]) + np.float32(offset)
    expected = [[0, 0, 0], [1, 0, 0], [1 / 8, 2 / 8, 5 / 8], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(masking.masked_softmax(scores, MASK), expected, rtol=1e-4)  # 1000 + log 2 is rounded


def test_masked_max_has_the_right_gradient_under_xla(rng):
    """XLA recomputes these frames, with different rounding each time; `ops.max` gives NaN here."""
    frames, weights = rng.normal(size=(32, 11, 256)).astype("float32"), rng.normal(size=(256, 256)).astype("float32")
    mask = tf.sequence_mask(rng.integers(1, 12, 32), 11)

    def gradient(frames, weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            y = tf.tensordot(frames, weights, 1)
            mean, variance = tf.nn.moments(y, (0, 1))
            normalised = (y - mean) * (tf.math.rsqrt(variance + 1e-5) * 1.3) + 0.1
            loss = tf.reduce_sum(tf.square(masking.masked_max(normalised, mask)))
        return tape.gradient(loss, weights)

    arguments = tf.constant(frames), tf.constant(weights)
    plain, compiled = (tf.function(gradient, jit_compile=xla)(*arguments).numpy() for xla in (False, True))
    np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-4 * np.abs(plain).max())
