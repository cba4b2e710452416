"""Models that pool frames by clusters against independent NumPy forward passes (see `reference`)."""

import numpy as np
import pytest
from reference import BATCH_SIZE, FEATURES, NUM_CLASSES, check, dense, prepare, resnet_like, sigmoid

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model, model_config

HEADS = {
    "logistic": {"name": "logistic", "context_gating": False},
    "moe": {"name": "moe", "num_mixtures": 3, "context_gating": False},
    "gated moe": {"name": "moe", "num_mixtures": 2, "context_gating": True},
}


def batch_norm(x, w, name):
    x = (x - w[f"{name}/moving_mean"]) / np.sqrt(w[f"{name}/moving_variance"] + 1e-5) * w[f"{name}/gamma"]
    return x + w.get(f"{name}/beta", 0.0)


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x)


def relu6(x):
    return np.clip(x, 0, 6)


def head(x, w, options):
    """Logits of a batch, by way of probabilities."""
    if options["name"] == "logistic":
        probability = sigmoid(dense(x, w, "logits"))
    else:
        mixtures = options["num_mixtures"]
        gates = softmax((x @ w["logits/gate_kernel"]).reshape(BATCH_SIZE, NUM_CLASSES, mixtures + 1))
        experts = sigmoid(x @ w["logits/expert_kernel"] + w["logits/bias"]).reshape(BATCH_SIZE, NUM_CLASSES, mixtures)
        probability = (gates[:, :, :-1] * experts).sum(axis=2)
    if options["context_gating"]:
        probability = probability * sigmoid(dense(probability, w, "context_gate"))
    return np.log(probability / (1 - probability))


def clips(inputs, late_fusion):
    """For each clip its real frames by feature, or all features side by side."""
    for i, count in enumerate(inputs["num_frames"]):
        frames = {name: inputs[name][i, :count].astype("float64") for name in FEATURES}
        yield frames if late_fusion else {"frames": np.concatenate([frames["rgb"], frames["audio"]], axis=1)}


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


@pytest.mark.parametrize("late_fusion", [True, False])
@pytest.mark.parametrize(
    ("relu", "gating", "head_name"), [(False, True, "gated moe"), (True, True, "moe"), (True, False, "logistic")]
)
@pytest.mark.parametrize(
    ("name", "pool"), [("netvlad", vlad), ("netrvlad", vlad), ("netfv", fisher), ("soft_dbof", bag)]
)
def test_learnable_pooling(name, pool, relu, gating, head_name, late_fusion, rng):
    options = {"cluster_size": 18, "hidden_size": 14, "late_fusion": late_fusion, "hidden_relu": relu}
    options |= {"context_gating": gating, "head": HEADS[head_name]}
    model, inputs, w = prepare({"name": name, **options}, "frame", rng)
    rows = []
    for sequences in clips(inputs, late_fusion):
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
    for sequences in clips(inputs, late_fusion):
        normalised = {key: batch_norm(x, w, f"{key}_input_bn") for key, x in sequences.items()}
        rows.append(np.concatenate([bag(x, w, key) for key, x in normalised.items()]))
    assert not any("gate_inner" in path for path in w)
    check(model, inputs, head(dense(np.stack(rows), w, "hidden_dense"), w, HEADS["gated moe"]))


def test_gate_of_soft_dbof_is_not_for_audio(rng):
    _, _, w = prepare({"name": "soft_dbof", "cluster_size": 18, "hidden_size": 14}, "frame", rng)
    assert w["rgb_gate_inner_dense/kernel"].shape == (18, 24)
    assert w["rgb_gate_outer_dense/kernel"].shape == (24, 18)
    assert "audio_gate_inner_dense/kernel" not in w


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("head_name", ["logistic", "moe"])
def test_dbof(pooling, head_name, rng):
    options = {"cluster_size": 20, "hidden_size": 14, "pooling": pooling, "head": HEADS[head_name]}
    model, inputs, w = prepare({"name": "dbof", **options}, "frame", rng)
    rows = []
    for sequences in clips(inputs, late_fusion=False):
        x = batch_norm(sequences["frames"], w, "input_bn")
        x = relu6(batch_norm(dense(x, w, "clusters_dense"), w, "clusters_bn"))
        rows.append(x.max(axis=0) if pooling == "max" else x.mean(axis=0))
    x = relu6(batch_norm(dense(np.stack(rows), w, "hidden_dense"), w, "hidden_bn"))
    check(model, inputs, head(x, w, HEADS[head_name]))


