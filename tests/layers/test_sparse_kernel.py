import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.sparse_kernel import SparseKernelRidge

SIZES, SHARES, NUM_CLASSES, CAPACITY = (9, 5), (1.0, 0.5), 5, 64
GAMMA, RIDGE, COMPONENTS, CENTRES = 0.8, 0.2, 7, 10


def filled(rng, count=CAPACITY, duals_per_video=NUM_CLASSES, components=COMPONENTS, centres=CENTRES):
    layer = SparseKernelRidge(NUM_CLASSES, CAPACITY, SHARES, GAMMA, RIDGE, components, centres, duals_per_video)
    features = [rng.normal(2.0, 1.0, (count, size)).astype("float32") for size in SIZES]
    labels = [rng.choice(NUM_CLASSES, rng.integers(0, 4), replace=False) for _ in range(count)]
    layer([values[:1] for values in features])
    layer.remember(features, labels)
    return layer, features, labels


def points(features, memory, components, axes=None):
    """[B, P] float64: directions, on the principal components of those of the memory, or on other axes [D, P]."""

    def scaled(videos):
        parts = [x.astype("float64") - m.mean(axis=0, dtype="float64") for x, m in zip(videos, memory, strict=True)]
        parts = [share * x / np.linalg.norm(x, axis=1, keepdims=True) for x, share in zip(parts, SHARES, strict=True)]
        return np.concatenate(parts, axis=1)

    axes = np.linalg.svd(scaled(memory), full_matrices=False)[2][:components].T if axes is None else axes
    found = scaled(features) @ axes
    return found * np.linalg.norm(SHARES) / np.linalg.norm(found, axis=1, keepdims=True)


def kernel(first, second):
    return np.exp(-GAMMA / 2 * np.sum((first[:, None] - second[None]) ** 2, axis=2))


def scores(queries, keys, labels):
    """[B, C], by the exact formula in float64."""
    targets = np.array([np.isin(np.arange(NUM_CLASSES), own) for own in labels], "float64")
    return kernel(queries, keys) @ np.linalg.solve(kernel(keys, keys) + RIDGE * np.eye(len(keys)), targets)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("count", "components"), [(CAPACITY, COMPONENTS), (40, 99), (CENTRES, COMPONENTS)])
def test_with_room_for_all_duals_only_rounding_differs(jit, count, components, rng):
    """Tests a full memory, a partly filled one with all components, and one of centres alone."""
    layer, memory, labels = filled(rng, count, components=components)
    queries = [rng.normal(2.0, 1.0, (8, size)).astype("float32") for size in SIZES]
    expected = scores(points(queries, memory, components), points(memory, memory, components), labels)
    np.testing.assert_allclose(tf.function(layer, jit_compile=jit)(queries), expected, atol=5e-3)
    for training in (False, True):  # videos that are not in the memory
        np.testing.assert_allclose(layer(queries, training=training), layer(queries), atol=1e-6)


def test_scores_are_those_of_the_stored_duals(rng, monkeypatch):
    """Tests the sums over groups, in several parts, against a matrix of duals."""
    monkeypatch.setattr("yt8m_tf.layers.sparse_kernel._PART", 3)
    layer, memory, _ = filled(rng, duals_per_video=2)
    duals = np.zeros((CAPACITY, NUM_CLASSES))
    duals[:CENTRES] = np.asarray(layer.centre_duals)
    groups = (np.asarray(table) for table in (layer.dual_values, layer.dual_videos, layer.dual_classes))
    for values, videos, column in zip(*groups, strict=True):
        np.add.at(duals[:, column], videos, values)
    assert 50 < np.count_nonzero(duals[CENTRES:]) <= 2 * CAPACITY
    queries = [rng.normal(2.0, 1.0, (8, size)).astype("float32") for size in SIZES]
    keys = np.asarray(layer.keys, "float64")
    found = points(queries, memory, COMPONENTS, np.asarray(layer.projection, "float64"))
    expected = kernel(found, keys) @ duals + np.asarray(layer.bias)
    np.testing.assert_allclose(layer(queries), expected, atol=2e-3)


def test_in_training_a_video_is_scored_by_a_memory_without_it(rng):
    layer, memory, labels = filled(rng)
    keys = points(memory, memory, COMPONENTS)
    others = np.setdiff1d(np.arange(CAPACITY), np.linspace(0, CAPACITY, CENTRES, endpoint=False).astype(int))
    without = np.array([scores(keys[[i]], np.delete(keys, i, 0), labels[:i] + labels[i + 1 :])[0] for i in others])
    assert np.abs(without - scores(keys[others], keys, labels)).max() > 0.1
    given = [values[others] for values in memory]
    np.testing.assert_allclose(layer(given, training=True), without, atol=5e-3)
    np.testing.assert_allclose(layer(given), scores(keys[others], keys, labels), atol=5e-3)


def test_float16_stores_the_memory_without_loss(rng):
    layer, _, _ = filled(rng)
    for variable in (layer.keys, layer.projection, layer.centre_duals, layer.dual_values):
        values = np.asarray(variable)
        assert np.any(values)
        np.testing.assert_array_equal(values, values.astype("float16").astype("float32"))


def test_the_bias_makes_up_for_rounded_duals(rng, monkeypatch):
    """Tests with a rounding so coarse that it matters."""

    def coarse(values):
        duals = values.ndim == 1 or values.shape[1] == NUM_CLASSES
        return np.round(values * 4) / 4 if duals else values

    layer, memory, labels = filled(rng, components=99)
    exact = np.asarray(layer(memory))
    other = SparseKernelRidge.from_config(layer.get_config())
    other([values[:1] for values in memory])
    monkeypatch.setattr("yt8m_tf.layers.sparse_kernel._principal_components", lambda *_: np.asarray(layer.projection))
    monkeypatch.setattr("yt8m_tf.layers.sparse_kernel._float16", coarse)
    other.remember(memory, labels)
    errors = np.asarray(other(memory)) - exact
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=1e-3)
    assert np.abs(np.asarray(other(memory)) - np.asarray(other.bias) - exact).mean(axis=0).max() > 0.01


def test_an_empty_memory_scores_nothing(rng):
    layer = SparseKernelRidge(NUM_CLASSES, CAPACITY, SHARES, GAMMA, RIDGE, COMPONENTS, CENTRES, 3)
    queries = [rng.normal(size=(4, size)).astype("float32") for size in SIZES]
    assert not np.any(layer(queries)) and not np.any(layer(queries, training=True))


def test_many_classes_have_wide_ids():
    layer = SparseKernelRidge(2**16 + 1, 4, (1.0,), GAMMA, RIDGE, 2, 1, 1)
    layer.build([(None, 2)])
    assert layer.dual_classes.dtype == "int32"
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).components == 2
