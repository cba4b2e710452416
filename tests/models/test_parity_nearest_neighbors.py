"""The model of nearest neighbours against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, prepare, sigmoid

COUNT = 40


@pytest.mark.parametrize("level", ["video", "frame"])
def test_nearest_neighbors(level, rng):
    options = {"name": "nearest_neighbors", "capacity": COUNT, "num_neighbors": 6, "temperature": 4.0, "sharpness": 1.5}
    model, inputs, _ = prepare(options, level, rng)
    memory = [rng.normal(size=(COUNT, size)).astype("float32") for size in FEATURES.values()]
    labels = [rng.choice(NUM_CLASSES, rng.integers(1, 4), replace=False) for _ in range(COUNT)]
    model.get_layer("memory").remember(memory, labels)
    w = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    if level == "frame":
        counts = inputs["num_frames"]
        means = [[x[:n].mean(axis=0) for x, n in zip(inputs[name], counts, strict=True)] for name in FEATURES]
    else:
        means = [inputs[name] for name in FEATURES]

    def normalised(features):
        centred = [np.asarray(x, "float64") - m.mean(axis=0) for x, m in zip(features, memory, strict=True)]
        return np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in centred], axis=1)

    scales, keys = w["memory/scales"], normalised(memory)
    votes = np.zeros((len(means[0]), NUM_CLASSES))
    for b, query in enumerate(normalised(means)):
        distances = np.array([np.sum(((query - key) * scales) ** 2) for key in keys])
        nearest = np.argsort(distances)[:6]
        weights = np.exp(-1.5 * np.exp(w["memory/log_temperature"]) / 2 * distances[nearest])
        for n, weight in zip(nearest, weights / weights.sum(), strict=True):
            votes[b, labels[n]] += weight
    mixing = sigmoid(w["logits/mixing"])
    share = (1 - mixing) * votes + mixing * sigmoid(w["logits/bias"])
    check(model, inputs, w["logits/scale"] * np.log(share / (1 - share)))
