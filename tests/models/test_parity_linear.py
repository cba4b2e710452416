"""Logistic regression and the mixture of experts against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import BATCH_SIZE, NUM_CLASSES, check, clip_vector, dense, prepare, sigmoid


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
