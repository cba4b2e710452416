import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.frame_combinations import FrameCombinations


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("length", [2, 4, 7])
def test_combinations_are_sums_over_real_frames_up_to_max_frames(length, jit, rng):
    layer = FrameCombinations(head_size=3, max_frames=4)
    frames = rng.normal(size=(5, length, 6)).astype("float32")
    mask = np.arange(length) < np.array([0, 1, 2, 5, 7])[:, None]
    outputs = tf.function(layer, jit_compile=jit)(frames, mask)
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    expected = np.zeros((5, 3, 6))
    for b in range(5):
        for h in range(3):
            expected[b, h] = bias[h]
            for t in range(min(length, 4)):
                if mask[b, t]:
                    expected[b, h] += kernel[t, h] * frames[b, t]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_initial_weights():
    layer = FrameCombinations(head_size=50, max_frames=100)
    layer(np.zeros((1, 3, 2), "float32"), np.ones((1, 3), bool))
    assert 0.099 < np.abs(layer.kernel).max() <= 0.1  # 1 / sqrt(100)
    assert 0.08 < np.abs(layer.bias).max() <= 0.1


@pytest.mark.parametrize("arguments", [{"head_size": 0, "max_frames": 3}, {"head_size": 1, "max_frames": 0}])
def test_sizes_are_checked(arguments):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        FrameCombinations(**arguments)
