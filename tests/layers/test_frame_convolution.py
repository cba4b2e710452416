import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import frame_convolution
from yt8m_tf.layers.frame_convolution import ZeroPadding
from yt8m_tf.models.time_distributed_conv import TimeDistributedConvConfig


@pytest.mark.parametrize(
    ("kernel_sizes", "pool_sizes", "expected"),
    [((3,), (), 3), ((3,), (2,), 4), ((3, 3), (2,), 8), ((1, 1), (1,), 1), ((2, 1, 1), (2, 2), 5)],
)
def test_receptive_field(kernel_sizes, pool_sizes, expected):
    assert frame_convolution.receptive_field(kernel_sizes, pool_sizes) == expected


def test_shortest_clips_of_the_original():
    assert TimeDistributedConvConfig().min_frames == 107
    second = TimeDistributedConvConfig(
        av_kernel_sizes=(3, 3, 3),
        av_pool_sizes=(2, 2, 2),
        rgb_channels=(1300, 1600, 2048),
        audio_channels=(256, 400, 512),
        concat_kernel_sizes=(3, 3, 3),
        concat_pool_sizes=(2, 2),
        concat_channels=(3000, 5000, 7000),
    )
    assert second.min_frames == 158


@pytest.mark.parametrize("length", [2, 5, 7])
def test_zero_padding_reaches_the_shortest_length(length, rng):
    frames = rng.normal(size=(2, length, 3)).astype("float32")
    mask = np.arange(length) < np.array([1, 2])[:, None]
    expected = np.zeros((2, max(length, 5), 3), "float32")
    expected[0, :1], expected[1, :2] = frames[0, :1], frames[1, :2]
    of_any_length = tf.function(
        ZeroPadding(5), input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, None], tf.bool)]
    )
    compiled = tf.function(ZeroPadding(5), jit_compile=True)
    for function in (ZeroPadding(5), of_any_length, compiled):
        np.testing.assert_array_equal(function(frames, mask), expected)


def test_statistics_of_a_block_are_those_of_positions_within_the_clip(rng):
    frames, counts = keras.Input((None, 2)), keras.Input((), dtype="int32")
    outputs, num_positions = frame_convolution.conv_block(frames, counts, 4, 3, 0.0, "none", "block")
    pooled, num_pooled = frame_convolution.max_pool(outputs, num_positions, 2)
    model = keras.Model([frames, counts], [outputs, num_positions, pooled, num_pooled])
    x = rng.normal(size=(2, 9, 2)).astype("float32")
    x[0, 5:] = 50.0
    values, positions, maxima, num_maxima = (np.asarray(v) for v in model([x, np.array([5, 9])], training=True))
    np.testing.assert_array_equal(positions, [3, 7])
    np.testing.assert_array_equal(num_maxima, [1, 3])
    conv = model.get_layer("block_conv")
    kernel, bias = np.asarray(conv.kernel), np.asarray(conv.bias)
    real = [np.einsum("kd,kdc->c", x[b, t : t + 3], kernel) + bias for b, n in ((0, 3), (1, 7)) for t in range(n)]
    expected = (real - np.mean(real, axis=0)) / np.sqrt(np.var(real, axis=0) + 1e-5)  # [10, 4]
    np.testing.assert_allclose(np.concatenate([values[0, :3], values[1, :7]]), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(maxima[0, 0], expected[:2].max(axis=0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(maxima[1, 2], expected[7:9].max(axis=0), rtol=1e-3, atol=1e-4)


def test_dropout_drops_whole_channels_of_a_clip(rng):
    keras.utils.set_random_seed(1)
    frames, counts = keras.Input((None, 2)), keras.Input((), dtype="int32")
    model = keras.Model([frames, counts], frame_convolution.conv_block(frames, counts, 200, 3, 0.25, "none", "block"))
    dropped = keras.Model([frames, counts], model.get_layer("block_dropout").output)
    outputs = np.asarray(dropped([rng.normal(size=(10, 7, 2)), np.full(10, 7)], training=True))
    zeros = (outputs == 0).mean(axis=1)  # [10, 200]: whole channels are dropped, or none of their values
    assert set(np.unique(zeros)) == {0.0, 1.0}
    assert zeros.mean() == pytest.approx(0.25, abs=0.05)  # 2,000 draws: five sigma


def test_shortest_length_is_checked():
    with pytest.raises(ValueError, match="min_frames must be at least 1, got 0"):
        ZeroPadding(0)
