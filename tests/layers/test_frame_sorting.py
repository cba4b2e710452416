import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.frame_sorting import RankDenseNormalization, RankScores, SortedFrames

NUM_FRAMES = [3, 5, 1, 0]
MASK = np.arange(5) < np.array(NUM_FRAMES)[:, None]
jit_or_not = pytest.mark.parametrize("jit", [False, True])


def sorted_by_hand(scores):
    """Sorts [B, T, C] to [B, C, T], with padding as zeros."""
    expected = np.zeros(scores.transpose(0, 2, 1).shape)
    for b, count in enumerate(NUM_FRAMES):
        for c in range(scores.shape[2]):
            expected[b, c, :count] = sorted(scores[b, :count, c], reverse=True)
    return expected


@jit_or_not
def test_sorted_frames(jit, rng):
    scores = rng.normal(size=(4, 5, 6)).astype("float32")
    outputs, means, covariances = tf.function(SortedFrames(), jit_compile=jit)(scores, MASK)
    expected = sorted_by_hand(scores)
    np.testing.assert_array_equal(outputs, expected.astype("float32"))
    np.testing.assert_allclose(means, expected.mean(axis=1), rtol=1e-5, atol=1e-6)
    for b in range(4):
        np.testing.assert_allclose(covariances[b], np.cov(expected[b].T, bias=True), rtol=1e-4, atol=1e-5)


@jit_or_not
def test_gradients_reach_the_frames_that_the_scores_came_from(jit, rng):
    scores = tf.constant(rng.normal(size=(4, 5, 2)), tf.float32)
    ranks = tf.range(1.0, 6.0)  # the gradient of each score is its rank

    @tf.function(jit_compile=jit)
    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(scores)
            total = tf.reduce_sum(SortedFrames()(scores, MASK)[0] * ranks)
        return tape.gradient(total, scores)

    expected = np.zeros((4, 5, 2))
    for b, count in enumerate(NUM_FRAMES):
        for c in range(2):
            expected[b, np.argsort(-scores[b, :count, c].numpy()), c] = np.arange(1, count + 1)
    np.testing.assert_array_equal(gradient(), expected)


def plain_network(scores, kernel, gamma, beta, last_kernel, last_bias):
    """The network with all intermediate values in memory, and batch statistics."""
    ranked = []
    for b, count in enumerate(NUM_FRAMES):
        clip = scores[b, :count]
        clip = tf.sort(clip, axis=0, direction="DESCENDING") if count else clip  # TensorFlow cannot sort empty tensors
        ranked.append(tf.transpose(tf.pad(clip, [[0, scores.shape[1] - count], [0, 0]])))
    hidden = tf.einsum("bct,th->bch", tf.stack(ranked), kernel[: scores.shape[1]])
    mean, variance = tf.nn.moments(hidden, axes=(0, 1))
    hidden = tf.nn.leaky_relu((hidden - mean) / tf.sqrt(variance + 1e-5) * gamma + beta, 0.01)
    return tf.einsum("bch,ho->bco", hidden, last_kernel)[:, :, 0] + last_bias, mean, variance


