"""The bilinear network against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import check, clip_vector, dense, prepare


def tanhshrink(x):
    return x - np.tanh(x)


def bilinear(x, h, w, name):
    """Computes x' W_k h + b_k for each example and output k."""
    kernel, bias = w[f"{name}/kernel"], w[f"{name}/bias"]
    rows = zip(x, h, strict=True)
    return np.array([[x_n @ kernel[:, :, k] @ h_n + bias[k] for k in range(len(bias))] for x_n, h_n in rows])


@pytest.mark.parametrize(("first_rgb", "second"), [(None, False), (24, True), (7, False), (7, True)])
def test_bilinear_fcn(first_rgb, second, rng):
    options = {"name": "bilinear_fcn", "rank": 5, "inner_size": 9, "dropout": 0.5}
    model, inputs, w = prepare(options | {"first_rgb": first_rgb, "second": second}, "video", rng)
    x = clip_vector(inputs | {"rgb": inputs["rgb"][:, :first_rgb]})
    h = dense(x, w, "rank_dense")
    y = tanhshrink(bilinear(x, tanhshrink(h), w, "bilinear1"))
    if second:
        y = tanhshrink(bilinear(y, h, w, "bilinear2"))
    check(model, inputs, dense(y, w, "logits"))
