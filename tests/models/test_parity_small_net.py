"""The small nets and the final network against an independent NumPy forward pass (see `reference`)."""

import keras
import numpy as np
import pytest
from reference import FEATURES, check, dense, prepare, relu

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model


def swish(x):
    return x / (1 + np.exp(-x))


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def layer(x, w, name, activation):
    scale = w[f"{name}_bn/gamma"] / np.sqrt(w[f"{name}_bn/moving_variance"] + 1e-3)
    return activation(scale * (dense(x, w, f"{name}_dense") - w[f"{name}_bn/moving_mean"]) + w[f"{name}_bn/beta"])


def trunk(variant, inputs, w):
    """Each net as listed in the specification, in the same order."""
    rgb, audio = (inputs[name].astype("float64") for name in FEATURES)
    both = np.concatenate([rgb, audio], axis=1)
    if variant == "a":
        x = layer(layer(both, w, "a_joint1", swish), w, "a_joint2", swish)
    elif variant == "b":
        x = layer(both, w, "b_joint1", relu)
    elif variant == "c":
        x = np.concatenate([layer(rgb, w, "c_rgb1", leaky), layer(audio, w, "c_audio1", leaky)], axis=1)
    elif variant == "d":
        rgb = layer(layer(rgb, w, "d_rgb1", swish), w, "d_rgb2", swish)
        audio = layer(layer(audio, w, "d_audio1", swish), w, "d_audio2", swish)
        x = np.concatenate([rgb, audio], axis=1)
    else:
        x = both
        for number in range(1, 5 if variant == "e" else 6):
            x = layer(x, w, f"{variant}_joint{number}", relu)
    return relu(dense(x, w, f"{variant}_output_dense"))


def unit(inputs):
    """Divides each video's concatenated features by their norm."""
    both = np.concatenate([inputs[name].astype("float64") for name in FEATURES], axis=1)
    norm = np.linalg.norm(both, axis=1, keepdims=True)
    return {name: inputs[name].astype("float64") / norm for name in FEATURES}


@pytest.mark.parametrize(("variant", "unit_inputs"), [*((v, False) for v in "abcdef"), ("a", True), ("d", True)])
def test_small_nets(variant, unit_inputs, rng):
    options = {"name": "small_net", "variant": variant, "width": 0.02, "unit_inputs": unit_inputs}
    model, inputs, w = prepare(options, "video", rng)
    features = unit(inputs) if unit_inputs else inputs
    check(model, inputs, dense(trunk(variant, features, w), w, "logits"))
    assert {name for name in w if name.endswith("bias")} == {"logits/bias"}


@pytest.mark.parametrize(("train_trunks", "unit_inputs"), [(False, True), (True, False)])
def test_final_network(train_trunks, unit_inputs, rng):
    options = {"name": "final_network", "width": 0.01, "train_trunks": train_trunks, "unit_inputs": unit_inputs}
    model, inputs, w = prepare(options, "video", rng)
    features = unit(inputs) if unit_inputs else inputs
    parts = [trunk(variant, features, w) for variant in "abcdef"] + [features[name] for name in FEATURES]
    x = layer(np.concatenate(parts, axis=1), w, "hidden1", relu)
    check(model, inputs, dense(layer(x, w, "hidden2", relu), w, "logits"))
    trained = {variable.path for variable in model.trainable_weights}
    own = {path for path in w if path.startswith(("hidden", "logits"))}
    everything = {path for path in w if "moving" not in path}
    assert trained == (everything if train_trunks else own & everything)


def test_unit_inputs_of_a_video_of_zeros_are_zeros(rng):
    model, inputs, _ = prepare({"name": "small_net", "variant": "b", "width": 0.02, "unit_inputs": True}, "video", rng)
    zeros = {name: np.zeros_like(value) for name, value in inputs.items()}
    assert np.isfinite(model(zeros, training=True)).all()


def test_published_sizes():
    """The input of the final network has 9,344 values; the model has about 245 M parameters in all."""
    with keras.StatelessScope(initialize_variables=False):
        model = build_model({"name": "final_network"}, InputSpec())
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    assert shapes["hidden1_dense/kernel"] == (9344, 8192) and shapes["hidden2_dense/kernel"] == (8192, 6000)
    assert shapes["logits/kernel"] == (6000, 3862)
    assert shapes["c_rgb1_dense/kernel"] == (1024, 1024) and shapes["c_audio1_dense/kernel"] == (128, 256)
    assert shapes["e_joint1_dense/kernel"] == (1152, 4096) and shapes["f_joint5_dense/kernel"] == (2048, 2048)
    assert model.count_params() == pytest.approx(245e6, rel=0.02)
