"""Fully connected networks and variants of the residual one against NumPy forward passes (see `reference`)."""

import functools
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import (
    FEATURES,
    NUM_CLASSES,
    check,
    clip_vector,
    dense,
    leaky,
    prepare,
    resnet_like,
    sigmoid,
)

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.losses import losses
from yt8m_tf.models import build_model, registry

POSITIONS = ("before_bn", "after_bn", "before_dropout", "after_dropout")
MAGNITUDES = {
    "std": np.std,
    "mean": np.mean,
    "mean_abs": lambda x: np.abs(x).mean(),
    "max_abs": lambda x: np.abs(x).max(),
    "norm_by_size": lambda x: np.linalg.norm(x) / x.size,
    "square": lambda x: x**2 / x.size,
}


def relu(x):
    return np.maximum(x, 0)


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


# resnet_like over statistics of frames.


def plain_mode(values):
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]


@pytest.mark.parametrize("statistics", [("mean",), ("mean", "std"), ("mode", "max", "median", "min")])
def test_resnet_like_over_statistics(statistics, rng):
    options = {"name": "resnet_like", "inner_size": 16, "av_blocks": 2, "statistics": list(statistics)}
    model, inputs, w = prepare(options, "frame", rng)
    branches = {}
    for name in FEATURES:
        inputs[name] = np.round(inputs[name] * 2) / 2  # so that there are equal values
        rows = []
        for clip, count in zip(inputs[name].astype("float64"), inputs["num_frames"], strict=True):
            functions = [plain_mode if s == "mode" else getattr(np, s) for s in statistics]
            rows.append([function(column) for function in functions for column in clip[:count].T])
        branches[name] = np.array(rows)
    check(model, inputs, resnet_like(branches, w, 2, 1))
    assert w["rgb_fc_dense/kernel"].shape == (len(statistics) * 24, 16)


# resnet_like_noise.


def noisy_block(x, w, name, position, batch_norm=True, noise=lambda x, name: x):
    places = dict.fromkeys(POSITIONS, lambda x: x) | {position: lambda x: noise(x, f"{name}_noise")}
    x = places["before_bn"](dense(x, w, f"{name}_dense"))
    if batch_norm:
        mean, variance = w[f"{name}_bn/moving_mean"], w[f"{name}_bn/moving_variance"]
        x = (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}_bn/gamma"] + w[f"{name}_bn/beta"]
    x = leaky(places["after_bn"](x))
    return places["after_dropout"](places["before_dropout"](x))


def fixed_noise(x, name, scale, function):
    """What `always` adds in inference."""
    draw = np.asarray(keras.random.normal(x.shape, seed=zlib.crc32(name.encode())), "float64")
    return x + draw * scale * function(x)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("position", POSITIONS)
def test_resnet_like_noise_at_every_place(position, batch_norm, rng):
    options = {"name": "resnet_like_noise", "inner_size": 16, "noise_position": position, "batch_norm": batch_norm}
    noisy = {"noise_scale": 0.7, "noise_when": "always"}
    for more, noise in (
        ({}, lambda x, name: x),  # noise in training only
        (noisy, functools.partial(fixed_noise, scale=0.7, function=np.std)),
    ):
        model, inputs, w = prepare(options | more, "video", rng)
        block = functools.partial(noisy_block, position=position, batch_norm=batch_norm, noise=noise)
        check(model, inputs, resnet_like(inputs, w, 1, 1, block=block))
    assert any(layer.name == "rgb_fc_bn" for layer in model.layers) == batch_norm
    assert ("rgb_fc_dense/bias" in w) == (not batch_norm or position == "before_bn")


