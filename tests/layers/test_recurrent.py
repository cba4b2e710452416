import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import recurrent

SIZE, HIDDEN_SIZE = 5, 4
NUM_FRAMES = np.array([3, 1, 6, 4], "int32")
every_kind = pytest.mark.parametrize(
    ("cell", "bidirectional"), [(cell, way) for cell in ("lstm", "gru") for way in (False, True)]
)


def build(cell, bidirectional, sequences):
    """A model of one layer, which outputs the layer's outputs, then its states."""
    inputs = {
        "num_frames": keras.Input((), dtype="int32", name="num_frames"),
        "rgb": keras.Input((None, SIZE), name="rgb"),
    }
    mask = recurrent.clip_mask(inputs)
    outputs, states = recurrent.masked_rnn(
        inputs["rgb"], mask, cell, HIDDEN_SIZE, "rnn", sequences=sequences, bidirectional=bidirectional
    )
    return keras.Model(inputs, [outputs, *states])


def clip_by_clip(model, frames, bidirectional):
    """Runs the layers of `model` over each clip alone, cut to its length and reversed by hand, without a mask."""
    names = {"rnn_forward": 1, "rnn_backward": -1} if bidirectional else {"rnn": 1}
    rows = []
    for clip, count in zip(frames, NUM_FRAMES, strict=True):
        directions = []
        for name, step in names.items():
            cell = model.get_layer(name).cell
            state = cell.get_initial_state(1)
            outputs = []
            for frame in clip[:count][::step]:
                _, state = cell(frame[None], state)
                outputs.append(np.asarray(state[0])[0])
            directions.append((np.stack(outputs)[::step], [np.asarray(value)[0] for value in state]))
        rows.append(directions)
    return rows


@pytest.mark.parametrize(
    ("cell", "bidirectional", "jit", "length"),
    [
        ("lstm", False, False, 6),
        ("gru", False, False, 9),
        ("lstm", True, False, 9),
        ("gru", True, False, 6),
        ("lstm", True, True, 6),
        ("gru", True, True, 9),
    ],
)
def test_padding_is_left_out_in_both_directions(cell, bidirectional, jit, length, rng):
    model = build(cell, bidirectional, sequences=True)
    frames = rng.normal(size=(4, length, SIZE)).astype("float32")
    outputs, *states = tf.function(model, jit_compile=jit)({"rgb": frames, "num_frames": NUM_FRAMES})
    for i, directions in enumerate(clip_by_clip(model, frames, bidirectional)):
        expected = np.zeros((length, HIDDEN_SIZE * len(directions)))
        expected[: NUM_FRAMES[i]] = np.concatenate([sequence for sequence, _ in directions], axis=1)
        np.testing.assert_allclose(outputs[i], expected, rtol=1e-5, atol=1e-6)
        last = [state for _, direction_states in directions for state in direction_states]
        np.testing.assert_allclose([state[i] for state in states], last, rtol=1e-5, atol=1e-6)


@every_kind
def test_without_sequences_the_outputs_are_the_last_ones_read(cell, bidirectional, rng):
    model = build(cell, bidirectional, sequences=False)
    frames = rng.normal(size=(4, 7, SIZE)).astype("float32")
    outputs, *states = model({"rgb": frames, "num_frames": NUM_FRAMES})
    last_h = states[:: 2 if cell == "lstm" else 1]
    np.testing.assert_array_equal(outputs, np.concatenate(last_h, axis=1))
    for i, directions in enumerate(clip_by_clip(model, frames, bidirectional)):
        expected = np.concatenate([direction_states[0] for _, direction_states in directions])
        np.testing.assert_allclose(outputs[i], expected, rtol=1e-5, atol=1e-6)


def test_clip_mask_gives_every_clip_a_frame():
    inputs = {"rgb": np.zeros((3, 3, 2), "float32"), "num_frames": np.array([0, 1, 2], "int32")}
    np.testing.assert_array_equal(recurrent.clip_mask(inputs), [[1, 0, 0], [1, 0, 0], [1, 1, 0]])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_initial_weights_are_uniform_in_the_inverse_root_of_the_size_and_all_different(cell):
    inputs = keras.Input((3, 100))
    layers = [recurrent.recurrent_layer(cell, 100, name) for name in ("a", "b")]
    keras.Model(inputs, [layer(inputs) for layer in layers])
    kernels = [np.asarray(kernel) for layer in layers for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel)]
    for i, kernel in enumerate(kernels):
        assert 0.0999 < np.abs(kernel).max() <= 0.1
        assert kernel.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.03)  # of 30,000 draws: six sigma
        assert all(np.abs(kernel - other).max() > 0.05 for other in kernels[:i])
    assert 0.08 < np.abs(layers[0].cell.bias).max() <= 0.1


def test_forget_bias_of_one_is_optional():
    inputs = keras.Input((None, SIZE))
    mask = keras.Input((None,), dtype="bool")
    for choice in (False, True):
        outputs, _ = recurrent.masked_rnn(
            inputs, mask, "lstm", 3, "rnn", sequences=False, bidirectional=True, unit_forget_bias=choice
        )
        for layer in keras.Model([inputs, mask], outputs).layers:
            if isinstance(layer, keras.layers.LSTM):
                bias = np.asarray(layer.cell.bias)
                np.testing.assert_array_equal(bias == 1.0, [False] * 3 + [choice] * 3 + [False] * 6)


def traced_operations(model):
    """The number of operations of each kind in the graph of a model."""
    signature = {"rgb": tf.TensorSpec((2, 6, SIZE)), "num_frames": tf.TensorSpec((2,), tf.int32)}
    graph = tf.function(lambda inputs: model(inputs)).get_concrete_function(signature).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return collections.Counter(node.op for node in nodes)


@every_kind
def test_cudnn_is_used_on_a_gpu(cell, bidirectional, monkeypatch):
    # Keras reads the list of devices when a layer is created and when it is traced; the graph is not run here.
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: [tf.config.LogicalDevice("/device:GPU:0", "GPU")])
    model = build(cell, bidirectional, sequences=True)
    operations = traced_operations(model)
    assert operations["CudnnRNNV3"] == 1 + bidirectional
    assert operations["While"] + operations["StatelessWhile"] == 0
    recurrent.forbid_fused_kernels(model)
    operations = traced_operations(model)
    assert operations["CudnnRNNV3"] == 0
    assert operations["While"] + operations["StatelessWhile"] >= 1 + bidirectional
