import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.attention import FrameClipDense, PositionedSelfAttention, position_codes


@pytest.mark.parametrize("jit", [False, True])
def test_frame_clip_dense_is_a_dense_on_frames_concatenated_with_their_clip(jit, rng):
    layer = FrameClipDense(4, bias_initializer="normal")
    frames, clip = rng.normal(size=(2, 5, 3)).astype("float32"), rng.normal(size=(2, 6)).astype("float32")
    outputs = tf.function(layer, jit_compile=jit)(frames, clip)
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    assert kernel.shape == (9, 4)
    for b in range(2):
        for t in range(5):
            expected = np.concatenate([frames[b, t], clip[b]]) @ kernel + bias
            np.testing.assert_allclose(outputs[b, t], expected, rtol=1e-4, atol=1e-5)


def test_position_codes():
    codes = np.asarray(position_codes(np.zeros((3, 9, 2)), max_length=8))[0]
    # sin(2 pi t 2j / 8): j = 1 in quarter turns, j = 2 in half turns.
    quarter = [0, 1, 0, -1, 0, 1, 0, -1, 0]
    np.testing.assert_allclose(codes, np.stack([quarter, np.zeros(9)], axis=1), atol=1e-6)


def test_position_codes_of_late_frames_are_exact():
    codes = np.asarray(position_codes(np.zeros((1, 303, 1152)), max_length=303))[0]
    turns = np.arange(303)[:, None] * 2 * np.arange(1, 1153) % 303 / 303
    np.testing.assert_allclose(codes, np.sin(2 * np.pi * turns), atol=2e-6)


def attention_by_hand(layer, frames, count):
    """Computes attention for one clip, one query at a time."""
    length, size = frames.shape
    w = {variable.name: np.asarray(variable, "float64") for variable in layer.weights}
    codes = np.zeros((length, size))
    for t in range(length):
        for j in range(1, size + 1):
            codes[t, j - 1] = np.sin(2 * np.pi * t * 2 * j / layer.max_length)
    queries = (frames + codes) @ w["query_kernel"] + w.get("query_bias", 0.0)
    keys, values = (frames + codes) @ w["key_kernel"], frames @ w["value_kernel"] + w.get("value_bias", 0.0)
    outputs = np.zeros((count, layer.num_heads * layer.head_size))
    for head in range(layer.num_heads):
        part = slice(head * layer.head_size, (head + 1) * layer.head_size)
        for t in range(count):
            powers = np.array([np.exp(queries[t, part] @ keys[s, part] / np.sqrt(size)) for s in range(count)])
            outputs[t, part] = powers / powers.sum() @ values[:count, part]
    return outputs


@pytest.mark.parametrize(("jit", "biases"), [(False, False), (False, True), (True, False)])
def test_self_attention_of_real_frames(jit, biases, rng):
    layer = PositionedSelfAttention(head_size=4, num_heads=3, max_length=10, biases=biases)
    frames = rng.normal(size=(3, 6, 5)).astype("float32")
    num_frames = [6, 1, 4]
    mask = np.arange(6) < np.array(num_frames)[:, None]
    outputs = tf.function(layer, jit_compile=jit)(frames, mask)
    assert outputs.shape == (3, 6, 12)
    for b, count in enumerate(num_frames):
        expected = attention_by_hand(layer, frames[b].astype("float64"), count)
        np.testing.assert_allclose(outputs[b, :count], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("argument", ["head_size", "num_heads", "max_length"])
def test_sizes_are_checked(argument):
    sizes = {"head_size": 1, "num_heads": 1, "max_length": 1} | {argument: 0}
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        PositionedSelfAttention(**sizes)
