"""Bilinear and recurrent video-level models and the hierarchies against independent NumPy passes (see `reference`)."""

import numpy as np
import pytest
from reference import BATCH_SIZE, NUM_CLASSES, check, clip_vector, dense, fc_block, prepare, res_block, sigmoid

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model

NUM_TAGS = 4


def tanhshrink(x):
    return x - np.tanh(x)


def bilinear(x, h, w, name):
    """One example, one output at a time: x' W_k h + b_k."""
    kernel, bias = w[f"{name}/kernel"], w[f"{name}/bias"]
    rows = zip(x, h, strict=True)
    return np.array([[x_n @ kernel[:, :, k] @ h_n + bias[k] for k in range(len(bias))] for x_n, h_n in rows])


@pytest.mark.parametrize(("first_rgb", "second"), [(None, False), (24, True), (7, False), (7, True)])
def test_bilinear_fcn(first_rgb, second, rng):
    options = {"name": "bilinear_fcn", "rank": 5, "inner_size": 9, "dropout": 0.5}
    model, inputs, w = prepare(options | {"first_rgb": first_rgb, "second": second}, "video", rng)
    x = clip_vector(inputs | {"rgb": inputs["rgb"][:, :first_rgb]})
    h = dense(x, w, "rank_dense")
    y = tanhshrink(bilinear(x, tanhshrink(h), w, "bilinear1"))
    if second:
        y = tanhshrink(bilinear(y, h, w, "bilinear2"))
    check(model, inputs, dense(y, w, "logits"))


def gru_step(x, h, w, cell):
    """torch's GRU: the reset gate is applied after the product. Keras keeps the gates in the order z, r, n."""
    read = x @ w[f"{cell}/kernel"] + w[f"{cell}/bias"][0]
    kept = h @ w[f"{cell}/recurrent_kernel"] + w[f"{cell}/bias"][1]
    (read_z, read_r, read_n), (kept_z, kept_r, kept_n) = np.split(read, 3, axis=1), np.split(kept, 3, axis=1)
    z, r = sigmoid(read_z + kept_z), sigmoid(read_r + kept_r)
    return (1 - z) * np.tanh(read_n + r * kept_n) + z * h


