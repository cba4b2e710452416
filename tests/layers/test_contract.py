"""The contract of every layer. A new layer needs one line in `CASES`."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf import layers
from yt8m_tf.layers.attention import FrameClipDense, PositionedSelfAttention
from yt8m_tf.layers.attention_pooling import AttentionPooling
from yt8m_tf.layers.bilinear import Bilinear
from yt8m_tf.layers.codebook import Codebook
from yt8m_tf.layers.frame_batch_norm import FrameBatchNormalization
from yt8m_tf.layers.frame_combinations import FrameCombinations
from yt8m_tf.layers.frame_convolution import ZeroPadding
from yt8m_tf.layers.frame_sorting import RankDenseNormalization, RankScores, SortedFrames
from yt8m_tf.layers.frame_statistics import FrameStatistics
from yt8m_tf.layers.kernel_ridge import KernelRidge, ScoreCalibration
from yt8m_tf.layers.moe import MixtureOfExperts
from yt8m_tf.layers.neighbors import NeighborVotes, SmoothedLogOdds
from yt8m_tf.layers.noise import GaussianNoise
from yt8m_tf.layers.power import SignedPower
from yt8m_tf.layers.recurrent import GRU, LSTM
from yt8m_tf.layers.sparse_kernel import SparseKernelRidge
from yt8m_tf.layers.trees import BoostedTrees
from yt8m_tf.layers.vlad import VLAD, FisherVectors

B, T, D = 3, 6, 5
MASK = np.arange(T) < np.array([6, 1, 4])[:, None]
C = 7  # classes

Inputs = list[Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, and how to call it.

    Attributes:
      layer: its class.
      arguments: arguments of its constructor.
      inputs: makes the call arguments from a generator; all float32 except masks.
      float32: for each output, whether it stays float32 under mixed precision.
      padded: whether the first input consists of frames, whose padding must not matter.
      of_frames: whether the output consists of frames, whose padding is unused.
    """

    layer: type[keras.layers.Layer]
    arguments: dict[str, Any]
    inputs: Callable[[np.random.Generator], Inputs]
    float32: tuple[bool, ...] = (False,)
    padded: bool = False
    of_frames: bool = False


def normal(*shapes: Sequence[int]) -> Callable[[np.random.Generator], Inputs]:
    """Inputs with these shapes after the batch dimension."""
    return lambda rng: [rng.normal(size=(B, *shape)).astype("float32") for shape in shapes]


def masked(rng: np.random.Generator) -> Inputs:
    return [*normal((T, D))(rng), MASK]


def parts(rng: np.random.Generator) -> Inputs:
    """Two features of the frames, and the mask."""
    return [normal((T, 2), (T, 3))(rng), MASK]


def assigned(rng: np.random.Generator) -> Inputs:
    """Frames, and an assignment to 4 clusters that is zero in the padding."""
    return [*normal((T, D))(rng), (rng.uniform(size=(B, T, 4)) * MASK[:, :, None]).astype("float32")]


