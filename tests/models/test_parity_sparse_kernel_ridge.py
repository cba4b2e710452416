"""Kernel ridge regression with few duals against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, clip_vector, directions, prepare

COUNT, CENTRES = 40, 7


@pytest.mark.parametrize("level", ["video", "frame"])
def test_sparse_kernel_ridge(level, rng):
    options = {"name": "sparse_kernel_ridge", "capacity": COUNT + 5, "shares": {"audio": 0.7}, "gamma": 0.9}
    options |= {"ridge": 0.2, "components": 6, "centres": CENTRES, "duals_per_video": 2}
    model, inputs, _ = prepare(options, level, rng)
    memory = [rng.normal(size=(COUNT, size)).astype("float32") for size in FEATURES.values()]
    targets = rng.uniform(size=(COUNT, NUM_CLASSES)) < 0.3
    model.get_layer("memory").remember(memory, [np.flatnonzero(own) for own in targets])
    layer = model.get_layer("logits")
    for variable in layer.trainable_weights:
        variable.assign(rng.normal(size=variable.shape))
    w = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    lengths = np.repeat([1.0, 0.7], [*FEATURES.values()])
    points = (directions(clip_vector(inputs), w["memory/means"]) * lengths) @ w["memory/projection"]
    points *= np.sqrt(1.49) / np.linalg.norm(points, axis=1, keepdims=True)
    kernel = np.exp(-0.45 * np.sum((points[:, None] - w["memory/keys"][None]) ** 2, axis=2))
    f = kernel[:, :CENTRES] @ w["memory/centre_duals"] + w["memory/bias"]
    groups = zip(w["memory/dual_values"], w["memory/dual_videos"].astype(int), w["memory/dual_classes"], strict=True)
    for values, videos, column in groups:
        f[:, int(column)] += kernel[:, videos] @ values
    p = w["logits/bias"]
    g = np.log(np.maximum(f, 0.03) / 0.03)
    expected = (w["logits/gain"] + w["logits/prior_gain"] * p) * f + w["logits/prior_scale"] * p + w["logits/offset"]
    expected = expected + (w["logits/log_gain"] + w["logits/prior_log_gain"] * p) * g
    check(model, inputs, expected)
