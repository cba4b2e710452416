"""Fully connected networks against an independent NumPy forward pass (see `reference`)."""

import pytest
from reference import check, clip_vector, dense, fcn, leaky, prepare, relu, softmax


@pytest.mark.parametrize("sizes", [[], [12], [9, 14, 7]])
def test_fcn(sizes, rng):
    model, inputs, w = prepare({"name": "fcn", "hidden_sizes": sizes, "dropout": 0.3}, "video", rng)
    check(model, inputs, fcn(clip_vector(inputs), w, len(sizes)))


def test_bottleneck_fcn(rng):
    model, inputs, w = prepare({"name": "bottleneck_fcn", "start_size": 16, "depth": 3}, "video", rng)
    x, widths = clip_vector(inputs), []
    for i in range(7):
        x = relu(dense(x, w, f"fcn{i + 1}_dense"))
        widths.append(x.shape[1])
    assert widths == [16, 8, 4, 2, 4, 8, 16]
    check(model, inputs, dense(x, w, "logits"))


@pytest.mark.parametrize("repeats", [1, 4])
def test_cyclic_fcn(repeats, rng):
    model, inputs, w = prepare({"name": "cyclic_fcn", "inner_size": 13, "repeats": repeats}, "video", rng)
    x = leaky(dense(clip_vector(inputs), w, "first_dense"))
    for _ in range(repeats):
        x = leaky(dense(x, w, "cycle_dense"))
    check(model, inputs, dense(x, w, "logits"))


def test_ranking_fcn(rng):
    model, inputs, w = prepare({"name": "ranking_fcn", "inner_size": 13}, "video", rng)
    x = relu(dense(clip_vector(inputs), w, "fcn1_dense"))
    x = relu(dense(x, w, "fcn2_dense"))
    (scale,), (bias,) = w["logits/kernel"][0], w["logits/bias"].reshape(1, 1)
    check(model, inputs, scale * softmax(dense(x, w, "scores")) + bias)