@pytest.mark.parametrize("learnable", [True, False])
def test_vlad_bow(learnable, rng):
    options = {"n_clusters": 9, "power": 2.5, "learnable_power": learnable, "resnet": {"inner_size": 16}}
    model, inputs, w = prepare({"name": "vlad_bow", **options}, "frame", rng)
    bags = {}
    for name in FEATURES:
        rows = []
        for sequences in clips(inputs, late_fusion=True):
            scores = dense(sequences[name], w, f"{name}_words_dense")
            rows.append(softmax(np.sign(scores) * np.abs(scores) ** 2.5).sum(axis=0))
        bags[name] = np.stack(rows)
    check(model, inputs, resnet_like(bags, w, 1, 1))
    assert w["power/exponent"] == 2.5
    assert any(v.path == "power/exponent" for v in model.trainable_variables) is learnable


@pytest.mark.parametrize("head_name", ["logistic", "gated moe"])
def test_nextvlad(head_name, rng):
    options = {"cluster_size": 6, "groups": 4, "expansion": 2, "hidden_size": 12, "gating_reduction": 3}
    model, inputs, w = prepare({"name": "nextvlad", **options, "head": HEADS[head_name]}, "frame", rng)
    rows = []
    for sequences in clips(inputs, late_fusion=True):
        pooled = []
        for name, groups, clusters in (("rgb", 4, 6), ("audio", 2, 3)):
            expanded = dense(sequences[name], w, f"{name}_expansion_dense")
            attention = sigmoid(dense(expanded, w, f"{name}_attention_dense"))  # [T, G]
            scores = batch_norm(dense(expanded, w, f"{name}_clusters_dense"), w, f"{name}_clusters_bn")
            size = expanded.shape[1] // groups
            descriptors = np.zeros((clusters, size))
            for t, frame in enumerate(expanded):
                for g in range(groups):
                    assignment = attention[t, g] * softmax(scores[t, g * clusters : (g + 1) * clusters])
                    for k in range(clusters):
                        residual = frame[g * size : (g + 1) * size] - w[f"{name}_vlad/centres"][k]
                        descriptors[k] += assignment[k] * residual
            flat = np.concatenate([unit(descriptor) for descriptor in descriptors])
            pooled.append(batch_norm(flat, w, f"{name}_descriptors_bn"))
        rows.append(np.concatenate(pooled))
    x = batch_norm(dense(np.stack(rows), w, "hidden_dense"), w, "hidden_bn")
    squeezed = np.maximum(batch_norm(dense(x, w, "hidden_gate_squeeze_dense"), w, "hidden_gate_squeeze_bn"), 0)
    x = x * sigmoid(dense(squeezed, w, "hidden_gate_excite_dense"))
    check(model, inputs, head(x, w, HEADS[head_name]))
    assert w["hidden_gate_squeeze_dense/kernel"].shape == (12, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "netvlad", "cluster_size": 3}, "'model': cluster_size must be at least 4, got 3"),
        ({"name": "soft_dbof", "cluster_size": 8}, "'model': cluster_size must be at least 16, got 8"),
        ({"name": "netfv", "head": {"name": "svm"}}, "'model.head.name'.* one of logistic, moe"),
        ({"name": "dbof", "pooling": "sum"}, "'model.pooling'.* one of max, average"),
        ({"name": "vlad_bow", "power": -1}, "'model': power must be at least 0, got -1"),
        ({"name": "vlad_bow", "dropout": 1}, r"dropout must lie in \[0, 1\), got 1"),
        ({"name": "nextvlad", "hidden_size": 8}, "hidden_size must be at least twice gating_reduction = 8, got 8"),
        ({"name": "nextvlad", "groups": 5}, "'model.groups': 48 values of feature 'rgb' .* into 5 equal groups"),
    ],
)
def test_options_out_of_range_are_one_line_errors(options, message):
    with pytest.raises(InputError, match=message) as error:
        build_model(options, InputSpec("frame", FEATURES, NUM_CLASSES))
    assert "\n" not in str(error.value)


def test_partial_sections_keep_the_defaults_of_their_model():
    head_config = model_config({"name": "netvlad", "head": {"num_mixtures": 4}}).head
    assert (head_config.name, head_config.num_mixtures) == ("moe", 4)
    assert (head_config.l2, head_config.context_gating) == (1e-6, True)
    assert model_config({"name": "vlad_bow", "resnet": {"av_blocks": 2}}).resnet.inner_size == 1024
