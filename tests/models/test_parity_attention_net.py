"""Attention over frames against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import batch_norm, check, dense, fcn, joint_clips, prepare, relu, softmax


@pytest.mark.parametrize("max_frames", [13, 303])
@pytest.mark.parametrize("options", [{}, {"num_layers": 1}, {"num_layers": 4, "layer_dropout": True, "batch_norm": 0}])
def test_attention_net(options, max_frames, rng):
    options = options | {"batch_norm": bool(options.get("batch_norm", True))}
    sizes = {"name": "attention_net", "hidden_size": 9, "hidden_sizes": [14, 12]}
    model, inputs, w = prepare(sizes | options, "frame", rng, max_frames=max_frames)
    rows = []
    for u in joint_clips(inputs):
        for i in range(1, options.get("num_layers", 3) + 1):
            v = relu(dense(u, w, f"layer{i}_dense"))
            weights = softmax(dense(v, w, f"layer{i}_attention")[:, 0])
            c = sum(weight * row for weight, row in zip(weights, v, strict=True))
            u = np.concatenate([u, np.tile(c, (len(u), 1))], axis=1)
        rows.append(u.mean(axis=0))
    x = np.stack(rows)
    if options["batch_norm"]:
        x = batch_norm(x, w, "bn")
    check(model, inputs, fcn(x, w, 2))
