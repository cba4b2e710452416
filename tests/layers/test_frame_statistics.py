import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import frame_statistics as stats

NAMES = ("mean", "std", "min", "max", "median", "mode")


def plain_mode(values):
    found, counts = np.unique(values, return_counts=True)  # in ascending order
    return found[counts.argmax()]


def plain_statistics(clip, name):
    """[n, D] to [D], one component after the other."""
    function = plain_mode if name == "mode" else getattr(np, name)
    return [function(column) for column in clip.T.astype("float64")]


@pytest.mark.parametrize("jit", [False, True])
def test_all_statistics_are_those_of_real_frames(jit, rng):
    num_frames = np.array([1, 2, 7, 12, 20, 30])  # more than T counts as T
    frames = rng.integers(-3, 4, (6, 20, 5)) / 4  # few values: most modes are ties, or nearly so
    mask = np.arange(20) < num_frames[:, None]
    frames[~mask] = 100.0
    compute = tf.function(lambda *x: stats.frame_statistics(*x, NAMES), jit_compile=jit)
    outputs = compute(frames.astype("float32"), mask)
    clips = [clip[real] for clip, real in zip(frames, mask, strict=True)]
    expected = [np.concatenate([plain_statistics(clip, name) for name in NAMES]) for clip in clips]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_statistics_of_a_clip_computed_by_hand():
    frames = np.array([[[4.0], [1.0], [3.0], [1.0], [3.0], [-9.0]]], "float32")
    mask = np.array([[True] * 5 + [False]])
    expected = {"mean": 2.4, "std": 1.2, "min": 1.0, "max": 4.0, "median": 3.0, "mode": 1.0}  # 1 and 3 occur twice
    for name, value in expected.items():
        np.testing.assert_allclose(stats.frame_statistics(frames, mask, [name]), [[value]], rtol=1e-6)
    without_the_last = np.array([[True] * 4 + [False] * 2])
    np.testing.assert_array_equal(stats.frame_statistics(frames, without_the_last, ["median"]), [[2.0]])


def test_clip_without_frames_gives_zeros(rng):
    frames = rng.normal(size=(2, 3, 4)).astype("float32")
    outputs = stats.frame_statistics(frames, np.array([[False] * 3, [True] * 3]), NAMES)
    np.testing.assert_array_equal(outputs[0], np.zeros(24))
    assert (np.asarray(outputs[1]) != 0).all()


def test_std_is_precise_far_from_zero(rng):
    frames = (2 + 1e-3 * rng.normal(size=(3, 300, 8))).astype("float32")
    outputs = stats.masked_std(frames, np.ones((3, 300), bool))
    np.testing.assert_allclose(outputs, frames.astype("float64").std(axis=1), rtol=1e-3)
    assert np.max(stats.masked_std(np.full((1, 300, 8), 2, "float32"), np.ones((1, 300), bool))) < 1e-5


@pytest.mark.parametrize("jit", [False, True])
def test_gradients(jit, rng):
    frames = tf.constant(rng.normal(size=(2, 5, 3)), tf.float32)
    mask = np.array([[True] + [False] * 4, [True] * 4 + [False]])

    @tf.function(jit_compile=jit)
    def gradient(name):
        with tf.GradientTape() as tape:
            tape.watch(frames)
            total = tf.reduce_sum(stats.frame_statistics(frames, mask, [name]))
        return tape.gradient(total, frames)

    clip = frames[1, :4].numpy().astype("float64")
    np.testing.assert_array_equal(gradient("std")[0], np.zeros((5, 3)))  # of a single frame
    expected = (clip - clip.mean(axis=0)) / (4 * clip.std(axis=0))
    np.testing.assert_allclose(gradient("std")[1, :4], expected, rtol=1e-4, atol=1e-6)
    rank = clip.argsort(axis=0).argsort(axis=0)
    for name, share in {"median": 0.5 * ((rank == 1) | (rank == 2)), "mode": rank == 0}.items():
        np.testing.assert_allclose(gradient(name)[1, :4], share)
        np.testing.assert_array_equal(gradient(name)[0, :, 0], [1, 0, 0, 0, 0])


def test_layer_is_float32_in_mixed_precision_and_takes_any_number_of_frames(rng):
    inputs = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = stats.FrameStatistics(NAMES, name="statistics")
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras.Model(inputs, layer(*inputs))
    assert model.output.shape == (None, 24)
    frames = rng.normal(size=(2, 9, 4)).astype("float32")
    expected = [np.concatenate([plain_statistics(clip, name) for name in NAMES]) for clip in frames]
    np.testing.assert_allclose(model([frames, np.ones((2, 9), bool)]), expected, rtol=1e-5, atol=1e-6)


def test_unknown_statistic_is_refused():
    with pytest.raises(ValueError, match="names out of mean, std, min, max, median, mode, got 'sum'"):
        stats.FrameStatistics(("mean", "sum"))
