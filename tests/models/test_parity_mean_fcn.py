"""The network over the mean frame against an independent NumPy forward pass (see `reference`)."""

from reference import check, clip_vector, fcn, prepare


def test_mean_fcn(rng):
    model, inputs, w = prepare({"name": "mean_fcn", "hidden_sizes": [20, 18]}, "frame", rng)
    check(model, inputs, fcn(clip_vector(inputs), w, 2))
