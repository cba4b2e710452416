"""NeXtVLAD against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import HEADS, batch_norm, check, clips, dense, head, prepare, sigmoid, softmax, unit


@pytest.mark.parametrize("head_name", ["logistic", "gated moe"])
def test_nextvlad(head_name, rng):
    options = {"cluster_size": 6, "groups": 4, "expansion": 2, "hidden_size": 12, "gating_reduction": 3}
    model, inputs, w = prepare({"name": "nextvlad", **options, "head": HEADS[head_name]}, "frame", rng)
    rows = []
    for sequences in clips(inputs):
        pooled = []
        for name, groups, clusters in (("rgb", 4, 6), ("audio", 2, 3)):
            expanded = dense(sequences[name], w, f"{name}_expansion_dense")
            attention = sigmoid(dense(expanded, w, f"{name}_attention_dense"))  # [T, G]
            scores = batch_norm(dense(expanded, w, f"{name}_clusters_dense"), w, f"{name}_clusters_bn")
            size = expanded.shape[1] // groups
            descriptors = np.zeros((clusters, size))
            for t, frame in enumerate(expanded):
                for g in range(groups):
                    assignment = attention[t, g] * softmax(scores[t, g * clusters : (g + 1) * clusters])
                    for k in range(clusters):
                        residual = frame[g * size : (g + 1) * size] - w[f"{name}_vlad/centres"][k]
                        descriptors[k] += assignment[k] * residual
            flat = np.concatenate([unit(descriptor) for descriptor in descriptors])
            pooled.append(batch_norm(flat, w, f"{name}_descriptors_bn"))
        rows.append(np.concatenate(pooled))
    x = batch_norm(dense(np.stack(rows), w, "hidden_dense"), w, "hidden_bn")
    squeezed = np.maximum(batch_norm(dense(x, w, "hidden_gate_squeeze_dense"), w, "hidden_gate_squeeze_bn"), 0)
    x = x * sigmoid(dense(squeezed, w, "hidden_gate_excite_dense"))
    check(model, inputs, head(x, w, HEADS[head_name]))
    assert w["hidden_gate_squeeze_dense/kernel"].shape == (12, 4)
