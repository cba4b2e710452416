"""The deep bag of frames against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import HEADS, batch_norm, check, dense, head, joint_clips, prepare, relu6


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("head_name", ["logistic", "moe"])
def test_dbof(pooling, head_name, rng):
    options = {"cluster_size": 20, "hidden_size": 14, "pooling": pooling, "head": HEADS[head_name]}
    model, inputs, w = prepare({"name": "dbof", **options}, "frame", rng)
    rows = []
    for frames in joint_clips(inputs):
        x = batch_norm(frames, w, "input_bn")
        x = relu6(batch_norm(dense(x, w, "clusters_dense"), w, "clusters_bn"))
        rows.append(x.max(axis=0) if pooling == "max" else x.mean(axis=0))
    x = relu6(batch_norm(dense(np.stack(rows), w, "hidden_dense"), w, "hidden_bn"))
    check(model, inputs, head(x, w, HEADS[head_name]))