@jit_or_not
def test_the_layers_equal_a_network_with_all_values_in_memory(jit, rng):
    scores, upstream = (tf.constant(rng.normal(2.0, 1.0, shape), tf.float32) for shape in [(4, 5, 6), (4, 6)])
    sort, norm, head = SortedFrames(), RankDenseNormalization(7, 9, momentum=0.9, epsilon=1e-5), RankScores()
    norm.build((None, None), (None, None, None))
    head.build((None, 6, None), (None, 7), (7,))
    norm.gamma.assign(rng.uniform(0.5, 2.0, 7))
    norm.beta.assign(rng.normal(size=7))
    sources = [scores, *(weight.value for weight in (norm.kernel, norm.gamma, norm.beta, head.kernel, head.bias))]

    def ours():
        ranked, means, covariances = sort(scores, MASK)
        return head(ranked, *norm(means, covariances, training=True), training=True)

    def run(network):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = network()
            loss = tf.reduce_sum(outputs * upstream)
        return outputs, *tape.gradient(loss, sources)

    compiled = tf.function(lambda: run(ours), jit_compile=jit)()
    for a, b in zip(compiled, run(lambda: plain_network(*sources)[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())
    _, mean, variance = plain_network(*sources)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)


def test_synchronised_replicas_share_their_statistics(two_replicas, rng):
    ranked = tf.constant(sorted_by_hand(rng.normal(size=(4, 5, 6))), tf.float32)
    scores = tf.transpose(ranked, (0, 2, 1))
    with two_replicas.scope():
        norm = RankDenseNormalization(3, 5, synchronized=True)
        norm.build((None, None), (None, None, None))

    def replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = slice(2 * index, 2 * index + 2)
        _, means, covariances = SortedFrames()(scores[own], tf.constant(MASK)[own])
        return norm(means, covariances, training=True)

    kernel, bias = tf.function(lambda: two_replicas.run(replica))()
    hidden = tf.einsum("bct,th->bch", ranked, norm.kernel.value)
    mean, variance = tf.nn.moments(hidden, axes=(0, 1))
    for value in two_replicas.experimental_local_results(kernel):
        np.testing.assert_allclose(value, norm.kernel.value / tf.sqrt(variance + 1e-3), rtol=1e-3, atol=1e-5)
    for value in two_replicas.experimental_local_results(bias):
        np.testing.assert_allclose(value, -mean / tf.sqrt(variance + 1e-3), rtol=1e-3, atol=1e-5)


def test_backward_pass_drops_the_same_values_as_the_forward_pass(rng):
    keras.utils.set_random_seed(int(rng.integers(2**31)))
    head = RankScores(dropout=0.5)
    ranked, kernel, bias = (tf.constant(rng.normal(size=shape), tf.float32) for shape in [(3, 40, 5), (5, 20), (20,)])
    head(ranked, kernel, bias)
    with tf.GradientTape() as tape:
        outputs = tf.reduce_sum(head(ranked, kernel, bias, training=True) - head.bias)
    # The output is linear in the last kernel: if the masks are equal, it is the product of kernel and gradient.
    gradient = tape.gradient(outputs, head.kernel.value)
    np.testing.assert_allclose(tf.reduce_sum(gradient * head.kernel), outputs, rtol=1e-3, atol=1e-3)
    again = tf.reduce_sum(head(ranked, kernel, bias, training=True) - head.bias)
    assert abs(float(again - outputs)) > 1e-3  # different masks


def test_dropout_keeps_the_mean(rng):
    keras.utils.set_random_seed(1)
    head = RankScores(dropout=0.25)
    ranked, kernel, bias = tf.ones((2, 5000, 1)), tf.ones((1, 4)), tf.zeros(4)
    head(ranked, kernel, bias)
    head.kernel.assign(np.ones((4, 1)))
    head.bias.assign([0.0])
    outputs = np.asarray(head(ranked, kernel, bias, training=True))
    kept = outputs * 0.75  # how many of four units are kept
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-5)
    # The share of 40,000 units that are kept has a mean of 0.75 and a standard deviation of 0.0022.
    assert kept.mean() / 4 == pytest.approx(0.75, abs=0.011)
    assert (outputs[0] != outputs[1]).any()
    np.testing.assert_allclose(head(ranked, kernel, bias), np.full((2, 5000), 4.0))


def test_hidden_layer_of_all_clips_is_never_made():
    batch_size, classes, length, hidden = 7, 11, 13, 17
    scores, mask = tf.ones((batch_size, length, classes)), tf.ones((batch_size, length), tf.bool)
    sort, norm, head = SortedFrames(), RankDenseNormalization(hidden, length), RankScores()
    norm.build((None, None), (None, None, None))
    head.build((None, classes, None), (None, hidden), (hidden,))
    values = [layer_weight.value for layer_weight in (norm.kernel, head.kernel)]

    @tf.function(jit_compile=True)
    def step(scores):
        with tf.GradientTape() as tape:
            tape.watch([scores, *values])
            ranked, means, covariances = sort(scores, mask)
            loss = tf.reduce_sum(head(ranked, *norm(means, covariances, training=True)))
        return tape.gradient(loss, [scores, *values])

    program = step.experimental_get_compiler_ir(scores)(stage="optimized_hlo")
    sizes = {int(np.prod([int(n) for n in shape.split(",")])) for shape in re.findall(r"f32\[([\d,]+)\]", program)}
    assert classes * hidden in sizes  # the hidden layer of one clip exists
    assert max(sizes) == max(batch_size * length * classes, batch_size * length * length)