@pytest.mark.parametrize("kind", MAGNITUDES)
def test_resnet_like_noise_of_every_magnitude(kind, rng):
    options = {"inner_size": 16, "noise_magnitude": kind, "noise_scale": 3.0, "noise_when": "always"}
    model, inputs, w = prepare({"name": "resnet_like_noise", **options}, "video", rng)
    noise = functools.partial(fixed_noise, scale=3.0, function=MAGNITUDES[kind])
    block = functools.partial(noisy_block, position="before_dropout", noise=noise)
    check(model, inputs, resnet_like(inputs, w, 1, 1, block=block))


def test_noise_is_added_in_training(rng):
    options = {"name": "resnet_like_noise", "inner_size": 16, "batch_norm": False}
    for scale, least, most in ((0.0, 0.0, 1e-5), (1.0, 0.01, np.inf)):
        model, inputs, _ = prepare(options | {"noise_scale": scale}, "video", rng)
        difference = np.abs(model(inputs, training=True) - model(inputs, training=False)).max()
        assert least <= difference <= most


def test_always_noise_is_the_same_after_saving_and_exporting(rng, tmp_path):
    """The exception from the contract: a video's scores depend on the rest of its batch."""
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


# Fully connected networks.


@pytest.mark.parametrize("sizes", [[], [12], [9, 14, 7]])
def test_fcn(sizes, rng):
    model, inputs, w = prepare({"name": "fcn", "hidden_sizes": sizes, "dropout": 0.3}, "video", rng)
    x = clip_vector(inputs)
    for i in range(len(sizes)):
        x = relu(dense(x, w, f"fcn{i + 1}_dense"))
    check(model, inputs, dense(x, w, "logits"))


def test_bottleneck_fcn(rng):
    model, inputs, w = prepare({"name": "bottleneck_fcn", "start_size": 16, "depth": 3}, "video", rng)
    x, widths = clip_vector(inputs), []
    for i in range(7):
        x = relu(dense(x, w, f"fcn{i + 1}_dense"))
        widths.append(x.shape[1])
    assert widths == [16, 8, 4, 2, 4, 8, 16]
    check(model, inputs, dense(x, w, "logits"))


@pytest.mark.parametrize("repeats", [1, 4])
def test_cyclic_fcn(repeats, rng):
    model, inputs, w = prepare({"name": "cyclic_fcn", "inner_size": 13, "repeats": repeats}, "video", rng)
    x = leaky(dense(clip_vector(inputs), w, "first_dense"))
    for _ in range(repeats):
        x = leaky(dense(x, w, "cycle_dense"))
    check(model, inputs, dense(x, w, "logits"))


def test_ranking_fcn(rng):
    model, inputs, w = prepare({"name": "ranking_fcn", "inner_size": 13}, "video", rng)
    x = relu(dense(clip_vector(inputs), w, "fcn1_dense"))
    x = relu(dense(x, w, "fcn2_dense"))
    (scale,), (bias,) = w["logits/kernel"][0], w["logits/bias"].reshape(1, 1)
    check(model, inputs, scale * softmax(dense(x, w, "scores")) + bias)


# gated_fcn.


def norm(x, w, name):
    mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
    return (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}/gamma"] + w[f"{name}/beta"]


def gated_fcn(x, w, variant):
    d = functools.partial(dense, w=w)
    if variant == "v1":
        x = relu(d(x, name="hidden1_dense"))
    elif variant in ("v2", "v3", "v4"):
        x = relu(d(relu(d(x, name="hidden1_dense")), name="hidden2_dense"))
    elif variant == "v5":
        x = relu(d(np.sort(d(x, name="hidden1_dense"), axis=1), name="hidden2_dense"))
    else:
        x = relu(d(x, name="hidden1_dense"))
        x = relu(norm(d(x, name="hidden2_dense"), w, "hidden2_bn"))
        if variant == "v6":
            x = relu(x + d(x, name="hidden3_dense"))
        else:
            x = relu(norm(x + d(x, name="hidden3_dense"), w, "hidden3_bn"))
            x = relu(norm(x + d(x, name="hidden4_dense"), w, "hidden4_bn"))
    if variant == "v2":
        x = relu(d(x, name="heads")).reshape(len(x), NUM_CLASSES, 3)
    gate = softmax if variant == "v4" else sigmoid
    x = x * gate(d(x, name="gate"))
    logits = d(x, name="logits")
    return logits[:, :, 0] if variant == "v2" else logits


