"""What the parity tests of kernel_ridge and sparse_kernel_ridge share: a filled model, and formulas in NumPy."""

import numpy as np
from reference import FEATURES, NUM_CLASSES, prepare

COUNT = 40
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
