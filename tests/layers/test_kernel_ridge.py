import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import kernel_solve
from yt8m_tf.layers.kernel_ridge import KernelRidge, ScoreCalibration

SIZES, SHARES, NUM_CLASSES, CAPACITY = (6, 3), (1.0, 0.5), 5, 30
GAMMA, RIDGE = 0.8, 0.1


def layer_with_memory(rng, count=CAPACITY):
    layer = KernelRidge(NUM_CLASSES, CAPACITY, SHARES, GAMMA, RIDGE)
    features = [rng.normal(2.0, 1.0, (count, size)).astype("float32") for size in SIZES]
    labels = [rng.choice(NUM_CLASSES, rng.integers(0, 4), replace=False) for _ in range(count)]
    layer([values[:1] for values in features])
    layer.remember(features, labels)
    return layer, features, labels


def points(features, memory):
    """[B, D] float64."""
    parts = [x.astype("float64") - m.mean(axis=0, dtype="float64") for x, m in zip(features, memory, strict=True)]
    parts = [share * x / np.linalg.norm(x, axis=1, keepdims=True) for x, share in zip(parts, SHARES, strict=True)]
    return np.concatenate(parts, axis=1)


def scores(queries, keys, labels):
    """[B, C], by the formula in float64."""
    targets = np.array([np.isin(np.arange(NUM_CLASSES), own) for own in labels], "float64")

    def kernel(x):
        return np.array([[np.exp(-GAMMA / 2 * np.sum((one - key) ** 2)) for key in keys] for one in x])

    return kernel(queries) @ np.linalg.solve(kernel(keys) + RIDGE * np.eye(len(keys)), targets)


@pytest.mark.parametrize(("jit", "count"), [(False, CAPACITY), (True, 17)])
def test_scores(jit, count, rng):
    """Tests a full memory and a partly filled one."""
    layer, memory, labels = layer_with_memory(rng, count)
    queries = [rng.normal(2.0, 1.0, (8, size)).astype("float32") for size in SIZES]
    expected = scores(points(queries, memory), points(memory, memory), labels)
    np.testing.assert_allclose(tf.function(layer, jit_compile=jit)(queries), expected, atol=2e-5)
    for training in (False, True):  # videos that are not in the memory
        np.testing.assert_allclose(layer(queries, training=training), expected, atol=2e-5)


@pytest.mark.parametrize("block", [kernel_solve.BLOCK, 8])
def test_in_training_a_video_is_scored_by_a_memory_without_it(block, rng, monkeypatch):
    monkeypatch.setattr(kernel_solve.factorise, "__defaults__", (block, lambda: None))
    layer, memory, labels = layer_with_memory(rng)
    keys = points(memory, memory)
    np.testing.assert_allclose(layer(memory), scores(keys, keys, labels), atol=2e-5)
    without = [
        scores(keys[i : i + 1], np.delete(keys, i, axis=0), labels[:i] + labels[i + 1 :])[0] for i in range(CAPACITY)
    ]
    assert np.abs(np.array(without) - scores(keys, keys, labels)).max() > 0.1
    np.testing.assert_allclose(layer(memory, training=True), without, atol=2e-5)


def test_computed_by_hand():
    layer = KernelRidge(2, 3, (1.0,), 2.0, 0.5)
    memory = np.array([[1.0, 0.0], [-1.0, 0.0]], "float32")  # with mean 0 and length 1, at a squared distance of 4
    layer([memory])
    layer.remember([memory], [np.array([0]), np.array([0, 1])])
    near = np.exp(-4.0)
    determinant = 1.5**2 - near**2
    duals = np.array([[1.5 - near, -near], [1.5 - near, 1.5]]) / determinant
    np.testing.assert_allclose(np.asarray(layer.duals)[:2], duals, rtol=1e-5)
    # (0, 3) has a squared distance of 2 to both.
    expected = np.exp(-2.0) * duals.sum(axis=0)
    np.testing.assert_allclose(layer([np.array([[0.0, 3.0]], "float32")]), [expected], rtol=1e-5)


def test_empty_rows_contribute_nothing(rng):
    layer = KernelRidge(NUM_CLASSES, CAPACITY, SHARES, GAMMA, RIDGE)
    queries = [rng.normal(size=(4, size)).astype("float32") for size in SIZES]
    assert not np.any(layer(queries)) and not np.any(layer(queries, training=True))
    layer, memory, _ = layer_with_memory(rng, 17)
    for variable in (layer.keys, layer.duals, layer.own):
        assert not np.any(np.asarray(variable)[17:])
    mean = [values.mean(axis=0, keepdims=True) for values in memory]  # its directions are those of empty rows
    for training in (False, True):
        before = np.asarray(layer(mean, training=training))
        keys = np.asarray(layer.keys).copy()
        keys[17:] = 9.0
        layer.keys.assign(keys)
        np.testing.assert_allclose(layer(mean, training=training), before, atol=1e-6)


def test_calibration(rng):
    layer = ScoreCalibration()
    given = rng.normal(0.1, 0.3, size=(6, NUM_CLASSES)).astype("float32")
    layer(given)
    values = {v.name: rng.normal(size=v.shape).astype("float32") for v in layer.weights}
    for variable in layer.weights:
        variable.assign(values[variable.name])
    w = {name: value.astype("float64") for name, value in values.items()}
    expected = np.zeros(given.shape)
    for b, c in np.ndindex(given.shape):
        score, prior = float(given[b, c]), w["bias"][c]
        logarithm = np.log(score / 0.003) if score > 0.003 else 0.0
        expected[b, c] = w["gain"] * score + w["log_gain"] * logarithm + w["offset"] + w["prior_scale"] * prior
        expected[b, c] += prior * (w["prior_gain"] * score + w["prior_log_gain"] * logarithm)
    np.testing.assert_allclose(layer(given), expected, rtol=1e-5, atol=1e-5)


def test_calibration_starts_near_that_of_real_videos_by_hand():
    layer = ScoreCalibration()
    scores_given = np.array([[-0.5, 0.003, 0.3]], "float32")
    layer(scores_given)
    layer.bias.assign([-8.0, -4.0, -6.0])
    # (2 - 0.8) * -0.5 + 0.65 * 8 - 16; 0.65 * 4 - 16 + (2 - 0.4) * 0.003; and
    # (2 - 0.6) * 0.3 + (3 - 0.6) * log(100) + 0.65 * 6 - 16
    expected = [[-11.4, -13.4 + 0.0048, 0.42 + 2.4 * np.log(100) - 12.1]]
    np.testing.assert_allclose(layer(scores_given), expected, rtol=1e-5)
    assert "bias" not in [v.name for v in layer.trainable_weights] and len(layer.trainable_weights) == 6
