"""Kernel ridge regression against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from kernel_reference import COUNT, LENGTHS, calibrated, kernel, remembering
from reference import check, clip_vector, directions


@pytest.mark.parametrize("level", ["video", "frame"])
def test_kernel_ridge(level, rng):
    model, inputs, videos, targets, w = remembering({"name": "kernel_ridge"}, level, rng)
    means = videos.mean(axis=0, dtype="float64")
    keys = directions(videos, means) * LENGTHS
    duals = np.linalg.inv(kernel(keys, keys) + 0.2 * np.eye(COUNT)) @ targets
    scores = kernel(directions(clip_vector(inputs), means) * LENGTHS, keys) @ duals
    check(model, inputs, calibrated(scores, w, 0.003))
