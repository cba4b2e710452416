"""Kernel ridge regression against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, prepare

COUNT = 40


@pytest.mark.parametrize("level", ["video", "frame"])
def test_kernel_ridge(level, rng):
    options = {"name": "kernel_ridge", "capacity": COUNT + 5, "shares": {"audio": 0.7}, "gamma": 0.9, "ridge": 0.2}
    model, inputs, _ = prepare(options, level, rng)
    memory = [rng.normal(size=(COUNT, size)).astype("float32") for size in FEATURES.values()]
    targets = rng.uniform(size=(COUNT, NUM_CLASSES)) < 0.3
    model.get_layer("memory").remember(memory, [np.flatnonzero(own) for own in targets])
    layer = model.get_layer("logits")
    for variable in layer.trainable_weights:
        variable.assign(rng.normal(size=variable.shape))
    w = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    if level == "frame":
        counts = inputs["num_frames"]
        means = [[x[:n].mean(axis=0) for x, n in zip(inputs[name], counts, strict=True)] for name in FEATURES]
    else:
        means = [inputs[name] for name in FEATURES]

    def points(features):
        centred = [np.asarray(x, "float64") - m.mean(axis=0) for x, m in zip(features, memory, strict=True)]
        lengths = {"rgb": 1.0, "audio": 0.7}
        return np.concatenate(
            [lengths[n] * x / np.linalg.norm(x, axis=1, keepdims=True) for n, x in zip(FEATURES, centred, strict=True)],
            axis=1,
        )

    def kernel(x, z):
        return np.exp(-0.45 * np.sum((x[:, None] - z[None]) ** 2, axis=2))

    keys = points(memory)
    duals = np.linalg.inv(kernel(keys, keys) + 0.2 * np.eye(COUNT)) @ targets
    f, p = kernel(points(means), keys) @ duals, w["logits/bias"]
    g = np.log(np.maximum(f, 0.003) / 0.003)
    expected = (w["logits/gain"] + w["logits/prior_gain"] * p) * f + w["logits/prior_scale"] * p + w["logits/offset"]
    expected = expected + (w["logits/log_gain"] + w["logits/prior_log_gain"] * p) * g
    check(model, inputs, expected)