CASES = [
    Case(AttentionPooling, {}, parts, padded=True),
    Case(Bilinear, {"units": 4}, normal((D,), (3,))),
    Case(Codebook, {"num_clusters": 9}, parts, float32=(True,), padded=True),
    Case(FisherVectors, {}, assigned, float32=(True, True), padded=True),
    Case(FrameBatchNormalization, {"momentum": 0.8}, masked, padded=True, of_frames=True),
    Case(FrameClipDense, {"units": 4}, normal((T, D), (2,))),
    Case(FrameCombinations, {"head_size": 3, "max_frames": 8}, masked, padded=True),
    Case(FrameStatistics, {"statistics": ("std", "max", "mode")}, masked, float32=(True,), padded=True),
    Case(GaussianNoise, {"scale": 0.5, "kind": "mean_abs", "always": True}, normal((D,))),
    Case(GRU, {"units": 4}, normal((T, D))),
    Case(
        KernelRidge,
        {"num_classes": C, "capacity": 8, "shares": (1.0, 0.5), "gamma": 0.5, "ridge": 0.01},
        lambda rng: [normal((3,), (2,))(rng)],
        float32=(True,),
    ),
    Case(LSTM, {"units": 4, "return_sequences": True, "go_backwards": True}, normal((T, D))),
    Case(MixtureOfExperts, {"num_classes": C, "num_mixtures": 3, "l2": 0.1}, normal((D,)), float32=(True,)),
    Case(
        NeighborVotes,
        {
            "num_classes": C,
            "capacity": 8,
            "num_neighbors": 8,
            "shares": (1.0, 0.5),
            "temperature": 2.0,
            "sharpness": 1.5,
        },
        lambda rng: [normal((3,), (2,))(rng)],
        float32=(True,),
    ),
    Case(
        PositionedSelfAttention,
        {"head_size": 4, "num_heads": 2, "max_length": 9},
        masked,
        padded=True,
        of_frames=True,
    ),
    Case(RankDenseNormalization, {"units": 4, "max_frames": 8}, normal((T,), (T, T)), float32=(True, True)),
    Case(
        RankScores,
        {"dropout": 0.25},
        lambda rng: [*normal((C, T))(rng), *(rng.normal(size=size).astype("float32") for size in ((T, 4), (4,)))],
        float32=(True,),
    ),
    Case(ScoreCalibration, {}, normal((C,)), float32=(True,)),
    Case(SignedPower, {"power": 2.0}, normal((D,)), float32=(True,)),
    Case(SmoothedLogOdds, {"mixing": 0.2}, lambda rng: [rng.uniform(size=(B, C)).astype("float32")], float32=(True,)),
    Case(SortedFrames, {}, masked, float32=(False, True, True), padded=True),
    Case(
        SparseKernelRidge,
        {
            "num_classes": C,
            "capacity": 8,
            "shares": (1.0, 0.5),
            "gamma": 0.5,
            "ridge": 0.03,
            "components": 4,
            "centres": 3,
            "duals_per_video": 2,
        },
        lambda rng: [normal((3,), (2,))(rng)],
        float32=(True,),
    ),
    Case(VLAD, {"use_centres": True}, assigned, padded=True),
    Case(ZeroPadding, {"min_frames": 8}, masked, padded=True),
]
every_layer = pytest.mark.parametrize("case", CASES, ids=lambda case: case.layer.__name__)


def test_every_layer_is_tested() -> None:
    found = set()
    for module in pkgutil.iter_modules(layers.__path__, f"{layers.__name__}."):
        for name, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if member.__module__ == module.name and issubclass(member, keras.layers.Layer) and name[0] != "_":
                found.add(member)
    # Trees are built by stacking, not trained, and return float64: see tests/stacking/test_forest.py.
    assert found == {case.layer for case in CASES} | {BoostedTrees}


