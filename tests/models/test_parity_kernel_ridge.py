"""Kernel ridge regression against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, clip_vector, directions, prepare

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
    videos = np.concatenate(memory, axis=1)
    means, lengths = videos.mean(axis=0, dtype="float64"), np.repeat([1.0, 0.7], [*FEATURES.values()])

    def kernel(x, z):
        return np.exp(-0.45 * np.sum((x[:, None] - z[None]) ** 2, axis=2))

    keys = directions(videos, means) * lengths
    duals = np.linalg.inv(kernel(keys, keys) + 0.2 * np.eye(COUNT)) @ targets
    f, p = kernel(directions(clip_vector(inputs), means) * lengths, keys) @ duals, w["logits/bias"]
    g = np.log(np.maximum(f, 0.003) / 0.003)
    expected = (w["logits/gain"] + w["logits/prior_gain"] * p) * f + w["logits/prior_scale"] * p + w["logits/offset"]
    expected = expected + (w["logits/log_gain"] + w["logits/prior_log_gain"] * p) * g
    check(model, inputs, expected)
