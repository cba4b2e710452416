"""Recurrent models against independent NumPy forward passes (see `reference`): each clip cut to its own frames."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from reference import BATCH_SIZE, FEATURES, MAX_FRAMES, NUM_CLASSES, check, dense, prepare, sigmoid

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model, registry


def lstm(frames, w, name):
    """The equations one gate after the other: frames [T, D] to outputs [T, H] and the last h and c."""
    kernel, recurrent, bias = (w[f"{name}/lstm_cell/{part}"] for part in ("kernel", "recurrent_kernel", "bias"))
    size = len(recurrent)
    h = c = np.zeros(size)
    outputs = []
    for x in frames:
        i, f, g, o = ((x @ kernel + h @ recurrent + bias)[k * size : (k + 1) * size] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), [h, c]


def gru(frames, w, name):
    """As `lstm`, with the reset gate after the matrix product: update z, reset r, candidate."""
    kernel, recurrent, bias = (w[f"{name}/gru_cell/{part}"] for part in ("kernel", "recurrent_kernel", "bias"))
    size = len(recurrent)
    h = np.zeros(size)
    outputs = []
    for x in frames:
        own, before = (np.split(v, 3) for v in (x @ kernel + bias[0], h @ recurrent + bias[1]))
        z, r = sigmoid(own[0] + before[0]), sigmoid(own[1] + before[1])
        h = z * h + (1 - z) * np.tanh(own[2] + r * before[2])
        outputs.append(h)
    return np.stack(outputs), [h]


CELLS = {"lstm": lstm, "gru": gru}


def both_ways(cell, frames, w, name):
    """Outputs of the two directions side by side, and the states after the last frame that each reads."""
    forward, forward_states = CELLS[cell](frames, w, f"{name}_forward")
    backward, backward_states = CELLS[cell](frames[::-1], w, f"{name}_backward")
    return np.concatenate([forward, backward[::-1]], axis=1), forward_states + backward_states


def clips(inputs, names=tuple(FEATURES)):
    """The real frames of each clip, the named features side by side."""
    for i, count in enumerate(inputs["num_frames"]):
        yield np.concatenate([inputs[name][i, :count].astype("float64") for name in names], axis=1)


def fcn(x, w, num_layers):
    for i in range(1, num_layers + 1):
        x = np.maximum(dense(x, w, f"fcn{i}_dense"), 0)
    return dense(x, w, "logits")


def mixture(x, w):
    """The log-odds of a mixture of two experts per class and a dummy."""
    gates = np.exp((x @ w["logits/gate_kernel"]).reshape(BATCH_SIZE, NUM_CLASSES, 3))
    experts = sigmoid((x @ w["logits/expert_kernel"] + w["logits/bias"]).reshape(BATCH_SIZE, NUM_CLASSES, 2))
    probability = (gates[:, :, :2] * experts).sum(axis=2) / gates.sum(axis=2)
    return np.log(probability / (1 - probability))


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm", "num_layers": 2, "hidden_size": 9, "hidden_sizes": [15]},
        {"cell": "lstm", "num_layers": 3, "hidden_size": 7, "hidden_sizes": [12, 11], "dense": True},
        {"cell": "gru", "num_layers": 3, "hidden_size": 8, "hidden_sizes": [12, 11]},
        {"cell": "gru", "num_layers": 2, "hidden_size": 8, "hidden_sizes": [12], "dense": True},
    ],
)
def test_early_concat_rnn(options, rng):
    model, inputs, w = prepare({"name": "early_concat_rnn", **options}, "frame", rng)
    rows = []
    for x in clips(inputs):
        row = []
        for i in range(1, options["num_layers"] + 1):
            outputs, states = CELLS[options["cell"]](x, w, f"rnn{i}")
            row += states
            x = np.concatenate([x, outputs], axis=1) if options.get("dense") else outputs
        rows.append(np.concatenate(row))
    check(model, inputs, fcn(np.stack(rows), w, len(options["hidden_sizes"])))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_lstm_bi_attention(num_layers, rng):
    options = {"name": "lstm_bi_attention", "num_layers": num_layers, "hidden_sizes": [20, 18]}
    model, inputs, w = prepare(options, "frame", rng)
    pooled = []
    for name in FEATURES:
        rows = []
        for frames in clips(inputs, (name,)):
            x = outputs = np.maximum(dense(frames, w, f"{name}_dense"), 0)
            for i in range(1, num_layers + 1):
                outputs, _ = both_ways("lstm", outputs, w, f"{name}_rnn{i}")
            x = np.concatenate([x, outputs], axis=1)
            weights = np.exp(x @ w[f"{name}_attention/kernel"])[:, 0]
            rows.append(weights @ x / weights.sum())
        pooled.append(np.stack(rows))
    x = np.concatenate(pooled, axis=1)
    x = (x - w["bn/moving_mean"]) / np.sqrt(w["bn/moving_variance"] + 1e-5) * w["bn/gamma"] + w["bn/beta"]
    check(model, inputs, fcn(x, w, 2))


def test_starter_lstm(rng):
    model, inputs, w = prepare({"name": "rnn", "hidden_sizes": [9, 8]}, "frame", rng)
    rows = [lstm(lstm(x, w, "rnn1")[0], w, "rnn2")[1][0] for x in clips(inputs)]
    check(model, inputs, mixture(np.stack(rows), w))


def test_bidirectional_lstm_under_a_forward_one(rng):
    options = {"hidden_sizes": [10, 7], "bidirectional_layers": 1, "cell_state": True, "head": {"name": "logistic"}}
    model, inputs, w = prepare({"name": "rnn", **options}, "frame", rng)
    rows = [lstm(both_ways("lstm", x, w, "rnn1")[0], w, "rnn2")[1][1] for x in clips(inputs)]
    check(model, inputs, dense(np.stack(rows), w, "logits"))
    assert w["rnn1_forward/lstm_cell/recurrent_kernel"].shape == (5, 20)


def test_bidirectional_to_the_top(rng):
    options = {"hidden_sizes": [10, 8], "bidirectional_layers": 2, "cell_state": True}
    model, inputs, w = prepare({"name": "rnn", **options}, "frame", rng)
    rows = []
    for x in clips(inputs):
        _, (_, forward, _, backward) = both_ways("lstm", both_ways("lstm", x, w, "rnn1")[0], w, "rnn2")
        rows.append(np.concatenate([forward, backward]))
    check(model, inputs, mixture(np.stack(rows), w))


def test_late_fusion_of_gated_grus(rng):
    options = {
        "cell": "gru",
        "hidden_sizes": [10, 9],
        "bidirectional_layers": 1,
        "late_fusion": True,
        "feature_hidden_sizes": {"audio": [4, 6]},
        "input_projection": True,
        "context_gating": True,
    }
    model, inputs, w = prepare({"name": "rnn", **options}, "frame", rng)
    states = []
    for name in FEATURES:
        rows = []
        for x in clips(inputs, (name,)):
            for part in ("input_bn", "dense", "bn"):
                layer = f"{name}_projection_{part}"
                if part == "dense":
                    x = dense(x, w, layer)
                else:
                    x = (x - w[f"{layer}/moving_mean"]) / np.sqrt(w[f"{layer}/moving_variance"] + 1e-5)
                    x = x * w[f"{layer}/gamma"] + w.get(f"{layer}/beta", 0.0)
            x, _ = both_ways("gru", np.clip(x, 0, 6), w, f"{name}_rnn1")
            rows.append(gru(x, w, f"{name}_rnn2")[1][0])
        states.append(np.stack(rows))
    x = np.concatenate(states, axis=1)
    assert x.shape == (BATCH_SIZE, 9 + 6)
    check(model, inputs, mixture(x * sigmoid(dense(x, w, "state_gate")), w))


@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        ({"name": "early_concat_rnn", "num_layers": 3, "hidden_size": 4, "dense": True}, 3),
        ({"name": "lstm_bi_attention"}, 4),
        ({"name": "rnn", "cell": "gru", "hidden_sizes": [4, 4], "bidirectional_layers": 1, "late_fusion": True}, 6),
    ],
)
def test_all_frames_run_on_cudnn_where_there_is_a_gpu(options, kernels, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: [tf.config.LogicalDevice("/device:GPU:0", "GPU")])
    model = build_model(options, InputSpec("frame", FEATURES, NUM_CLASSES, MAX_FRAMES))
    signature = {name: tf.TensorSpec((2, MAX_FRAMES, size)) for name, size in FEATURES.items()}
    signature["num_frames"] = tf.TensorSpec((2,), tf.int32)
    graph = tf.function(model).get_concrete_function(signature).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    operations = collections.Counter(node.op for node in nodes)
    assert operations["CudnnRNNV3"] == kernels
    assert not [name for name in operations if "While" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "early_concat_rnn", "num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"name": "early_concat_rnn", "cell": "rnn"}, "model.cell.*one of lstm, gru"),
        ({"name": "lstm_bi_attention", "dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"name": "rnn", "hidden_sizes": []}, r"hidden_sizes must hold numbers from 1, one a layer, got \(\)"),
        ({"name": "rnn", "hidden_sizes": [4, 0]}, r"hidden_sizes must hold numbers from 1, one a layer, got \(4, 0\)"),
        ({"name": "rnn", "hidden_sizes": [7, 4], "bidirectional_layers": 1}, "must be even .*, got 7"),
        ({"name": "rnn", "bidirectional_layers": 3}, "must be at most the number of layers, got 3"),
        ({"name": "rnn", "cell": "gru", "cell_state": True}, "cell_state must be false with cell gru"),
        ({"name": "rnn", "feature_hidden_sizes": {"audio": [8]}}, "feature_hidden_sizes needs late_fusion"),
    ],
)
def test_options_out_of_range_are_one_line_errors(options, message):
    with pytest.raises(registry.InputError, match=message) as error:
        registry.model_config(options)
    assert "\n" not in str(error.value)
