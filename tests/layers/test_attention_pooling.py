import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.attention_pooling import AttentionPooling


def test_weights_computed_by_hand():
    layer = AttentionPooling()
    frames = np.array([[[1.0, 0.0], [0.0, 1.0], [50.0, 50.0]]], "float32")
    mask = np.array([[True, True, False]])
    layer([frames], mask)
    layer.kernel.assign([[np.log(3.0)], [0.0]])  # scores log 3 and 0: weights 3/4 and 1/4
    np.testing.assert_allclose(layer([frames], mask), [[0.75, 0.25]], rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_frames_in_parts_equal_concatenated_frames(jit, rng):
    frames = rng.normal(size=(3, 5, 7)).astype("float32")
    mask = np.arange(5) < np.array([1, 3, 5])[:, None]
    layer = AttentionPooling()
    outputs = tf.function(layer, jit_compile=jit)([frames[:, :, :3], frames[:, :, 3:]], mask)
    kernel = np.asarray(layer.kernel)
    assert kernel.shape == (7, 1)
    for i in range(3):
        real = frames[i][mask[i]].astype("float64")
        weights = np.exp(real @ kernel[:, 0])
        np.testing.assert_allclose(outputs[i], weights @ real / weights.sum(), rtol=1e-5, atol=1e-6)


def test_softmax_is_float32_under_mixed_precision():
    layer = AttentionPooling(dtype="mixed_bfloat16")
    frames = np.ones((1, 300, 1), "float32")
    outputs = layer([frames], np.ones((1, 300), bool))
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), [[1.0]], rtol=0.01)
