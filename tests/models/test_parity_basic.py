"""Linear models and the residual network against independent NumPy forward passes (see `reference`)."""

import numpy as np
import pytest
from reference import (
    BATCH_SIZE,
    FEATURES,
    NUM_CLASSES,
    check,
    clip_vector,
    dense,
    prepare,
    resnet_like,
    sigmoid,
)

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model


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