@pytest.mark.parametrize("variant", ["v1", "v2", "v3", "v4", "v5", "v6", "v7"])
def test_gated_fcn(variant, rng):
    options = {"name": "gated_fcn", "variant": variant, "inner_size": 12, "heads": 3, "dropout": 0.3}
    model, inputs, w = prepare(options, "video", rng)
    check(model, inputs, gated_fcn(clip_vector(inputs), w, variant))


@pytest.mark.parametrize("variant", ["v1", "v2", "v3", "v4", "v5", "v6"])
def test_every_variant_of_gated_fcn_trains_under_xla(variant, rng):  # v7: in the contract test
    model, inputs, _ = prepare({"name": "gated_fcn", "variant": variant, "inner_size": 32}, "video", rng)
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=True)
    def gradients(inputs, targets):
        with tf.GradientTape() as tape:
            loss = losses.bce(model(inputs, training=True), targets)
        return tape.gradient(loss, weights)

    targets = tf.constant(rng.uniform(size=(6, NUM_CLASSES)), tf.float32)
    for weight, gradient in zip(model.trainable_variables, gradients(inputs, targets), strict=True):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-8, weight.path


def test_class_heads_start_at_the_mean_prior_and_hold_no_more_than_their_values(rng):
    model = build_model({"name": "gated_fcn", "variant": "v2", "inner_size": 4}, InputSpec("video", FEATURES, 50))
    prior = rng.uniform(1e-4, 0.9, 50)
    registry.set_output_bias(model, prior)
    model.get_layer("logits").kernel.assign(np.zeros((5, 1)))
    outputs = model({name: np.ones((2, size)) for name, size in FEATURES.items()})
    np.testing.assert_allclose(outputs, np.full((2, 50), np.log(prior.mean() / (1 - prior.mean()))), rtol=1e-5)
    largest = max(np.prod(layer.output.shape[1:]) for layer in model.operations)
    assert largest == 50 * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet_like", "statistics": []}, r"'model': statistics must name each one once .*, got \[\]"),
        ({"name": "resnet_like", "statistics": ["std", "std"]}, r"each one once .* got \['std', 'std'\]"),
        ({"name": "resnet_like", "statistics": ["sum"]}, r"'model.statistics\[0\]': 'sum' is not one of mean, std"),
        ({"name": "resnet_like", "statistics": ["mean", "std"]}, r"'model.statistics': .*\(data.level=frame\)"),
        ({"name": "linear_combinations", "resnet": {"statistics": "mean"}}, "unknown key 'model.resnet.statistics'"),
        ({"name": "resnet_like_noise", "noise_scale": -1}, "noise_scale must be at least 0, got -1"),
        ({"name": "resnet_like_noise", "noise_position": "first"}, "'first' is not one of before_bn, after_bn"),
        ({"name": "fcn", "hidden_sizes": [3, 0]}, r"hidden_sizes must be at least 1, got \(3, 0\)"),
        ({"name": "bottleneck_fcn", "start_size": 24, "depth": 4}, r"multiple of 2 \*\* depth = 16, .* got 24"),
        ({"name": "cyclic_fcn", "repeats": 0}, "repeats must be at least 1, got 0"),
        ({"name": "gated_fcn", "variant": "v8"}, "'v8' is not one of v1, v2"),
        ({"name": "gated_fcn", "dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_options_that_cannot_be_are_one_line_errors(options, message):
    with pytest.raises(InputError, match=message) as error:
        build_model(options, InputSpec("video", FEATURES, NUM_CLASSES))
    assert "\n" not in str(error.value)