def build(case: Case, inputs: Inputs, rng: np.random.Generator) -> keras.layers.Layer:
    """The layer with random weights."""
    layer = case.layer(**case.arguments, name="layer")
    layer(*inputs)
    for variable in layer.weights:
        if variable.name in ("moving_variance", "scales"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif variable.dtype in ("int32", "uint16"):
            variable.assign(rng.integers(0, C, variable.shape))
        elif variable.name != "seed_generator_state":
            variable.assign(rng.normal(size=variable.shape))
    return layer


def outputs_of(layer: Callable[..., Any], inputs: Inputs) -> list[tf.Tensor]:
    return tf.nest.flatten(layer(*inputs))


@every_layer
def test_round_trip_through_a_file(case: Case, rng: np.random.Generator, tmp_path: Path) -> None:
    """The loaded layer has the same configuration, weights and outputs."""
    inputs = case.inputs(rng)
    layer = build(case, inputs, rng)
    symbolic = tf.nest.map_structure(
        lambda array: keras.Input(array.shape[1:], array.shape[0], dtype=str(array.dtype)), inputs
    )
    model = keras.Model(tf.nest.flatten(symbolic), layer(*symbolic))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    copy = loaded.get_layer("layer")
    assert type(copy) is case.layer
    assert json.dumps(copy.get_config()) == json.dumps(layer.get_config())  # JSON turns tuples into lists
    assert keras.saving.serialize_keras_object(copy)["registered_name"] == f"yt8m_tf>{case.layer.__name__}"
    assert [v.path for v in loaded.trainable_weights] == [v.path for v in model.trainable_weights]
    for one, other in zip(outputs_of(copy, inputs), outputs_of(layer, inputs), strict=True):
        np.testing.assert_array_equal(one, other)


@every_layer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_types_under_mixed_precision(case: Case, policy: str, rng: np.random.Generator) -> None:
    """Weights stay float32; outputs have the declared precision, and differ from float32 only by rounding."""
    inputs = case.inputs(rng)
    expected = build(case, inputs, rng)
    keras.config.set_dtype_policy(policy)
    try:
        layer = case.layer(**case.arguments, name="layer")
    finally:
        keras.config.set_dtype_policy("float32")
    compute = keras.DTypePolicy(policy).compute_dtype
    given = tf.nest.map_structure(  # inputs without a batch dimension are weights of another layer
        lambda x: tf.cast(x, compute) if x.dtype != bool and len(x) == B else tf.constant(x), inputs
    )
    layer(*given)
    for variable, value in zip(layer.weights, expected.weights, strict=True):
        variable.assign(value)
    rounded = tf.nest.map_structure(lambda x: x if x.dtype == bool else tf.cast(x, "float32").numpy(), given)
    pairs = zip(case.float32, outputs_of(layer, given), outputs_of(expected, rounded), strict=True)
    for is_float32, output, exact in pairs:
        assert output.dtype == ("float32" if is_float32 else compute)
        values = tf.cast(output, "float32").numpy()
        assert np.isfinite(values).all()
        keep = MASK if case.of_frames else ...
        np.testing.assert_allclose(values[keep], exact.numpy()[keep], rtol=0, atol=0.05 * np.abs(exact).max())
    assert all(variable.dtype == "float32" for variable in layer.trainable_weights)


@every_layer
def test_gradients(case: Case, rng: np.random.Generator) -> None:
    """Every weight has a gradient; along one direction of all weights it matches finite differences."""
    inputs = case.inputs(rng)
    layer = build(case, inputs, rng)
    upstream = [rng.normal(size=output.shape).astype("float32") for output in outputs_of(layer, inputs)]
    if case.of_frames:
        upstream = [weights * MASK[:, :, None] for weights in upstream]

    def value() -> tf.Tensor:
        return tf.add_n([tf.reduce_sum(x * w) for x, w in zip(outputs_of(layer, inputs), upstream, strict=True)])

    with tf.GradientTape() as tape:
        total = value()
    weights = layer.trainable_weights
    gradients = tape.gradient(total, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-6, weight.path
    if not weights:
        return
    # Half of the direction is the gradient itself, so the difference is well above rounding errors.
    size = float(tf.linalg.global_norm(gradients))
    noise = [rng.normal(size=weight.shape) for weight in weights]
    length = float(np.sqrt(sum(np.sum(x**2) for x in noise)))
    direction = [np.asarray(g) / size + x / length for g, x in zip(gradients, noise, strict=True)]
    start = [weight.numpy() for weight in weights]
    ends = []
    for step in (3e-3, -3e-3):
        for weight, old, way in zip(weights, start, direction, strict=True):
            weight.assign(old + step * way)
        ends.append(float(value()))
    expected = sum(float(np.sum(np.asarray(g) * way)) for g, way in zip(gradients, direction, strict=True))
    assert (ends[0] - ends[1]) / 6e-3 == pytest.approx(expected, rel=2e-2, abs=1e-2 * size)


def modes(case: Case) -> list[dict[str, bool]]:
    """Keyword arguments for inference and for training, if the layer distinguishes them."""
    knows = "training" in inspect.signature(case.layer.call).parameters
    return [{"training": False}, {"training": True}] if knows else [{}]


@pytest.mark.parametrize(
    ("case", "arguments"),
    [
        pytest.param(case, mode, id=case.layer.__name__ + "-training" * mode.get("training", False))
        for case in CASES
        if case.padded
        for mode in modes(case)
    ],
)
def test_padding_changes_nothing(case: Case, arguments: dict[str, bool], rng: np.random.Generator) -> None:
    frames, *rest = case.inputs(rng)
    layer = build(case, [frames, *rest], rng)
    reference, other = (
        tf.nest.flatten(layer(tf.nest.map_structure(fill(value), frames), *rest, **arguments)) for value in (0.0, 100.0)
    )
    keep = MASK if case.of_frames else ...
    for one, two in zip(reference, other, strict=True):
        np.testing.assert_allclose(np.asarray(two)[keep], np.asarray(one)[keep], rtol=1e-5, atol=1e-5)


def fill(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that replaces the padding of frames by a value."""
    return lambda frames: np.where(MASK[:, :, None], frames, np.float32(value))
