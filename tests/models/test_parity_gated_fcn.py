"""Gated networks against an independent NumPy forward pass (see `reference`)."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from reference import FEATURES, NUM_CLASSES, batch_norm, check, clip_vector, dense, prepare, relu, sigmoid, softmax

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.losses import losses
from yt8m_tf.models import build_model, registry


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
        x = relu(batch_norm(d(x, name="hidden2_dense"), w, "hidden2_bn"))
        if variant == "v6":
            x = relu(x + d(x, name="hidden3_dense"))
        else:
            x = relu(batch_norm(x + d(x, name="hidden3_dense"), w, "hidden3_bn"))
            x = relu(batch_norm(x + d(x, name="hidden4_dense"), w, "hidden4_bn"))
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
def test_every_variant_of_gated_fcn_trains(variant, rng):  # v7: in the contract test
    """Gradients are finite and not zero; v5, which sorts, runs under XLA."""
    model, inputs, _ = prepare({"name": "gated_fcn", "variant": variant, "inner_size": 32}, "video", rng)
    weights = [variable.value for variable in model.trainable_variables]

    def gradients(inputs, targets):
        with tf.GradientTape() as tape:
            loss = losses.bce(model(inputs, training=True), targets)
        return tape.gradient(loss, weights)

    if variant == "v5":
        gradients = tf.function(gradients, jit_compile=True)
    targets = tf.constant(rng.uniform(size=(6, NUM_CLASSES)), tf.float32)
    for weight, gradient in zip(model.trainable_variables, gradients(inputs, targets), strict=True):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-8, weight.path


def test_class_heads_start_at_the_mean_prior_and_are_the_largest_tensor(rng):
    model = build_model({"name": "gated_fcn", "variant": "v2", "inner_size": 4}, InputSpec("video", FEATURES, 50))
    prior = rng.uniform(1e-4, 0.9, 50)
    registry.set_output_bias(model, prior)
    model.get_layer("logits").kernel.assign(np.zeros((5, 1)))
    outputs = model({name: np.ones((2, size)) for name, size in FEATURES.items()})
    np.testing.assert_allclose(outputs, np.full((2, 50), np.log(prior.mean() / (1 - prior.mean()))), rtol=1e-5)
    largest = max(np.prod(layer.output.shape[1:]) for layer in model.operations)
    assert largest == 50 * 5
