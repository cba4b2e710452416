"""Recurrent layers over concatenated features against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import check, fcn, joint_clips, prepare, run_rnn


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm", "num_layers": 2, "hidden_size": 9, "hidden_sizes": [15]},
        {"cell": "lstm", "num_layers": 3, "hidden_size": 7, "hidden_sizes": [12, 11], "dense": True},
        {"cell": "gru", "num_layers": 3, "hidden_size": 8, "hidden_sizes": [12, 11]},
        {"cell": "gru", "num_layers": 2, "hidden_size": 8, "hidden_sizes": [12], "dense": True},
    ],
)
def test_early_concat_rnn(options, rng):
    model, inputs, w = prepare({"name": "early_concat_rnn", **options}, "frame", rng)
    rows = []
    for x in joint_clips(inputs):
        row = []
        for i in range(1, options["num_layers"] + 1):
            outputs, states = run_rnn(x, w, options["cell"], f"rnn{i}")
            row += states
            x = np.concatenate([x, outputs], axis=1) if options.get("dense") else outputs
        rows.append(np.concatenate(row))
    check(model, inputs, fcn(np.stack(rows), w, len(options["hidden_sizes"])))
