import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import blocks
from yt8m_tf.layers.frame_batch_norm import FrameBatchNormalization

MASK = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 0]], bool)


def as_model(size, center=True):
    frames, mask = keras.Input((None, size)), keras.Input((None,), dtype="bool")
    return keras.Model([frames, mask], blocks.frame_batch_norm(frames, mask, "bn", center))


def random_frames(rng, size):
    """Frames far from zero, with padding far from both."""
    frames = rng.normal(3.0, 2.0, size=(4, 3, size)).astype("float32")
    return np.where(MASK[:, :, None], frames, np.float32(-100.0))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [1, 5])
def test_statistics_of_a_batch_are_those_of_real_frames(size, jit, rng):
    model = as_model(size)
    layer, frames = model.get_layer("bn"), random_frames(rng, size)
    layer.gamma.assign(rng.uniform(0.5, 2.0, size))
    layer.beta.assign(rng.normal(size=size))
    outputs = tf.function(lambda x: model([x, tf.constant(MASK)], training=True), jit_compile=jit)(frames)
    real = frames[MASK].astype("float64")  # [6, size]
    normalised = (real - real.mean(axis=0)) / np.sqrt(real.var(axis=0) + 1e-5)
    expected = normalised * np.asarray(layer.gamma) + np.asarray(layer.beta)
    np.testing.assert_allclose(np.asarray(outputs)[MASK], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * real.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * real.var(axis=0), rtol=1e-4)


def test_gradients_are_those_of_batch_normalisation_of_only_real_frames(rng):
    frames, weights = random_frames(rng, 4), tf.constant(rng.normal(size=(6, 4)), "float32")
    gathered = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    model, x, real = as_model(4), tf.constant(frames), tf.constant(frames[MASK])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, real])
        ours = tf.reduce_sum(tf.boolean_mask(model([x, tf.constant(MASK)], training=True), MASK) * weights)
        theirs = tf.reduce_sum(gathered(real, training=True) * weights)
    gradient = tape.gradient(ours, x).numpy()
    np.testing.assert_allclose(gradient[MASK], tape.gradient(theirs, real), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(gradient[~MASK], 0.0)


def test_inference_and_frozen_layers_use_running_averages(rng):
    model, frames = as_model(2, center=False), random_frames(rng, 2)
    layer = model.get_layer("bn")
    layer.moving_mean.assign([1.0, 2.0])
    layer.moving_variance.assign([4.0, 9.0])
    expected = (frames - [1.0, 2.0]) / [2.0, 3.0]
    np.testing.assert_allclose(model([frames, MASK], training=False), expected, rtol=1e-4, atol=1e-5)
    layer.trainable = False
    np.testing.assert_allclose(model([frames, MASK], training=True), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, [1.0, 2.0])


def test_synchronised_replicas_share_their_statistics(two_replicas, rng):
    frames = random_frames(rng, 3)
    with two_replicas.scope():
        layer = FrameBatchNormalization(synchronized=True)
        layer.build((None, None, 3), (None, None))

    def replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = slice(2 * index, 2 * index + 2)  # two clips each, with 4 and with 2 real frames
        return layer(tf.constant(frames)[own], tf.constant(MASK)[own], training=True)

    outputs = tf.function(lambda: two_replicas.run(replica))()
    outputs = np.concatenate(two_replicas.experimental_local_results(outputs))
    real = frames[MASK]
    expected = (real - real.mean(axis=0)) / np.sqrt(real.var(axis=0) + 1e-3)
    np.testing.assert_allclose(outputs[MASK], expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = as_model(1)
    finally:
        keras.config.set_dtype_policy("float32")
    frames = np.full((4, 300, 1), 1.0, "float32")  # a bfloat16 sum of ones stops at 256
    outputs = model([frames, np.ones((4, 300), bool)], training=True)
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, [0.1], rtol=1e-5)
