import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.codebook import Codebook


def mean_of_nearest(frames, mask, centroids):
    """[B, D], computed frame by frame from the distances."""
    x = np.concatenate(frames, axis=2).astype("float64")
    means = np.zeros((len(x), x.shape[2]))
    for b in range(len(x)):
        chosen = [
            centroids[np.argmin([np.sum((x[b, t] - c) ** 2) for c in centroids])]
            for t in range(x.shape[1])
            if mask[b, t]
        ]
        if chosen:
            means[b] = np.mean(chosen, axis=0)
    return means


@pytest.mark.parametrize("jit", [False, True])
def test_mean_of_nearest_centroids(jit, rng):
    layer = Codebook(num_clusters=40)
    frames = [rng.normal(size=(5, 7, size)).astype("float32") for size in (6, 3)]
    mask = np.arange(7) < np.array([0, 1, 4, 7, 9])[:, None]
    outputs = tf.function(layer, jit_compile=jit)(frames, mask)
    assert layer.centroids.shape == (40, 9) and not layer.trainable_variables
    np.testing.assert_allclose(outputs, mean_of_nearest(frames, mask, np.asarray(layer.centroids)), atol=1e-6)


def test_computed_by_hand():
    layer = Codebook(num_clusters=3)
    frames = np.array([[[1.0, 0.0], [0.2, 0.0], [9.0, 9.0], [-7.0, 0.0]]], "float32")
    mask = np.array([[True, True, True, False]])
    layer([frames], mask)
    # The second frame is equally far from the first two centroids: the first one is used.
    layer.centroids.assign([[0.0, 0.0], [0.4, 0.0], [6.0, 6.0]])
    np.testing.assert_allclose(layer([frames], mask), [[(0.4 + 0.0 + 6.0) / 3, 2.0]], rtol=1e-6)


def test_no_gradient_flows_back(rng):
    layer = Codebook(num_clusters=4)
    frames = tf.constant(rng.normal(size=(2, 3, 5)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(frames)
        outputs = layer([frames], np.ones((2, 3), bool))
    assert tape.gradient(outputs, frames) is None


def test_mixed_precision_chooses_in_float32(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = Codebook(num_clusters=1000)
    finally:
        keras.config.set_dtype_policy("float32")
    frames, mask = [rng.normal(size=(2, 9, 8)).astype("float32")], np.ones((2, 9), bool)
    outputs = layer(frames, mask)
    assert outputs.dtype == tf.float32
    np.testing.assert_allclose(outputs, mean_of_nearest(frames, mask, np.asarray(layer.centroids)), atol=1e-6)


def test_products_of_a_whole_batch_are_never_made():
    layer = Codebook(num_clusters=50)
    layer.build([(None, None, 4), (None, None, 2)], (None, None))
    specs = [tf.TensorSpec((8, 11, size)) for size in (4, 2)], tf.TensorSpec((8, 11), tf.bool)
    graph = tf.function(layer).get_concrete_function(*specs).graph.as_graph_def()
    bodies = {f.signature.name: f for f in graph.library.function}
    assert not [node for node in graph.node if "MatMul" in node.op]
    assert [f for f in bodies.values() if any("MatMul" in node.op for node in f.node_def)]


def test_size_is_checked():
    with pytest.raises(ValueError, match="num_clusters must be at least 1, got 0"):
        Codebook(0)
