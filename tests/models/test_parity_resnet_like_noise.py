"""The residual network with noise against an independent NumPy forward pass (see `reference`)."""

import functools
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import FEATURES, NUM_CLASSES, check, dense, leaky, prepare, resnet_like, sigmoid

from yt8m_tf.config.data import DataConfig
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model

POSITIONS = ("before_bn", "after_bn", "before_dropout", "after_dropout")
MAGNITUDES = {"max_abs": lambda x: np.abs(x).max(), "square": lambda x: x**2 / x.size}  # all kinds: the layer's tests


def noisy_block(x, w, name, position, batch_norm=True, noise=lambda x, name: x):
    places = dict.fromkeys(POSITIONS, lambda x: x) | {position: lambda x: noise(x, f"{name}_noise")}
    x = places["before_bn"](dense(x, w, f"{name}_dense"))
    if batch_norm:
        mean, variance = w[f"{name}_bn/moving_mean"], w[f"{name}_bn/moving_variance"]
        x = (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}_bn/gamma"] + w[f"{name}_bn/beta"]
    x = leaky(places["after_bn"](x))
    return places["after_dropout"](places["before_dropout"](x))


def fixed_noise(x, name, scale, function):
    """The noise that `always` adds in inference."""
    draw = np.asarray(keras.random.normal(x.shape, seed=zlib.crc32(name.encode())), "float64")
    return x + draw * scale * function(x)


@pytest.mark.parametrize(
    ("position", "batch_norm", "when"),
    [
        *((position, True, "always") for position in POSITIONS),
        ("before_bn", False, "always"),
        ("before_dropout", False, "always"),
        ("after_bn", True, "training"),
    ],
)
def test_resnet_like_noise_at_every_place(position, batch_norm, when, rng):
    options = {"inner_size": 16, "noise_position": position, "batch_norm": batch_norm, "noise_scale": 0.7}
    model, inputs, w = prepare({"name": "resnet_like_noise", "noise_when": when, **options}, "video", rng)
    noise = functools.partial(fixed_noise, scale=0.7, function=np.std) if when == "always" else lambda x, name: x
    block = functools.partial(noisy_block, position=position, batch_norm=batch_norm, noise=noise)
    check(model, inputs, resnet_like(inputs, w, 1, 1, block=block), alone=when == "training")
    assert any(layer.name == "rgb_fc_bn" for layer in model.layers) == batch_norm
    assert ("rgb_fc_dense/bias" in w) == (not batch_norm or position == "before_bn")


@pytest.mark.parametrize("kind", MAGNITUDES)
def test_resnet_like_noise_of_other_magnitudes(kind, rng):
    options = {"inner_size": 16, "noise_magnitude": kind, "noise_scale": 3.0, "noise_when": "always"}
    model, inputs, w = prepare({"name": "resnet_like_noise", **options}, "video", rng)
    noise = functools.partial(fixed_noise, scale=3.0, function=MAGNITUDES[kind])
    block = functools.partial(noisy_block, position="before_dropout", noise=noise)
    check(model, inputs, resnet_like(inputs, w, 1, 1, block=block), alone=False)


def test_noise_is_added_in_training(rng):
    options = {"name": "resnet_like_noise", "inner_size": 16, "batch_norm": False}
    for scale, least, most in ((0.0, 0.0, 1e-5), (1.0, 0.01, np.inf)):
        model, inputs, _ = prepare(options | {"noise_scale": scale}, "video", rng)
        difference = np.abs(model(inputs, training=True) - model(inputs, training=False)).max()
        assert least <= difference <= most


@pytest.mark.end_to_end
@pytest.mark.usefixtures("graphs_as_traced")
def test_always_noise_is_the_same_after_saving_and_exporting(rng, tmp_path):
    """An exception to the contract: a video's scores depend on the rest of its batch."""
    options = {"name": "resnet_like_noise", "inner_size": 16, "noise_when": "always"}
    model, inputs, _ = prepare(options, "video", rng)
    outputs = model(inputs, training=False).numpy()
    assert np.abs(model({name: x[:1] for name, x in inputs.items()}, training=False) - outputs[:1]).max() > 1e-3
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(inputs, training=False), outputs)
    data = DataConfig(features=FEATURES, num_classes=NUM_CLASSES)
    export_saved_model(model, data, tmp_path / "exported", precision=FLOAT32)
    scores = tf.saved_model.load(str(tmp_path / "exported")).signatures["features"](**inputs)["predictions"]
    np.testing.assert_allclose(scores, sigmoid(outputs.astype("float64")), atol=1e-6)
