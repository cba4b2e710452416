import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.vlad import VLAD, FisherVectors, l2_normalise, soft_assignment, unit_descriptors

B, T, K, D = 3, 7, 4, 5


def frames_and_assignment(rng):
    """Frames, and an assignment that is zero after 7, 1 and 4 frames."""
    assignment = rng.uniform(size=(B, T, K)) * (np.arange(T) < np.array([7, 1, 4])[:, None])[:, :, None]
    return rng.normal(size=(B, T, D)).astype("float32"), assignment.astype("float32")


def set_weights(layer, rng):
    for variable in layer.weights:
        variable.assign(rng.normal(0.5, 1.0, variable.shape))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("use_centres", [True, False])
def test_vlad_sums_residuals(use_centres, jit, rng):
    frames, assignment = frames_and_assignment(rng)
    layer = VLAD(use_centres)
    layer(frames, assignment)
    set_weights(layer, rng)
    outputs = tf.function(layer, jit_compile=jit)(frames, assignment)
    expected = np.zeros((B, K, D))
    for b in range(B):
        for t in range(T):
            for k in range(K):
                centre = np.asarray(layer.centres)[k] if use_centres else 0.0
                expected[b, k] += assignment[b, t, k] * (frames[b, t] - centre)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert len(layer.weights) == use_centres


@pytest.mark.parametrize("jit", [False, True])
def test_fisher_vectors_of_both_orders(jit, rng):
    frames, assignment = frames_and_assignment(rng)
    layer = FisherVectors()
    layer(frames, assignment)
    layer.centres.assign(rng.normal(size=(K, D)))
    layer.scales.assign(rng.uniform(0.5, 2.0, (K, D)) * rng.choice([-1, 1], (K, D)))
    first, second = tf.function(layer, jit_compile=jit)(frames, assignment)
    expected_first, expected_second = np.zeros((B, K, D)), np.zeros((B, K, D))
    for b in range(B):
        for t in range(T):
            for k in range(K):
                sigma = np.asarray(layer.scales)[k] ** 2 + 1e-6
                residual = (frames[b, t] - np.asarray(layer.centres)[k]) / sigma
                expected_first[b, k] += assignment[b, t, k] * residual
                expected_second[b, k] += assignment[b, t, k] * (residual**2 - 1)
    np.testing.assert_allclose(first, expected_first, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(second, expected_second, rtol=1e-4, atol=1e-3)


def test_initial_weights():
    frames, assignment = np.zeros((1, 2, 400), "float32"), np.zeros((1, 2, 50), "float32")
    vlad, fisher = VLAD(), FisherVectors()
    vlad(frames, assignment)
    fisher(frames, assignment)
    for weight, mean in ((vlad.centres, 0.0), (fisher.centres, 0.0), (fisher.scales, 1.0)):
        assert abs(np.mean(weight) - mean) < 0.003  # the mean of 20,000 numbers with deviation 0.05: within 0.0004
        assert 0.047 < np.std(weight) < 0.053  # 1 / sqrt(400)


def test_assignments_sum_to_one_over_clusters_and_are_zero_in_padding(rng):
    inputs, mask = keras.Input((None, D)), keras.Input((None,), dtype="bool")
    model = keras.Model([inputs, mask], soft_assignment(inputs, mask, K, "frames"))
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    frames = rng.normal(size=(B, T, D)).astype("float32")
    real = np.arange(T) < np.array([7, 1, 4])[:, None]
    weights = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    scores = frames @ weights["frames_clusters_dense/kernel"] - weights["frames_clusters_bn/moving_mean"]
    scores *= weights["frames_clusters_bn/gamma"] / np.sqrt(weights["frames_clusters_bn/moving_variance"] + 1e-5)
    powers = np.exp(scores + weights["frames_clusters_bn/beta"])
    expected = powers / powers.sum(axis=2, keepdims=True) * real[:, :, None]
    np.testing.assert_allclose(model([frames, real]), expected, rtol=1e-4, atol=1e-6)


def test_assignments_are_normalised_by_real_frames_in_training(rng):
    inputs, mask = keras.Input((None, D)), keras.Input((None,), dtype="bool")
    model = keras.Model([inputs, mask], soft_assignment(inputs, mask, K, "frames"))
    frames = rng.normal(size=(B, T, D)).astype("float32")
    real = np.arange(T) < np.array([7, 1, 4])[:, None]
    frames[~real] = 100.0
    outputs = model([frames, real], training=True).numpy()
    scores = frames[real] @ np.asarray(model.get_layer("frames_clusters_dense").kernel)  # real frames of all clips
    powers = np.exp((scores - scores.mean(axis=0)) / np.sqrt(scores.var(axis=0) + 1e-5))
    np.testing.assert_allclose(outputs[real], powers / powers.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-5)


def test_descriptors_by_hand():
    descriptors = np.array([[[3.0, 4.0], [0.0, 0.5]]], "float32")  # lengths 5 and 0.5
    np.testing.assert_allclose(
        unit_descriptors(descriptors), [[0.6 * 0.5**0.5, 0.8 * 0.5**0.5, 0.0, 0.5**0.5]], rtol=1e-6
    )
    np.testing.assert_allclose(
        unit_descriptors(descriptors, intra=False), descriptors.reshape(1, 4) / 25.25**0.5, rtol=1e-6
    )


def test_zero_vectors_have_finite_gradients():
    zeros = tf.zeros((2, 3))
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        outputs = l2_normalise(zeros)
    np.testing.assert_array_equal(outputs, np.zeros((2, 3)))
    assert np.isfinite(tape.gradient(outputs, zeros)).all()
