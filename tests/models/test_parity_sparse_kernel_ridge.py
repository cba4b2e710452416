"""Kernel ridge regression with few duals against an independent NumPy forward pass (see `reference`).

tests/layers/test_kernel_support.py tests how the duals are found.
"""

import numpy as np
import pytest
from kernel_reference import LENGTHS, calibrated, kernel, remembering
from reference import check, clip_vector, directions

CENTRES = 7


@pytest.mark.parametrize("level", ["video", "frame"])
def test_sparse_kernel_ridge(level, rng):
    options = {"name": "sparse_kernel_ridge", "components": 6, "centres": CENTRES, "duals_per_video": 2}
    model, inputs, _, _, w = remembering(options, level, rng)
    points = (directions(clip_vector(inputs), w["memory/means"]) * LENGTHS) @ w["memory/projection"]
    points *= np.sqrt(1.49) / np.linalg.norm(points, axis=1, keepdims=True)
    found = kernel(points, w["memory/keys"])
    scores = found[:, :CENTRES] @ w["memory/centre_duals"] + w["memory/bias"]
    groups = zip(w["memory/dual_values"], w["memory/dual_videos"].astype(int), w["memory/dual_classes"], strict=True)
    for values, videos, column in groups:
        scores[:, int(column)] += found[:, videos] @ values
    check(model, inputs, calibrated(scores, w, 0.03))
