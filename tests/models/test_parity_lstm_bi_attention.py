"""Attention over bidirectional LSTMs against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, batch_norm, check, clips, dense, fcn, prepare, relu, run_both_ways


@pytest.mark.parametrize("num_layers", [1, 2])
def test_lstm_bi_attention(num_layers, rng):
    options = {"name": "lstm_bi_attention", "num_layers": num_layers, "hidden_sizes": [20, 18]}
    model, inputs, w = prepare(options, "frame", rng)
    pooled = []
    for name in FEATURES:
        rows = []
        for clip in clips(inputs):
            x = outputs = relu(dense(clip[name], w, f"{name}_dense"))
            for i in range(1, num_layers + 1):
                outputs, _ = run_both_ways(outputs, w, "lstm", f"{name}_rnn{i}")
            x = np.concatenate([x, outputs], axis=1)
            weights = np.exp(x @ w[f"{name}_attention/kernel"])[:, 0]
            rows.append(weights @ x / weights.sum())
        pooled.append(np.stack(rows))
    check(model, inputs, fcn(batch_norm(np.concatenate(pooled, axis=1), w, "bn"), w, 2))
