"""The small nets, the final network and the weighted mean against NumPy forward passes (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, dense, prepare, sigmoid

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model


def relu(x):
    return np.maximum(x, 0)


def swish(x):
    return x / (1 + np.exp(-x))


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def bn(x, w, name):
    mean, variance = w[f"{name}_bn/moving_mean"], w[f"{name}_bn/moving_variance"]
    return (x - mean) / np.sqrt(variance + 1e-3) * w[f"{name}_bn/gamma"] + w[f"{name}_bn/beta"]


def layer(x, w, name, activation):
    return activation(bn(dense(x, w, f"{name}_dense"), w, name))


def trunk(variant, inputs, w):
    """Each net as the specification lists it, one after the other."""
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


@pytest.mark.parametrize("variant", "abcdef")
def test_small_nets(variant, rng):
    model, inputs, w = prepare({"name": "small_net", "variant": variant, "width": 0.02}, "video", rng)
    check(model, inputs, dense(trunk(variant, inputs, w), w, "logits"))
    assert {name for name in w if name.endswith("bias")} == {"logits/bias"}


@pytest.mark.parametrize("train_trunks", [False, True])
def test_final_network(train_trunks, rng):
    options = {"name": "final_network", "width": 0.01, "train_trunks": train_trunks}
    model, inputs, w = prepare(options, "video", rng)
    parts = [trunk(variant, inputs, w) for variant in "abcdef"] + [inputs[name] for name in FEATURES]
    x = layer(np.concatenate(parts, axis=1), w, "hidden1", relu)
    check(model, inputs, dense(layer(x, w, "hidden2", relu), w, "logits"))
    trained = {variable.path for variable in model.trainable_weights}
    own = {path for path in w if path.startswith(("hidden", "logits"))}
    everything = {path for path in w if "moving" not in path}
    assert trained == (everything if train_trunks else own & everything)


def test_published_sizes():
    """9,344 numbers go into the final network; about 245 M parameters in all."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = build_model({"name": "final_network"}, InputSpec())
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    assert shapes["hidden1_dense/kernel"] == (9344, 8192) and shapes["hidden2_dense/kernel"] == (8192, 6000)
    assert shapes["logits/kernel"] == (6000, 3862)
    assert shapes["c_rgb1_dense/kernel"] == (1024, 1024) and shapes["c_audio1_dense/kernel"] == (128, 256)
    assert shapes["e_joint1_dense/kernel"] == (1152, 4096) and shapes["f_joint5_dense/kernel"] == (2048, 2048)
    assert model.count_params() == pytest.approx(245e6, rel=0.02)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_weighted_mean(average, rng):
    """Members of different features."""
    members = [
        {"name": "logistic"},
        {"name": "fcn", "hidden_sizes": [9], "features": ["rgb"]},
        {"name": "resnet_like", "inner_size": 8},
    ]
    options = {"name": "weighted_mean", "members": members, "weights": [2.0, 1.0, 5.0], "average": average}
    model, inputs, w = prepare(options, "video", rng)
    total = 0.0
    for number, (member, weight) in enumerate(zip(members, (2, 1, 5), strict=True)):
        features = {name: FEATURES[name] for name in member.get("features", FEATURES)}
        alone = build_model(
            {k: v for k, v in member.items() if k != "features"}, InputSpec("video", features, NUM_CLASSES)
        )
        for variable in alone.weights:
            variable.assign(w[f"member_{number}_{variable.path}"])
        logits = alone({name: inputs[name] for name in features}, training=False).numpy().astype("float64")
        total = total + weight / 8 * (logits if average == "logits" else sigmoid(logits))
    check(model, inputs, total if average == "logits" else np.log(total / (1 - total)))


def test_weighted_mean_of_extreme_scores():
    """Scores that are 1 in float32 keep their order."""
    spec = InputSpec("video", {"rgb": 1}, 3)
    model = build_model({"name": "weighted_mean", "members": [{"name": "logistic"}] * 2}, spec)
    for variable in model.weights:
        variable.assign(np.array([30.0, 60.0, -50.0]) if variable.path.endswith("bias") else variable * 0)
    np.testing.assert_allclose(model({"rgb": np.zeros((1, 1), "float32")})[0], [30.0, 60.0, -50.0], rtol=1e-6)


def test_what_cannot_be_built():
    for options, message in (
        ({"name": "final_network", "trunks": ["a", "a"]}, "different trunks, got a, a"),
        ({"name": "small_net", "width": 0.0}, "width must be positive"),
        ({"name": "small_net", "variant": "g"}, "model.variant"),
        ({"name": "weighted_mean", "members": []}, "members must name at least one"),
        ({"name": "weighted_mean", "members": [{"name": "logistic"}], "weights": [1.0, 2.0]}, "must be as many as"),
        ({"name": "weighted_mean", "members": [{"name": "logistic"}], "weights": [0.0]}, "not all 0"),
    ):
        with pytest.raises(InputError, match=message):
            build_model(options, InputSpec("video", FEATURES, 3))
