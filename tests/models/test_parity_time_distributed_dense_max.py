"""Maxima over frames of a layer on each frame against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, batch_norm, check, clips, dense, prepare, relu, resnet_like


@pytest.mark.parametrize("max_frames", [13, 303])
def test_time_distributed_dense_max(max_frames, rng):
    sizes = {"rgb_size": 15, "audio_size": 7, "resnet": {"inner_size": 16, "av_blocks": 2, "concat_blocks": 2}}
    model, inputs, w = prepare({"name": "time_distributed_dense_max"} | sizes, "frame", rng, max_frames=max_frames)
    branches = {name: [] for name in FEATURES}
    for clip in clips(inputs):
        for name, frames in clip.items():
            x = relu(batch_norm(dense(frames, w, f"{name}_frames_dense"), w, f"{name}_frames_bn"))
            branches[name].append(x.max(axis=0))
    check(model, inputs, resnet_like({name: np.stack(rows) for name, rows in branches.items()}, w, 2, 2))
