"""Adam, AdamW, RMSprop and clipping against Keras and NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.experiment import OptimizerConfig
from yt8m_tf.training.optimizers import adam_update, clip_by_global_norm, decays, rmsprop_update, update

_SHAPES = [(5, 3), (3,), (2, 3, 4), (1, 7), ()]


def _assert_equals_keras(
    config: OptimizerConfig, optimizer: keras.optimizers.Optimizer, rng: np.random.Generator
) -> None:
    """Compares twenty steps of both, with gradients of many magnitudes."""
    values = [rng.normal(size=shape).astype("float32") for shape in _SHAPES]
    variables = [keras.Variable(value) for value in values]
    if isinstance(optimizer, keras.optimizers.AdamW):
        optimizer.exclude_from_weight_decay([variable for variable in variables if len(variable.shape) < 2])
    optimizer.build(variables)
    ours = [(tf.constant(value), *(tf.zeros(value.shape) for _ in config.slot_names)) for value in values]
    for step in range(20):
        gradients = [tf.constant((10.0 ** rng.uniform(-4, 2) * rng.normal(size=s)).astype("float32")) for s in _SHAPES]
        rate = float(rng.uniform(1e-4, 0.1))
        optimizer.learning_rate = rate
        optimizer.apply(gradients)
        ours = [
            update(config, value, gradient, slots, tf.constant(float(step)), tf.constant(rate))
            for (value, *slots), gradient in zip(ours, gradients, strict=True)
        ]
        for (value, *_), variable in zip(ours, variables, strict=True):
            np.testing.assert_allclose(value, variable.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("options", [{}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.3}])
def test_equals_keras(name: str, options: dict[str, float], rng: np.random.Generator) -> None:
    config = OptimizerConfig(name=name, **options)  # type: ignore[arg-type]
    betas = {"beta_1": config.beta_1, "beta_2": config.beta_2, "epsilon": config.epsilon}
    if name == "adam":
        _assert_equals_keras(config, keras.optimizers.Adam(0.1, **betas), rng)
    else:
        _assert_equals_keras(config, keras.optimizers.AdamW(0.1, weight_decay=config.weight_decay, **betas), rng)


@pytest.mark.parametrize("rho", [0.99, 0.5])
def test_rmsprop_equals_keras(rho: float, rng: np.random.Generator) -> None:
    """Epsilon is so small, even relative to squares of 1e-18, that its position makes no difference."""
    config = OptimizerConfig(name="rmsprop", rho=rho, epsilon=1e-30)
    _assert_equals_keras(config, keras.optimizers.RMSprop(0.1, rho=rho, epsilon=1e-30), rng)


def test_rmsprop_by_hand() -> None:
    """Epsilon is added outside the root, as in PyTorch."""
    config = OptimizerConfig(name="rmsprop", rho=0.75, epsilon=0.5)
    value, mean_square = rmsprop_update(config, tf.constant(1.0), tf.constant(3.0), tf.constant(9.0), tf.constant(0.7))
    assert float(mean_square) == pytest.approx(9.0)
    assert float(value) == pytest.approx(1.0 - 0.7 * 3.0 / 3.5)
    value, mean_square = rmsprop_update(config, value, tf.constant(0.0), mean_square, tf.constant(0.7))
    assert float(mean_square) == pytest.approx(6.75) and float(value) == pytest.approx(0.4)


def test_adams_slots_in_their_order(rng: np.random.Generator) -> None:
    """`update` takes and returns slots in the order of `OptimizerConfig.slot_names`."""
    assert [OptimizerConfig(name=name).slot_names for name in ("adam", "adamw", "rmsprop")] == [  # type: ignore[arg-type]
        ("m", "v"),
        ("m", "v"),
        ("v",),
    ]
    value, gradient, first = (tf.constant(rng.normal(size=(3, 2)).astype("float32")) for _ in range(3))
    new = update(OptimizerConfig(), value, gradient, (first, tf.square(first)), tf.constant(4.0), tf.constant(0.1))
    np.testing.assert_allclose(new[1], 0.9 * first + 0.1 * gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new[2], 0.999 * first**2 + 0.001 * gradient**2, rtol=1e-4, atol=1e-6)


def test_first_step_by_hand() -> None:
    """Both bias corrections cancel at the first step: the change is the rate, against the gradient's sign."""
    config = OptimizerConfig(name="adamw", weight_decay=0.5)
    value, gradient = tf.constant([[2.0, -4.0]]), tf.constant([[3.0, -0.25]])
    zeros = tf.zeros([1, 2])
    new, first, second = adam_update(config, value, gradient, (zeros, zeros), tf.constant(0.0), tf.constant(0.1))
    np.testing.assert_allclose(new, [[2.0 * 0.95 - 0.1, -4.0 * 0.95 + 0.1]], rtol=1e-5)
    np.testing.assert_allclose(first, [[0.3, -0.025]], rtol=1e-5)
    np.testing.assert_allclose(second, [[9e-3, 0.0625e-3]], rtol=1e-4)  # 1 - 0.999 has four digits in float32


def test_decay_does_not_apply_to_biases_and_adam() -> None:
    shapes: list[tuple[int, ...]] = [(), (3,), (3, 1), (3, 1, 2)]
    assert [decays(OptimizerConfig(name="adamw"), shape) for shape in shapes] == [False, False, True, True]
    assert not any(decays(OptimizerConfig(name="adam"), shape) for shape in shapes)


@pytest.mark.parametrize("clip_norm", [None, 1e-3, 1.0, 7.0, 1e6])
def test_clipping_equals_numpy(clip_norm: float | None, rng: np.random.Generator) -> None:
    shapes = [*_SHAPES, (301, 331)]  # the last one is large, and not a multiple of the layer size
    gradients = [rng.normal(size=shape).astype("float32") for shape in shapes]
    gradients[-1][-1, -5:] = 30.0  # the rest after the last whole layer
    norm = np.sqrt(sum(np.sum(gradient.astype("float64") ** 2) for gradient in gradients))
    clipped, reported = clip_by_global_norm([tf.constant(gradient) for gradient in gradients], clip_norm)
    assert float(reported) == pytest.approx(norm, rel=1e-5)  # before clipping
    factor = 1.0 if clip_norm is None or norm <= clip_norm else clip_norm / norm
    for found, gradient in zip(clipped, gradients, strict=True):
        np.testing.assert_allclose(found, gradient * factor, rtol=1e-5)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_clipping_of_zero_gradients_and_of_nonfinite_ones(clip_norm: float | None) -> None:
    clipped, norm = clip_by_global_norm([tf.zeros([2]), tf.zeros([2, 2])], clip_norm)
    assert float(norm) == 0.0 and not np.any(clipped[1])
    for bad in (np.nan, np.inf):
        norm = clip_by_global_norm([tf.constant([1.0, bad]), tf.zeros([2])], clip_norm)[1]
        assert not np.isfinite(norm)
