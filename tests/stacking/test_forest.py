"""Trees as tensors against LightGBM's own predictions for the same float32 rows."""

import lightgbm
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import trees as trees_module
from yt8m_tf.layers.trees import BoostedTrees
from yt8m_tf.stacking import boosting
from yt8m_tf.stacking.forest import make_forest, not_above
from yt8m_tf.stacking.settings import StackConfig

FEATURES = 5


def random_rows(rng, count, categories=40):
    """A class, and float16 scores with NaN, zeros and ties, as in stacking; one column has no NaN, another one
    only NaN."""
    scores = (rng.random((count, FEATURES)) ** 3).astype(np.float16).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[rng.random(scores.shape) < 0.1] = 0
    scores[:, 2] = np.round(np.nan_to_num(scores[:, 2]), 1)
    scores[:, 3] -= 0.4  # negative values too
    classes = rng.integers(0, categories, count)
    labels = rng.random(count) < np.nan_to_num(scores[:, 0]) * (classes % 3 == 0) + 0.5 * np.nan_to_num(scores[:, 1])
    return np.concatenate([classes[:, None], scores], axis=1).astype(np.float32), labels


def train(rng, config, trees, rows=2000, **changes):
    matrix, labels = random_rows(rng, rows)
    parameters = boosting.parameters(config, FEATURES, 1) | changes
    # The test data is too small for LightGBM's defaults to distinguish its classes.
    parameters |= {"min_data_per_group": 5, "cat_smooth": 1.0}
    data = lightgbm.Dataset(matrix.astype(np.float64), labels, categorical_feature=[0], params={"verbosity": -1})
    return lightgbm.train(parameters, data, trees)


def probabilities(boosters, rows):
    forest = make_forest(boosters)
    layer = BoostedTrees(forest.shape)
    layer.assign(forest)
    return tf.function(layer)(tf.constant(rows)).numpy(), forest


def odd_rows(rng, boosters, count=500):
    """Rows of every kind: unseen classes, the thresholds themselves and adjacent values, infinities."""
    rows, _ = random_rows(rng, count, 60)
    rows[:20, 0] = [np.nan, -1, -0.5, 0.7, -1e9, 1e9, 3e9, np.inf, -np.inf, 39, 40, 1e6, *range(8)]
    thresholds = [
        float(value)
        for booster in boosters
        for value in booster.trees_to_dataframe()["threshold"].dropna()
        if "||" not in str(value) and not float(value).is_integer()
    ]
    drawn = rng.choice(np.array(thresholds or [0.5]), (count, FEATURES)).astype(np.float32)
    beside = np.stack([drawn, np.nextafter(drawn, np.float32(-9)), np.nextafter(drawn, np.float32(9))])
    replaced = rng.random(drawn.shape) < 0.3
    rows[:, 1:][replaced] = beside[rng.integers(0, 3, drawn.shape), *np.indices(drawn.shape)][replaced]
    rows[20:30, 1:] = np.array([np.inf, -np.inf, -0.0, 1e-36, -1e-36, 1e-35, 2e-35, 3e38, -3e38, 1e-40])[:, None]
    return rows


@pytest.mark.parametrize(
    ("config", "trees", "changes"),
    [
        (StackConfig(learning_rate=0.2), 20, {}),
        (StackConfig(learning_rate=0.3, num_leaves=2, lambda_l2=1.0), 7, {}),
        (StackConfig(learning_rate=0.1, num_leaves=90, min_data_in_leaf=1, feature_fraction=0.5, max_bin=16), 9, {}),
        (StackConfig(learning_rate=0.2, min_data_in_leaf=5000), 3, {}),  # no splits at all
        (StackConfig(learning_rate=0.2), 10, {"zero_as_missing": True}),
        (StackConfig(learning_rate=0.2), 10, {"use_missing": False}),
        (StackConfig(learning_rate=0.2, num_leaves=6), 10, {"max_cat_to_onehot": 100}),
    ],
)
def test_probabilities_are_those_of_lightgbm(config, trees, changes, rng):
    boosters = [train(rng, config, trees, **changes), train(rng, config, trees + 2, **changes)]
    rows = odd_rows(rng, boosters)
    actual, forest = probabilities(boosters, rows)
    # LightGBM casts categories to int, which is undefined for infinite and huge ones. Here they count as unknown.
    rows = rows.copy()
    rows[~(np.abs(rows[:, 0]) < 2**31) & ~np.isnan(rows[:, 0]), 0] = -1
    expected = np.stack([booster.predict(rows.astype(np.float64), num_threads=1) for booster in boosters], axis=1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    if config.min_data_in_leaf < 5000:
        assert len(np.unique(expected)) > 50 or config.num_leaves == 2
        assert forest.shape.categories > 0 or config.num_leaves == 2
    kinds = {*forest.missing.tolist()}
    assert (1 in kinds) == ("zero_as_missing" in changes) and (2 not in kinds or not changes.get("zero_as_missing"))


def test_many_few_and_no_rows(rng, monkeypatch):
    """Rows are processed in parts."""
    monkeypatch.setattr(trees_module, "_PAIRS", 100)
    booster = train(rng, StackConfig(learning_rate=0.2), 20, rows=400)
    rows, _ = random_rows(rng, 63)
    actual, forest = probabilities([booster], rows)
    assert forest.shape.trees * 63 > 12 * 100
    np.testing.assert_allclose(actual[:, 0], booster.predict(rows, num_threads=1), rtol=0, atol=1e-12)
    for count in (0, 1):
        np.testing.assert_allclose(probabilities([booster], rows[:count])[0], actual[:count], rtol=0, atol=1e-12)


def test_thresholds_are_rounded_down():
    thresholds = np.array([0.1, -0.1, 0.5, 1 + 2**-30, -1 - 2**-30, 1e299, -1e299, 0.0])
    rounded = not_above(thresholds)
    assert (rounded <= thresholds).all() and rounded.dtype == np.float32
    with np.errstate(over="ignore"):
        above = np.nextafter(rounded, np.float32(np.inf))
    assert (above > thresholds)[:5].all() and rounded[2] == 0.5 and rounded[5] == np.finfo(np.float32).max
    # LightGBM dumps an infinite threshold, for a split of NaN from all numbers, as 1e300.
    np.testing.assert_array_equal(not_above(np.array([1e300, -1e300])), [np.inf, -np.inf])


@pytest.mark.parametrize(
    ("changes", "reason"), [({"objective": "regression"}, "objective"), ({"linear_tree": True}, "linear leaves")]
)
def test_other_boosters_are_refused(changes, reason, rng):
    matrix, labels = random_rows(rng, 300)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1} | changes
    data = lightgbm.Dataset(np.nan_to_num(matrix[:, 1:]), labels, params={"verbosity": -1} | changes)
    with pytest.raises(ValueError, match=reason):
        make_forest([lightgbm.train(parameters, data, 3)])
