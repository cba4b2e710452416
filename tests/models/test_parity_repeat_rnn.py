"""A recurrent network that reads a video several times, against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import check, clip_vector, dense, prepare, run_rnn


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(("num_layers", "repeats"), [(1, 1), (3, 4)])
def test_repeat_rnn(cell, num_layers, repeats, rng):
    options = {"name": "repeat_rnn", "cell": cell, "hidden_size": 7, "num_layers": num_layers, "repeats": repeats}
    model, inputs, w = prepare(options, "video", rng)
    sequence, last = [clip_vector(inputs)] * repeats, []
    for i in range(1, num_layers + 1):
        sequence, _ = run_rnn(sequence, w, cell, f"{cell}{i}")
        last.append(sequence[-1])
    check(model, inputs, dense(np.concatenate(last, axis=1), w, "logits"))
