"""Kernel ridge regression against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, clip_vector, directions, prepare

COUNT, CENTRES = 40, 7
LENGTHS = np.repeat([1.0, 0.7], [*FEATURES.values()])


def remembering(options, level, rng):
    """Returns a model with a memory and a random calibration, inputs, the memory, its labels, and all weights."""
    common = {"capacity": COUNT + 5, "shares": {"audio": 0.7}, "gamma": 0.9, "ridge": 0.2}
    model, inputs, _ = prepare(options | common, level, rng)
    memory = [rng.normal(size=(COUNT, size)).astype("float32") for size in FEATURES.values()]
    targets = rng.uniform(size=(COUNT, NUM_CLASSES)) < 0.3
    model.get_layer("memory").remember(memory, [np.flatnonzero(own) for own in targets])
    for variable in model.get_layer("logits").trainable_weights:
        variable.assign(rng.normal(size=variable.shape))
    weights = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    return model, inputs, np.concatenate(memory, axis=1), targets, weights


def kernel(x, z):
    return np.exp(-0.45 * np.sum((x[:, None] - z[None]) ** 2, axis=2))


def calibrated(f, w, floor):
    p, g = w["logits/bias"], np.log(np.maximum(f, floor) / floor)
    expected = (w["logits/gain"] + w["logits/prior_gain"] * p) * f + w["logits/prior_scale"] * p + w["logits/offset"]
    return expected + (w["logits/log_gain"] + w["logits/prior_log_gain"] * p) * g


@pytest.mark.parametrize("level", ["video", "frame"])
def test_kernel_ridge(level, rng):
    model, inputs, videos, targets, w = remembering({"name": "kernel_ridge"}, level, rng)
    means = videos.mean(axis=0, dtype="float64")
    keys = directions(videos, means) * LENGTHS
    duals = np.linalg.inv(kernel(keys, keys) + 0.2 * np.eye(COUNT)) @ targets
    scores = kernel(directions(clip_vector(inputs), means) * LENGTHS, keys) @ duals
    check(model, inputs, calibrated(scores, w, 0.003))


@pytest.mark.parametrize("level", ["video", "frame"])
def test_sparse_kernel_ridge(level, rng):
    """Tests the forward pass; tests/layers/test_kernel_support.py tests how duals are found."""
    options = {"name": "sparse_kernel_ridge", "components": 6, "centres": CENTRES, "duals_per_video": 2}
    model, inputs, _, _, w = remembering(options, level, rng)
    points = (directions(clip_vector(inputs), w["memory/means"]) * LENGTHS) @ w["memory/projection"]
    points *= np.sqrt(1.49) / np.linalg.norm(points, axis=1, keepdims=True)
    found = kernel(points, w["memory/keys"])
    scores = found[:, :CENTRES] @ w["memory/centre_duals"] + w["memory/bias"]
    groups = zip(w["memory/dual_values"], w["memory/dual_videos"].astype(int), w["memory/dual_classes"], strict=True)
    for values, videos, column in groups:
        scores[:, int(column)] += found[:, videos] @ values
    check(model, inputs, calibrated(scores, w, 0.03))