def lstm_step(x, state, w, cell):
    h, c = state
    gates = x @ w[f"{cell}/kernel"] + h @ w[f"{cell}/recurrent_kernel"] + w[f"{cell}/bias"]
    i, f, g, o = np.split(gates, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def run_rnn(sequence, w, kind, layer):
    """All outputs of one recurrent layer over a list of [B, D]."""
    cell, outputs = f"{layer}/{kind}_cell", []
    size = len(w[f"{cell}/recurrent_kernel"])
    h = c = np.zeros((len(sequence[0]), size))
    for x in sequence:
        if kind == "gru":
            h = gru_step(x, h, w, cell)
        elif kind == "lstm":
            h, c = lstm_step(x, (h, c), w, cell)
        else:
            h = np.tanh(x @ w[f"{cell}/kernel"] + h @ w[f"{cell}/recurrent_kernel"] + w[f"{cell}/bias"])
        outputs.append(h)
    return outputs


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(("num_layers", "repeats"), [(1, 1), (3, 4)])
def test_repeat_rnn(cell, num_layers, repeats, rng):
    options = {"name": "repeat_rnn", "cell": cell, "hidden_size": 7, "num_layers": num_layers, "repeats": repeats}
    model, inputs, w = prepare(options, "video", rng)
    sequence, last = [clip_vector(inputs)] * repeats, []
    for i in range(1, num_layers + 1):
        sequence = run_rnn(sequence, w, cell, f"{cell}{i}")
        last.append(sequence[-1])
    check(model, inputs, dense(np.concatenate(last, axis=1), w, "logits"))


def trunk(inputs, w):
    """A resnet_like of one block in each place, with a Dense and ReLU on top."""
    branches = [res_block(fc_block(inputs[n], w, f"{n}_fc"), w, f"{n}_res1") for n in ("audio", "rgb")]
    x = res_block(np.concatenate(branches, axis=1), w, "concat_res1")
    return np.maximum(dense(fc_block(x, w, "concat_fc"), w, "trunk_dense"), 0)


def bidirectional(verticals, classes, w, kind):
    """The outputs at both levels: the forward direction reads verticals first, the backward one classes first."""
    forward = run_rnn([verticals, classes], w, kind, "levels_forward")
    backward = run_rnn([classes, verticals], w, kind, "levels_backward")
    return [np.concatenate(pair, axis=1) for pair in ((forward[0], backward[1]), (forward[1], backward[0]))]


def test_ff_hierarchy(rng):
    options = {"name": "resnet_ff_hierarchy", "inner_size": 9, "resnet": {"inner_size": 16}}
    model, inputs, w = prepare(options, "video", rng, NUM_TAGS)
    x = trunk(inputs, w)
    tags = dense(x, w, "tag_logits")
    classes = dense(np.concatenate([x, tags], axis=1), w, "logits")
    assert tags.shape == (BATCH_SIZE, NUM_TAGS) and classes.shape == (BATCH_SIZE, NUM_CLASSES)
    check(model, inputs, np.concatenate([classes, tags], axis=1))


KERAS_NAMES = {"rnn": "simple_rnn", "gru": "gru", "lstm": "lstm"}


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_rnn_hierarchy(cell, rng):
    options = {"name": "resnet_rnn_hierarchy", "inner_size": 9, "hidden_size": 6, "resnet": {"inner_size": 16}}
    model, inputs, w = prepare(options | {"cell": cell}, "video", rng, NUM_TAGS)
    x = trunk(inputs, w)
    verticals, classes = bidirectional(x, x, w, KERAS_NAMES[cell])
    check(model, inputs, np.concatenate([dense(classes, w, "logits"), dense(verticals, w, "tag_logits")], axis=1))


@pytest.mark.parametrize("repeats", [1, 3])
def test_rep_rnn_hierarchy(repeats, rng):
    options = {"name": "resnet_rep_rnn_hierarchy", "inner_size": 9, "hidden_size": 6, "repeats": repeats}
    model, inputs, w = prepare(options | {"resnet": {"inner_size": 16}}, "video", rng, NUM_TAGS)
    verticals = classes = dense(trunk(inputs, w), w, "levels_dense")
    for _ in range(repeats):
        verticals, classes = bidirectional(verticals, classes, w, "simple_rnn")
    check(model, inputs, np.concatenate([dense(classes, w, "logits"), dense(verticals, w, "tag_logits")], axis=1))


def test_any_model_predicts_tags_beside_the_classes(rng):
    model, inputs, w = prepare({"name": "resnet_like", "inner_size": 16}, "video", rng, NUM_TAGS)
    assert model(inputs).shape == (BATCH_SIZE, NUM_CLASSES + NUM_TAGS)
    assert w["logits/kernel"].shape == (16, NUM_CLASSES + NUM_TAGS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "resnet_ff_hierarchy"},
            r"'data.verticals': model 'resnet_ff_hierarchy' predicts .*, 25 in YouTube-8M",
        ),
        ({"name": "resnet_rnn_hierarchy"}, "'data.verticals': model 'resnet_rnn_hierarchy'"),
        ({"name": "resnet_rep_rnn_hierarchy"}, "'data.verticals': model 'resnet_rep_rnn_hierarchy'"),
        ({"name": "resnet_rep_rnn_hierarchy", "repeats": 0}, "repeats must be at least 1, got 0"),
        ({"name": "resnet_rnn_hierarchy", "hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"name": "resnet_ff_hierarchy", "inner_size": 0}, "inner_size must be at least 1, got 0"),
        ({"name": "resnet_ff_hierarchy", "resnet": {"context_gating": True}}, "resnet.context_gating .* turn it off"),
        ({"name": "bilinear_fcn", "first_rgb": 25}, "'model.first_rgb': 25 is more than the 24 rgb values"),
        ({"name": "bilinear_fcn", "first_rgb": 0}, "first_rgb must be at least 1, got 0"),
        ({"name": "bilinear_fcn", "rank": 0}, "rank must be at least 1, got 0"),
        ({"name": "bilinear_fcn", "dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"name": "repeat_rnn", "num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"name": "repeat_rnn", "cell": "rnn"}, "'model.cell': 'rnn' is not one of gru, lstm"),
    ],
)
def test_wrong_options_are_one_line_errors(options, message):
    with pytest.raises(InputError, match=message) as error:
        build_model(options, InputSpec("video", {"rgb": 24, "audio": 10}, NUM_CLASSES))
    assert "\n" not in str(error.value)
