"""Each model against an independent float64 NumPy forward pass, written from the papers' descriptions.

The weights are fetched by their paths. Tolerance: 1e-5 of the largest output, float32 against float64.
"""

import keras
import numpy as np
import pytest

from yt8m_tf.models import build_model
from yt8m_tf.schema import InputSpec

FEATURES, NUM_CLASSES, MAX_FRAMES = {"rgb": 24, "audio": 10}, 11, 13
BATCH_SIZE = 6


def prepare(options, level, rng):
    """The model with random weights and statistics, inputs, and the weights by path in float64."""
    keras.utils.set_random_seed(int(rng.integers(2**31)))
    model = build_model(options, InputSpec(level, FEATURES, NUM_CLASSES, MAX_FRAMES))
    for variable in model.weights:
        name = variable.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(size=variable.shape))
    shape = (BATCH_SIZE,) if level == "video" else (BATCH_SIZE, MAX_FRAMES)
    inputs = {name: rng.normal(size=(*shape, size)).astype("float32") for name, size in FEATURES.items()}
    if level == "frame":
        inputs["num_frames"] = rng.integers(1, MAX_FRAMES + 1, BATCH_SIZE).astype("int32")
    return model, inputs, {variable.path: np.asarray(variable, "float64") for variable in model.weights}


def check(model, inputs, expected):
    outputs = model(inputs, training=False).numpy()
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(x, w, name):
    return x @ w[f"{name}/kernel"] + w.get(f"{name}/bias", 0.0)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def fc_block(x, w, name):
    x = dense(x, w, f"{name}_dense")
    mean, variance = w[f"{name}_bn/moving_mean"], w[f"{name}_bn/moving_variance"]
    return leaky((x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}_bn/gamma"] + w[f"{name}_bn/beta"])


def res_block(x, w, name):
    return leaky(x + dense(fc_block(x, w, f"{name}_inner"), w, f"{name}_outer"))


def resnet_like(branches, w, av_blocks, concat_blocks, gate=False):
    outputs = {}
    for name, x in branches.items():
        x = fc_block(x, w, f"{name}_fc")
        for i in range(av_blocks):
            x = res_block(x, w, f"{name}_res{i + 1}")
        outputs[name] = x
    x = np.concatenate([outputs[name] for name in ("audio", "rgb") if name in outputs], axis=1)
    for i in range(concat_blocks):
        x = res_block(x, w, f"concat_res{i + 1}")
    logits = dense(fc_block(x, w, "concat_fc"), w, "logits")
    return logits * sigmoid(dense(logits, w, "context_gate")) if gate else logits


def clip_vector(inputs):
    """rgb beside audio; of clips, the means over real frames."""
    if "num_frames" not in inputs:
        return np.concatenate([inputs["rgb"], inputs["audio"]], axis=1).astype("float64")
    rows = []
    for i, count in enumerate(inputs["num_frames"]):
        parts = [inputs[name][i, :count].astype("float64").mean(axis=0) for name in ("rgb", "audio")]
        rows.append(np.concatenate(parts))
    return np.stack(rows)


@pytest.mark.parametrize("level", ["video", "frame"])
def test_logistic(level, rng):
    model, inputs, w = prepare({"name": "logistic"}, level, rng)
    check(model, inputs, dense(clip_vector(inputs), w, "logits"))


@pytest.mark.parametrize("level", ["video", "frame"])
def test_moe(level, rng):
    model, inputs, w = prepare({"name": "moe", "num_mixtures": 3}, level, rng)
    x = clip_vector(inputs)
    gates = np.exp((x @ w["logits/gate_kernel"]).reshape(BATCH_SIZE, NUM_CLASSES, 4))
    gates /= gates.sum(axis=2, keepdims=True)
    experts = (x @ w["logits/expert_kernel"] + w["logits/bias"]).reshape(BATCH_SIZE, NUM_CLASSES, 3)
    probability = (gates[:, :, :3] * sigmoid(experts)).sum(axis=2)
    check(model, inputs, np.log(probability / (1 - probability)))


@pytest.mark.parametrize(
    "options",
    [
        {"av_blocks": 1, "concat_blocks": 1},
        {"av_blocks": 3, "concat_blocks": 2, "video_part": 5, "audio_part": 3, "context_gating": True},
        {"av_blocks": 0, "concat_blocks": 0},
    ],
)
def test_resnet_like(options, rng):
    model, inputs, w = prepare({"name": "resnet_like", "inner_size": 16, **options}, "video", rng)
    gate = options.get("context_gating", False)
    check(model, inputs, resnet_like(inputs, w, options["av_blocks"], options["concat_blocks"], gate))
    rgb_width = 32 * options.get("video_part", 1) // (options.get("video_part", 1) + options.get("audio_part", 1))
    assert w["rgb_fc_dense/kernel"].shape == (24, rgb_width)
    assert w["audio_fc_dense/kernel"].shape == (10, 32 - rgb_width)
    assert w["concat_fc_dense/kernel"].shape == (32, 16)


def test_resnet_like_on_one_modality(rng):
    model = build_model({"name": "resnet_like", "inner_size": 16}, InputSpec("video", {"rgb": 24}, NUM_CLASSES))
    w = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    inputs = {"rgb": rng.normal(size=(BATCH_SIZE, 24)).astype("float32")}
    check(model, inputs, resnet_like(inputs, w, 1, 1))


def test_linear_combinations(rng):
    options = {"name": "linear_combinations", "head_size": 3, "resnet": {"inner_size": 16, "concat_blocks": 2}}
    model, inputs, w = prepare(options, "frame", rng)
    branches = {}
    for name in FEATURES:
        frames = inputs[name].astype("float64")
        for clip, count in zip(frames, inputs["num_frames"], strict=True):
            clip[count:] = 0.0
        along_time = dense(frames.transpose(0, 2, 1), w, f"{name}_combinations")  # [B, D, H]
        branches[name] = along_time.transpose(0, 2, 1).reshape(BATCH_SIZE, -1)  # one weighting after the other
    check(model, inputs, resnet_like(branches, w, 1, 2))


def test_mean_fcn(rng):
    model, inputs, w = prepare({"name": "mean_fcn", "hidden_sizes": [20, 18]}, "frame", rng)
    x = clip_vector(inputs)
    for i in (1, 2):
        x = np.maximum(dense(x, w, f"fcn{i}_dense"), 0)
    check(model, inputs, dense(x, w, "logits"))
