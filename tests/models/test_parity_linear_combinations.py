"""Learned weightings of frames against an independent NumPy forward pass (see `reference`)."""

from reference import BATCH_SIZE, FEATURES, check, dense, prepare, resnet_like


def test_linear_combinations(rng):
    options = {"name": "linear_combinations", "head_size": 3, "resnet": {"inner_size": 16, "concat_blocks": 2}}
    model, inputs, w = prepare(options, "frame", rng)
    branches = {}
    for name in FEATURES:
        frames = inputs[name].astype("float64")
        for clip, count in zip(frames, inputs["num_frames"], strict=True):
            clip[count:] = 0.0
        along_time = dense(frames.transpose(0, 2, 1), w, f"{name}_combinations")  # [B, D, H]
        branches[name] = along_time.transpose(0, 2, 1).reshape(BATCH_SIZE, -1)  # one weighting after the other
    check(model, inputs, resnet_like(branches, w, 1, 2))
