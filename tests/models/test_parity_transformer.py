"""Self-attention over frames against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import check, dense, joint_clips, prepare, relu, softmax


@pytest.mark.parametrize("max_frames", [13, 303])
@pytest.mark.parametrize(
    ("num_layers", "num_heads", "max_length", "biases"), [(1, 1, 303, False), (2, 3, 7, False), (1, 2, 303, True)]
)
def test_transformer(num_layers, num_heads, max_length, biases, max_frames, rng):
    sizes = {"inner_size": 8, "num_layers": num_layers, "num_heads": num_heads, "max_length": max_length}
    sizes["biases"] = biases
    model, inputs, w = prepare({"name": "transformer"} | sizes, "frame", rng, max_frames=max_frames)
    rows = []
    for x in joint_clips(inputs):
        for i in range(1, num_layers + 1):
            length, size = x.shape
            codes = np.sin(2 * np.pi * np.arange(length)[:, None] * 2 * np.arange(1, size + 1) / max_length)
            layer = f"layer{i}_attention"
            assert (f"{layer}/query_bias" in w) == (f"{layer}/value_bias" in w) == biases
            queries = (x + codes) @ w[f"{layer}/query_kernel"] + w.get(f"{layer}/query_bias", 0.0)
            keys = (x + codes) @ w[f"{layer}/key_kernel"]
            values = x @ w[f"{layer}/value_kernel"] + w.get(f"{layer}/value_bias", 0.0)
            heads = []
            for head in range(num_heads):
                part = slice(8 * head, 8 * head + 8)
                scores = queries[:, part] @ keys[:, part].T / np.sqrt(size)
                heads.append(np.stack([softmax(row) @ values[:, part] for row in scores]))
            x = relu(dense(np.concatenate(heads, axis=1), w, f"layer{i}_dense"))
        rows.append(x.mean(axis=0))
    check(model, inputs, dense(np.stack(rows), w, "logits"))
