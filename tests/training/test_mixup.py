import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from yt8m_tf.training import mixup


@pytest.mark.parametrize("alpha", [0.2, 0.3, 1.0, 4.0])
def test_weights_follow_the_beta_distribution(alpha):
    n = 100_000
    weights = mixup.draw_weights(tf.constant([3, 14]), n, alpha).numpy().astype("float64")
    law = scipy.stats.beta(alpha, alpha)
    variance, fourth = law.var(), law.moment(4) - 4 * 0.5 * law.moment(3) + 6 * 0.25 * law.moment(2) - 3 * 0.5**4
    # Five sigma of the mean and of the variance of n draws.
    assert weights.mean() == pytest.approx(0.5, abs=5 * np.sqrt(variance / n))
    assert weights.var() == pytest.approx(variance, abs=5 * np.sqrt((fourth - variance**2) / n))
    # The largest distance of the distribution functions exceeds 2.5 / sqrt(n) for one seed in 130,000 (Kolmogorov).
    # Points close to 1 are left out: for alpha = 0.2, 2 % of the weights round to 1 in float32.
    points = np.linspace(0.001, 0.999, 999)
    share_below = np.searchsorted(np.sort(weights), points) / n
    assert np.abs(share_below - law.cdf(points)).max() < 2.5 / np.sqrt(n)


@pytest.mark.parametrize("alpha", [1e-3, 0.05])
def test_weights_of_small_alpha_are_numbers(alpha):
    weights = mixup.draw_weights(tf.constant([0, 1]), 10_000, alpha).numpy()
    assert weights.dtype == np.float32
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (weights > 0.5).mean() == pytest.approx(0.5, abs=0.025)  # five sigma


def test_weights_are_a_function_of_the_seed():
    first = mixup.draw_weights(tf.constant([1, 2]), 8, 0.3)
    np.testing.assert_array_equal(mixup.draw_weights(tf.constant([1, 2]), 8, 0.3), first)
    assert not np.any(mixup.draw_weights(tf.constant([1, 3]), 8, 0.3).numpy() == first.numpy())


def test_vectors_and_targets_computed_by_hand():
    inputs = {"rgb": tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])}
    targets = tf.constant([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    mixed, mixed_targets = mixup.mix(inputs, targets, tf.constant([1.0, 0.5, 0.25]))
    np.testing.assert_allclose(mixed["rgb"], [[1, 2], [2, 3], [3.5, 4.5]])
    np.testing.assert_allclose(mixed_targets, [[1, 0], [0.5, 0.5], [0, 0.75]])


@pytest.mark.parametrize("jit", [False, True])
def test_clips_are_mixed_frame_by_frame(jit, rng):
    num_frames = np.array([2, 5, 1, 0], "int32")
    weights = rng.uniform(size=4).astype("float32")
    inputs = {"rgb": rng.normal(size=(4, 5, 3)), "audio": rng.normal(size=(4, 5, 2))}
    inputs = {name: values.astype("float32") for name, values in inputs.items()} | {"num_frames": num_frames}
    targets = rng.uniform(size=(4, 6)).astype("float32")
    mixed, mixed_targets = tf.function(mixup.mix, jit_compile=jit)(inputs, targets, weights)
    np.testing.assert_array_equal(mixed["num_frames"], [2, 5, 5, 1])
    assert mixed["num_frames"].dtype == tf.int32
    for b in range(4):
        weight, other = weights[b], b - 1
        np.testing.assert_allclose(mixed_targets[b], weight * targets[b] + (1 - weight) * targets[other], rtol=1e-5)
        for name in ("rgb", "audio"):
            for t in range(5):
                own = inputs[name][b, t] if t < num_frames[b] else 0.0
                partner = inputs[name][other, t] if t < num_frames[other] else 0.0
                expected = weight * own + (1 - weight) * partner
                np.testing.assert_allclose(
                    mixed[name][b, t], np.broadcast_to(expected, mixed[name].shape[2:]), rtol=1e-5
                )
