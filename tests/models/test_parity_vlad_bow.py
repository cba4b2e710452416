"""The bag of words against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, check, clips, dense, prepare, resnet_like, softmax


@pytest.mark.parametrize("learnable", [True, False])
def test_vlad_bow(learnable, rng):
    options = {"n_clusters": 9, "power": 2.5, "learnable_power": learnable, "resnet": {"inner_size": 16}}
    model, inputs, w = prepare({"name": "vlad_bow", **options}, "frame", rng)
    bags = {}
    for name in FEATURES:
        rows = []
        for sequences in clips(inputs):
            scores = dense(sequences[name], w, f"{name}_words_dense")
            rows.append(softmax(np.sign(scores) * np.abs(scores) ** 2.5).sum(axis=0))
        bags[name] = np.stack(rows)
    check(model, inputs, resnet_like(bags, w, 1, 1))
    assert w["power/exponent"] == 2.5
    assert any(v.path == "power/exponent" for v in model.trainable_variables) is learnable
