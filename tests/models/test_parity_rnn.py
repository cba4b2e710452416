"""Recurrent networks against an independent NumPy forward pass (see `reference`)."""

import numpy as np
from reference import (
    BATCH_SIZE,
    FEATURES,
    batch_norm,
    check,
    clips,
    dense,
    head,
    joint_clips,
    prepare,
    relu6,
    run_both_ways,
    run_rnn,
    sigmoid,
)

MIXTURE = {"name": "moe", "num_mixtures": 2, "context_gating": False}  # the default


def test_starter_lstm(rng):
    model, inputs, w = prepare({"name": "rnn", "hidden_sizes": [9, 8]}, "frame", rng)
    rows = [run_rnn(run_rnn(x, w, "lstm", "rnn1")[0], w, "lstm", "rnn2")[1][0] for x in joint_clips(inputs)]
    check(model, inputs, head(np.stack(rows), w, MIXTURE))


def test_bidirectional_lstm_under_a_forward_one(rng):
    options = {"hidden_sizes": [10, 7], "bidirectional_layers": 1, "cell_state": True, "head": {"name": "logistic"}}
    model, inputs, w = prepare({"name": "rnn", **options}, "frame", rng)
    rows = [run_rnn(run_both_ways(x, w, "lstm", "rnn1")[0], w, "lstm", "rnn2")[1][1] for x in joint_clips(inputs)]
    check(model, inputs, dense(np.stack(rows), w, "logits"))
    assert w["rnn1_forward/lstm_cell/recurrent_kernel"].shape == (5, 20)


def test_bidirectional_to_the_top(rng):
    options = {"hidden_sizes": [10, 8], "bidirectional_layers": 2, "cell_state": True}
    model, inputs, w = prepare({"name": "rnn", **options}, "frame", rng)
    rows = []
    for x in joint_clips(inputs):
        x, _ = run_both_ways(x, w, "lstm", "rnn1")
        _, (_, forward, _, backward) = run_both_ways(x, w, "lstm", "rnn2")
        rows.append(np.concatenate([forward, backward]))
    check(model, inputs, head(np.stack(rows), w, MIXTURE))


def test_late_fusion_of_gated_grus(rng):
    options = {
        "cell": "gru",
        "hidden_sizes": [10, 9],
        "bidirectional_layers": 1,
        "late_fusion": True,
        "feature_hidden_sizes": {"audio": [4, 6]},
        "input_projection": True,
        "context_gating": True,
    }
    model, inputs, w = prepare({"name": "rnn", **options}, "frame", rng)
    states = []
    for name in FEATURES:
        rows = []
        for clip in clips(inputs):
            x = batch_norm(clip[name], w, f"{name}_projection_input_bn")
            x = relu6(batch_norm(dense(x, w, f"{name}_projection_dense"), w, f"{name}_projection_bn"))
            x, _ = run_both_ways(x, w, "gru", f"{name}_rnn1")
            rows.append(run_rnn(x, w, "gru", f"{name}_rnn2")[1][0])
        states.append(np.stack(rows))
    x = np.concatenate(states, axis=1)
    assert x.shape == (BATCH_SIZE, 9 + 6)
    check(model, inputs, head(x * sigmoid(dense(x, w, "state_gate")), w, MIXTURE))
