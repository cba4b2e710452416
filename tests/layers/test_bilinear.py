import keras
import numpy as np
import pytest

from yt8m_tf.layers.bilinear import Bilinear


def test_computed_by_hand():
    layer = Bilinear(2)
    layer.build((None, 2), (None, 3))
    layer.kernel.assign(np.arange(12.0).reshape(2, 3, 2))
    layer.bias.assign([0.5, -1.0])
    # x[i] * h[j] is 2, 0, -2 for i = 0 and 3, 0, -3 for i = 1; W[i, j, 0] is 0, 2, 4 and 6, 8, 10.
    y = layer(np.array([[2.0, 3.0]], "float32"), np.array([[1.0, 0.0, -1.0]], "float32"))
    np.testing.assert_allclose(y, [[2 * 0 - 2 * 4 + 3 * 6 - 3 * 10 + 0.5, 2 * 1 - 2 * 5 + 3 * 7 - 3 * 11 - 1.0]])


def test_initial_weights_are_those_of_torch():
    keras.utils.set_random_seed(1)
    layer = Bilinear(300)
    layer.build((None, 25), (None, 40))
    for weight in (layer.kernel, layer.bias):
        assert 0.19 < np.abs(weight).max() <= 0.2  # 1 / sqrt(25)
        assert np.std(weight) == pytest.approx(0.2 / 3**0.5, rel=0.1)


def test_units_are_checked():
    with pytest.raises(ValueError, match="units must be at least 1, got 0"):
        Bilinear(0)
