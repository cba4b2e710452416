import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.neighbors import NeighborVotes, SmoothedLogOdds

SIZES, NUM_CLASSES, CAPACITY = (6, 3), 5, 30


def layer_with_memory(rng, count=CAPACITY, num_neighbors=4):
    layer = NeighborVotes(NUM_CLASSES, CAPACITY, num_neighbors, (1.0, 0.5), 3.0)
    features = [rng.normal(2.0, 1.0, (count, size)).astype("float32") for size in SIZES]
    labels = [rng.choice(NUM_CLASSES, rng.integers(1, 4), replace=False) for _ in range(count)]
    layer([values[:1] for values in features])
    layer.scales.assign(rng.uniform(0.5, 2.0, sum(SIZES)))
    layer.remember(features, labels)
    return layer, features, labels


def normalised(features, means):
    parts = [x.astype("float64") - mean for x, mean in zip(features, means, strict=True)]
    return np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in parts], axis=1)


def votes_of_nearest(queries, memory, labels, scales, temperature, num_neighbors, without_itself=False):
    """[B, C], computed distance by distance in float64."""
    means = [values.mean(axis=0, dtype="float64") for values in memory]
    q, keys = normalised(queries, means) * scales, normalised(memory, means) * scales
    votes = np.zeros((len(q), NUM_CLASSES))
    for b in range(len(q)):
        distances = [np.sum((q[b] - key) ** 2) for key in keys]
        nearest = np.argsort(distances)[:num_neighbors]
        if without_itself:
            nearest = [n for n in nearest if distances[n] > 1e-9]
        weights = np.array([np.exp(-temperature / 2 * distances[n]) for n in nearest])
        for n, weight in zip(nearest, weights / weights.sum(), strict=True):
            votes[b, labels[n]] += weight
    return votes


@pytest.mark.parametrize(("jit", "count"), [(False, CAPACITY), (True, 17)])
def test_votes_of_the_nearest(jit, count, rng):
    """Tests a full memory and a partly filled one."""
    layer, memory, labels = layer_with_memory(rng, count)
    queries = [rng.normal(2.0, 1.0, (8, size)).astype("float32") for size in SIZES]
    outputs = tf.function(layer, jit_compile=jit)(queries)
    expected = votes_of_nearest(queries, memory, labels, np.asarray(layer.scales), 3.0, 4)
    np.testing.assert_allclose(outputs, expected, atol=2e-6)


def test_in_training_a_video_has_no_vote_on_itself_and_distances_are_not_sharpened(rng):
    layer, memory, labels = layer_with_memory(rng)
    own = [values[:9] for values in memory]
    layer.sharpness = 1.5
    for training, temperature in ((False, 4.5), (True, 3.0)):
        scales = np.asarray(layer.scales)
        expected = votes_of_nearest(own, memory, labels, scales, temperature, 4, without_itself=training)
        np.testing.assert_allclose(layer(own, training=training), expected, atol=1e-5)


def test_computed_by_hand():
    layer = NeighborVotes(3, 4, 2, (1.0,), 2 * np.log(2))
    memory = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], "float32")  # with mean 0 and length 1
    layer([memory])
    layer.remember([memory], [np.array([0, 2]), np.array([0]), np.array([1]), np.array([2])])
    # The squared distances to (3/5, 4/5) are 0.8, 0.4, 3.2, 3.6. Two neighbours vote, with 2 ** -0.8 and 2 ** -0.4.
    near, nearest = 2.0**-0.8, 2.0**-0.4
    expected = [1.0, 0.0, near / (near + nearest)]
    np.testing.assert_allclose(layer([np.array([[6.0, 8.0]], "float32")]), [expected], rtol=1e-5)


def test_an_empty_memory_and_fewer_videos_than_neighbours(rng):
    layer = NeighborVotes(NUM_CLASSES, CAPACITY, 4, (1.0, 1.0), 3.0)
    queries = [rng.normal(size=(2, size)).astype("float32") for size in SIZES]
    assert not np.any(layer(queries))
    layer.remember([rng.normal(size=(2, size)) for size in SIZES], [np.array([1]), np.array([1, 3])])
    votes = np.asarray(layer(queries))
    np.testing.assert_allclose(votes[:, 1], 1.0, rtol=1e-6)
    assert (votes[:, 3] > 0).all() and (votes[:, 3] < 1).all() and not votes[:, [0, 2, 4]].any()


def test_smoothed_log_odds(rng):
    layer = SmoothedLogOdds(0.2)
    votes = rng.uniform(size=(6, NUM_CLASSES)).astype("float32")
    votes[0], votes[1] = 0.0, 1.0
    layer(votes)
    bias = rng.normal(-3.0, 2.0, NUM_CLASSES).astype("float32")
    layer.bias.assign(bias)
    layer.scale.assign(1.5)
    share = 0.8 * votes.astype("float64") + 0.2 / (1 + np.exp(-bias.astype("float64")))
    np.testing.assert_allclose(layer(votes), 1.5 * np.log(share / (1 - share)), rtol=1e-5, atol=1e-5)
