"""The loops of LSTMs and GRUs against those of Keras, and against plain loops in NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.layers import recurrent

B, T, D, H = 3, 4, 3, 2
LENGTHS = np.array([4, 1, 3])
MASK = np.arange(T) < LENGTHS[:, None]
CELLS = {"lstm": (keras.layers.LSTM, recurrent.LSTM, 2), "gru": (keras.layers.GRU, recurrent.GRU, 1)}
every_cell = pytest.mark.parametrize("kind", CELLS)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def one_frame(kind: str, x: np.ndarray, states: list[np.ndarray], weights: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the states of one clip after a frame x [D]."""
    kernel, recurrent_kernel, bias = weights
    if kind == "gru":
        (h,) = states
        (x_z, x_r, x_n), (h_z, h_r, h_n) = (
            np.split(values, 3) for values in (x @ kernel + bias[0], h @ recurrent_kernel + bias[1])
        )
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        return [z * h + (1 - z) * np.tanh(x_n + r * h_n)]
    h, c = states
    i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def plain_loops(kind: str, backwards: bool, values: list[np.ndarray]) -> list[np.ndarray]:
    """Loops over clips and frames: outputs [B, T, H] in the order read, zero in the padding; last states."""
    x, *initial = values[:-3]
    outputs, last = np.zeros((B, T, H)), [np.zeros((B, H)) for _ in initial]
    for clip in range(B):
        states = [state[clip] for state in initial]
        for position, t in enumerate(reversed(range(T)) if backwards else range(T)):
            if MASK[clip, t]:
                states = one_frame(kind, x[clip, t], states, values[-3:])
                outputs[clip, position] = states[0]
        for state, value in zip(last, states, strict=True):
            state[clip] = value
    return [outputs, *last]


