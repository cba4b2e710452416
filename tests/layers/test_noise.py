import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers.noise import GaussianNoise, magnitude

PLAIN = {
    "std": lambda x: x.std(),
    "mean": lambda x: x.mean(),
    "mean_abs": lambda x: np.abs(x).mean(),
    "max_abs": lambda x: np.abs(x).max(),
    "norm_by_size": lambda x: np.sqrt((x**2).sum()) / x.size,
    "square": lambda x: x * x / x.size,
}
every_kind = pytest.mark.parametrize("kind", PLAIN)


@every_kind
def test_magnitude_is_of_the_whole_tensor(kind, rng):
    x = rng.normal(0.5, 1.0, size=(5, 7))
    np.testing.assert_allclose(magnitude(tf.constant(x, tf.float32), kind), PLAIN[kind](x), rtol=1e-5)


@every_kind
def test_gradient_is_finite_at_zero(kind):
    x = tf.zeros([2, 3])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(magnitude(x, kind))
    assert np.isfinite(tape.gradient(total, x)).all()


@pytest.mark.parametrize(("kind", "jit"), [*((kind, False) for kind in PLAIN), ("std", True), ("max_abs", True)])
def test_noise_has_the_requested_scale(kind, jit, rng):
    layer = GaussianNoise(3.0, kind)
    x = rng.normal(0.5, 1.0, size=(200, 300)).astype("float32")
    noise = np.asarray(tf.function(layer, jit_compile=jit)(x, training=True)) - x
    unit = noise / (3.0 * PLAIN[kind](x.astype("float64")))
    if kind == "square":  # small x have small noise, which is mostly lost to rounding in the addition
        unit = unit[np.abs(x) > 1]
    sigma = unit.size**-0.5
    assert abs(unit.mean()) < 5 * sigma
    assert abs(unit.std() - 1) < 5 * sigma
    assert (np.abs(unit) < 1).mean() == pytest.approx(0.6827, abs=5 * sigma)  # as in a normal distribution


def test_noise_is_for_training(rng):
    layer = GaussianNoise(2.0)
    x = rng.normal(size=(4, 5)).astype("float32")
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(GaussianNoise(0.0)(x, training=True), x)
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 0.1


def test_always_noise_in_inference_is_fixed_by_the_layers_name(rng):
    x = rng.normal(size=(4, 5)).astype("float32")
    first, again, other = (np.asarray(GaussianNoise(always=True, name=name)(x)) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    for one, two in ((first, x), (first, other)):
        assert np.abs(one - two).max() > 0.1
    layer = GaussianNoise(always=True, name="a")
    draws = [np.asarray(layer(x, training=True)) for _ in range(2)] + [first]
    assert min(np.abs(draws[i] - draws[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.1


def test_the_state_of_the_generator_is_fed_from_outside(rng):
    """Training assigns a new seed to every variable of this name in each step."""
    layer = GaussianNoise()
    x = rng.normal(size=(4, 5)).astype("float32")
    layer(x)
    assert [variable.name for variable in layer.non_trainable_variables] == ["seed_generator_state"]
    draws = [np.asarray(layer.stateless_call([], [np.array(s)], x, training=True)[0]) for s in ([1, 2], [1, 2], [1, 3])]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0.1


def test_half_precision_neither_overflows_nor_changes_type():
    x = tf.fill([8, 64], tf.constant(300.0, tf.float16))  # 300 ** 2 is beyond float16
    outputs = GaussianNoise(kind="norm_by_size", dtype="float16")(x, training=True)
    assert outputs.dtype == tf.float16
    assert np.isfinite(outputs).all() and np.abs(outputs - x).max() > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"scale": -1.0}, "scale must be at least 0, got -1.0"), ({"kind": "sum"}, "one of std, mean, .*, got 'sum'")],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianNoise(**arguments)
