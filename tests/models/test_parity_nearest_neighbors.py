"""The model of nearest neighbours against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, NUM_CLASSES, check, clip_vector, directions, prepare, sigmoid

COUNT = 40


@pytest.mark.parametrize("level", ["video", "frame"])
def test_nearest_neighbors(level, rng):
    options = {"name": "nearest_neighbors", "capacity": COUNT, "num_neighbors": 6, "temperature": 4.0, "sharpness": 1.5}
    model, inputs, _ = prepare(options, level, rng)
    memory = [rng.normal(size=(COUNT, size)).astype("float32") for size in FEATURES.values()]
    labels = [rng.choice(NUM_CLASSES, rng.integers(1, 4), replace=False) for _ in range(COUNT)]
    model.get_layer("memory").remember(memory, labels)
    w = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    videos, queries = np.concatenate(memory, axis=1), clip_vector(inputs)
    means = videos.mean(axis=0, dtype="float64")
    scales, keys = w["memory/scales"], directions(videos, means)
    votes = np.zeros((len(queries), NUM_CLASSES))
    for b, query in enumerate(directions(queries, means)):
        distances = np.array([np.sum(((query - key) * scales) ** 2) for key in keys])
        nearest = np.argsort(distances)[:6]
        weights = np.exp(-1.5 * np.exp(w["memory/log_temperature"]) / 2 * distances[nearest])
        for n, weight in zip(nearest, weights / weights.sum(), strict=True):
            votes[b, labels[n]] += weight
    mixing = sigmoid(w["logits/mixing"])
    share = (1 - mixing) * votes + mixing * sigmoid(w["logits/bias"])
    check(model, inputs, w["logits/scale"] * np.log(share / (1 - share)))
