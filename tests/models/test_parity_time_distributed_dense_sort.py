"""Sorted scores of frames against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import batch_norm, check, clips, dense, fc_block, leaky, prepare, res_block


@pytest.mark.parametrize("max_frames", [13, 303])
def test_time_distributed_dense_sort(max_frames, rng):
    options = {"name": "time_distributed_dense_sort", "hidden_size": 20, "resnet": {"inner_size": 16}}
    model, inputs, w = prepare(options, "frame", rng, max_frames=max_frames)
    rows = []
    for clip in clips(inputs):
        audio, rgb = (res_block(fc_block(clip[n], w, f"{n}_fc"), w, f"{n}_res1") for n in ("audio", "rgb"))
        x = res_block(np.concatenate([audio, rgb], axis=1), w, "concat_res1")
        scores = dense(fc_block(x, w, "concat_fc"), w, "frame_logits")  # [T, C]
        row = []
        for of_class in scores.T:
            ranked = np.zeros(max_frames)
            ranked[: len(of_class)] = sorted(of_class, reverse=True)
            hidden = leaky(batch_norm(ranked @ w["rank_fc/kernel"], w, "rank_fc"))
            row.append((hidden @ w["logits/kernel"] + w["logits/bias"])[0])
        rows.append(row)
    check(model, inputs, np.array(rows))