def random_values(kind: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Inputs, initial states, kernel, recurrent kernel, bias."""
    gates = {"lstm": 4, "gru": 3}[kind] * H
    bias = (gates,) if kind == "lstm" else (2, gates)
    shapes = [(B, T, D), *[(B, H)] * CELLS[kind][2], (D, gates), (H, gates), bias]
    return [rng.normal(size=shape) for shape in shapes]


def make(layer_type: type[keras.layers.RNN], values: list[np.ndarray], dtype: str = "float64", **arguments: Any) -> Any:
    layer = layer_type(H, return_state=True, dtype=dtype, **arguments)
    layer.build(values[0].shape)
    for variable, value in zip(layer.trainable_variables, values[-3:], strict=True):
        variable.assign(value)
    return layer


def run(layer: Any, mask: Any, training: bool, upstream: list[np.ndarray], *inputs: Any) -> tuple[list[Any], list[Any]]:
    """Outputs and states; gradients of inputs, initial states and weights for the output sum weighted by `upstream`."""
    weights = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs[0], initial_state=list(inputs[1:]), mask=mask, training=training)
        total = tf.add_n([tf.reduce_sum(x * w) for x, w in zip(outputs, upstream, strict=False)])
    return list(outputs), tape.gradient(total, [*inputs, *weights])


def assert_all_close(actual: list[Any], expected: list[Any], **tolerance: float) -> None:
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


@pytest.mark.parametrize(
    ("kind", "backwards", "sequences", "masked", "training"),
    [
        ("lstm", False, True, True, True),
        ("lstm", True, True, False, True),
        ("lstm", True, False, True, True),
        ("gru", True, True, True, True),
        ("gru", False, False, True, True),
        ("gru", True, True, True, False),
    ],
)
def test_outputs_states_and_all_gradients_are_those_of_keras(
    kind: str, backwards: bool, sequences: bool, masked: bool, training: bool, rng: np.random.Generator
) -> None:
    values = random_values(kind, rng)
    upstream = [rng.normal(size=(B, T, H) if sequences else (B, H)), *(rng.normal(size=(B, H)) for _ in range(2))]
    inputs = [tf.constant(value) for value in values[:-3]]
    arguments = {"go_backwards": backwards, "return_sequences": sequences, "zero_output_for_mask": sequences}
    theirs, ours = (make(layer_type, values, name=kind, **arguments) for layer_type in CELLS[kind][:2])
    assert [weight.path for weight in ours.weights] == [weight.path for weight in theirs.weights]
    mask = MASK if masked else None
    expected, found = (run(layer, mask, training, upstream, *inputs) for layer in (theirs, ours))
    for one, other in zip(found, expected, strict=True):
        assert_all_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "jit"), [("lstm", False), ("gru", False), pytest.param("lstm", True, marks=pytest.mark.slow)]
)
def test_graphs_with_one_product_a_frame(kind: str, jit: bool, rng: np.random.Generator) -> None:
    """Graphs, of any size without XLA, equal loops in NumPy, and their gradients equal finite differences."""
    values = random_values(kind, rng)
    upstream = [rng.normal(size=(B, T, H)), *(rng.normal(size=(B, H)) for _ in values[1:-3])]
    layer = make(CELLS[kind][1], values, go_backwards=jit, return_sequences=True, zero_output_for_mask=True)
    shapes = [value.shape if jit else (None, *(None, D)[: value.ndim - 2], value.shape[-1]) for value in values[:-3]]
    traced = tf.function(lambda mask, *inputs: run(layer, mask, True, upstream, *inputs), jit_compile=jit)
    traced = traced.get_concrete_function(
        tf.TensorSpec((B, T) if jit else (None, None), tf.bool), *(tf.TensorSpec(s, tf.float64) for s in shapes)
    )
    bodies = [
        [node.op for node in function.node_def]
        for function in traced.graph.as_graph_def().library.function
        if "while_body" in function.signature.name
    ]
    assert [operations.count("MatMul") for operations in bodies] == [1, 1]
    outputs, gradients = traced(tf.constant(MASK), *(tf.constant(value) for value in values[:-3]))
    assert_all_close(outputs, plain_loops(kind, jit, values), rtol=1e-10, atol=1e-12)

    def total(moved: list[np.ndarray]) -> float:
        return sum(float(np.sum(x * w)) for x, w in zip(plain_loops(kind, jit, moved), upstream, strict=True))

    for number, gradient in enumerate(gradients):
        direction, step = rng.normal(size=values[number].shape), 1e-5
        ends = [
            total([*values[:number], values[number] + way * direction, *values[number + 1 :]]) for way in (step, -step)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        assert float(np.sum(gradient * direction)) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@every_cell
def test_gradients_in_16_bits_are_those_of_float32_except_for_rounding(kind: str, rng: np.random.Generator) -> None:
    values = [value.astype("float32") for value in random_values(kind, rng)]
    found = []
    for dtype, compute in (("float32", tf.float32), ("mixed_float16", tf.float16)):
        layer = make(CELLS[kind][1], values, dtype)
        inputs = [tf.constant(value, compute) for value in values[:-3]]
        outputs, gradients = run(layer, tf.constant(MASK), True, [np.ones((B, H), compute.as_numpy_dtype)], *inputs)
        assert all(x.dtype == compute for x in outputs)
        assert all(x.dtype == "float32" for x in gradients[-3:])
        found.append([tf.cast(x, tf.float32) for x in [*outputs, *gradients]])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=0.01 * np.abs(other).max())


@pytest.mark.parametrize(("kind", "arguments"), [("lstm", {"activation": "relu"}), ("gru", {"unroll": True})])
def test_options_unknown_to_the_loop_are_left_to_keras(
    kind: str, arguments: dict[str, Any], rng: np.random.Generator
) -> None:
    values = random_values(kind, rng)
    theirs, ours = (make(layer_type, values, **arguments)(values[0]) for layer_type in CELLS[kind][:2])
    assert_all_close(ours, theirs, rtol=1e-12, atol=0)
