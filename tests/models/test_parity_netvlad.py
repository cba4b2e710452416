"""VLAD, Fisher vectors and the soft bag of frames against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import (
    HEADS,
    batch_norm,
    check,
    clips,
    dense,
    head,
    joint_clips,
    prepare,
    relu6,
    sigmoid,
    softmax,
    unit,
)


def sequences_of(inputs, late_fusion):
    """Yields the real frames of each clip, by feature or with all features concatenated."""
    return clips(inputs) if late_fusion else ({"frames": frames} for frames in joint_clips(inputs))


def assign(x, w, name):
    return softmax(batch_norm(dense(x, w, f"{name}_clusters_dense"), w, f"{name}_clusters_bn"))


def vlad(x, w, name):
    assignment = assign(x, w, name)
    centres = w.get(f"{name}_vlad/centres", np.zeros((assignment.shape[1], x.shape[1])))
    sums = [
        sum(a[k] * (frame - centres[k]) for a, frame in zip(assignment, x, strict=True)) for k in range(len(centres))
    ]
    return unit(np.concatenate([unit(descriptor) for descriptor in sums]))


def fisher(x, w, name):
    assignment = assign(x, w, name)
    first, second = [], []
    for k, centre in enumerate(w[f"{name}_fisher/centres"]):
        residuals = (x - centre) / (w[f"{name}_fisher/scales"][k] ** 2 + 1e-6)
        first.append(unit(assignment[:, k] @ residuals))
        second.append(assignment[:, k] @ (residuals**2 - 1))
    return np.concatenate([unit(np.concatenate(first)), unit(np.concatenate(second))])


def bag(x, w, name):
    assignment = assign(x, w, name)
    sums = assignment.sum(axis=0)
    if f"{name}_gate_inner_dense/kernel" in w:
        gates = dense(unit(assignment.max(axis=0)), w, f"{name}_gate_inner_dense")
        sums = sums * sigmoid(batch_norm(dense(gates, w, f"{name}_gate_outer_dense"), w, f"{name}_gate_bn"))
    return unit(sums)


@pytest.mark.parametrize(
    ("late_fusion", "relu", "gating", "head_name", "name", "pool"),
    [
        (True, False, True, "gated moe", "netvlad", vlad),
        (False, True, True, "moe", "netvlad", vlad),
        (True, True, False, "logistic", "netvlad", vlad),
        (False, False, True, "gated moe", "netrvlad", vlad),
        (True, True, True, "moe", "netrvlad", vlad),
        (True, False, True, "gated moe", "netfv", fisher),
        (False, True, False, "logistic", "netfv", fisher),
        (True, True, True, "gated moe", "soft_dbof", bag),
        (False, False, False, "moe", "soft_dbof", bag),
    ],
)
def test_learnable_pooling(name, pool, relu, gating, head_name, late_fusion, rng):
    options = {"cluster_size": 18, "hidden_size": 14, "late_fusion": late_fusion, "hidden_relu": relu}
    options |= {"context_gating": gating, "head": HEADS[head_name]}
    model, inputs, w = prepare({"name": name, **options}, "frame", rng)
    rows = []
    for sequences in sequences_of(inputs, late_fusion):
        normalised = {key: batch_norm(x, w, f"{key}_input_bn") for key, x in sequences.items()}
        rows.append(np.concatenate([pool(x, w, key) for key, x in normalised.items()]))
    x = dense(np.stack(rows), w, "hidden_dense")
    if relu:
        x = relu6(batch_norm(x, w, "hidden_bn"))
    if gating:
        x = x * sigmoid(batch_norm(dense(x, w, "hidden_gate_dense"), w, "hidden_gate_bn"))
    check(model, inputs, head(x, w, HEADS[head_name]))
    assert ("hidden_dense/bias" in w) is not relu
    assert ("hidden_bn/gamma" in w) is relu
    assert any(path.endswith("centres") for path in w) is (name in ("netvlad", "netfv"))
    if late_fusion:
        assert w["rgb_clusters_dense/kernel"].shape == (24, 18)
        assert w["audio_clusters_dense/kernel"].shape == (10, 2 if name == "soft_dbof" else 9)
    else:
        assert w["frames_clusters_dense/kernel"].shape == (34, 18)


@pytest.mark.parametrize("late_fusion", [True, False])
def test_soft_dbof_without_a_gate(late_fusion, rng):
    options = {"cluster_size": 18, "hidden_size": 14, "late_fusion": late_fusion, "gated": False}
    model, inputs, w = prepare({"name": "soft_dbof", "head": HEADS["gated moe"], **options}, "frame", rng)
    rows = []
    for sequences in sequences_of(inputs, late_fusion):
        normalised = {key: batch_norm(x, w, f"{key}_input_bn") for key, x in sequences.items()}
        rows.append(np.concatenate([bag(x, w, key) for key, x in normalised.items()]))
    assert not any("gate_inner" in path for path in w)
    check(model, inputs, head(dense(np.stack(rows), w, "hidden_dense"), w, HEADS["gated moe"]))


def test_gate_of_soft_dbof_is_not_for_audio(rng):
    _, _, w = prepare({"name": "soft_dbof", "cluster_size": 18, "hidden_size": 14}, "frame", rng)
    assert w["rgb_gate_inner_dense/kernel"].shape == (18, 24)
    assert w["rgb_gate_outer_dense/kernel"].shape == (24, 18)
    assert "audio_gate_inner_dense/kernel" not in w
