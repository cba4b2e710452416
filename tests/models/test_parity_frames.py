"""Attention, convolutions and networks on every frame against independent NumPy forward passes, clip by clip."""

import numpy as np
import pytest
import reference
from reference import FEATURES, check, dense, fc_block, leaky, prepare, res_block, resnet_like

from yt8m_tf.errors import InputError
from yt8m_tf.models import model_config

lengths = pytest.mark.parametrize("max_frames", [13, 303])


@pytest.fixture
def prepared(monkeypatch, rng):
    """`prepare` for clips of up to `max_frames` frames, among them one of 1 and one of `max_frames`."""

    def make(options, max_frames):
        monkeypatch.setattr(reference, "MAX_FRAMES", max_frames)
        model, inputs, w = prepare(options, "frame", rng)
        inputs["num_frames"][:2] = 1, max_frames
        return model, inputs, w

    return make


def clips(inputs):
    """The real frames of each clip by feature."""
    for i, count in enumerate(inputs["num_frames"]):
        yield {name: inputs[name][i, :count].astype("float64") for name in FEATURES}


def relu(x):
    return np.maximum(x, 0.0)


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def batch_norm(x, w, name):
    mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
    return (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}/gamma"] + w[f"{name}/beta"]


@lengths
@pytest.mark.parametrize("options", [{}, {"num_layers": 1}, {"num_layers": 4, "layer_dropout": True, "batch_norm": 0}])
def test_attention_net(options, max_frames, prepared):
    options = options | {"batch_norm": bool(options.get("batch_norm", True))}
    sizes = {"name": "attention_net", "hidden_size": 9, "hidden_sizes": [14, 12]}
    model, inputs, w = prepared(sizes | options, max_frames)
    rows = []
    for clip in clips(inputs):
        u = np.concatenate([clip["rgb"], clip["audio"]], axis=1)
        for i in range(1, options.get("num_layers", 3) + 1):
            v = relu(dense(u, w, f"layer{i}_dense"))
            weights = softmax(dense(v, w, f"layer{i}_attention")[:, 0])
            c = sum(weight * row for weight, row in zip(weights, v, strict=True))
            u = np.concatenate([u, np.tile(c, (len(u), 1))], axis=1)
        rows.append(u.mean(axis=0))
    x = np.stack(rows)
    if options["batch_norm"]:
        x = batch_norm(x, w, "bn")
    for i in (1, 2):
        x = relu(dense(x, w, f"fcn{i}_dense"))
    check(model, inputs, dense(x, w, "logits"))


@lengths
@pytest.mark.parametrize(("num_layers", "num_heads", "max_length"), [(1, 1, 303), (2, 3, 7)])
def test_transformer(num_layers, num_heads, max_length, max_frames, prepared):
    sizes = {"inner_size": 8, "num_layers": num_layers, "num_heads": num_heads, "max_length": max_length}
    model, inputs, w = prepared({"name": "transformer"} | sizes, max_frames)
    rows = []
    for clip in clips(inputs):
        x = np.concatenate([clip["rgb"], clip["audio"]], axis=1)
        for i in range(1, num_layers + 1):
            length, size = x.shape
            codes = np.zeros((length, size))
            for t in range(length):
                for j in range(1, size + 1):
                    codes[t, j - 1] = np.sin(2 * np.pi * t * 2 * j / max_length)
            layer = f"layer{i}_attention"
            queries = (x + codes) @ w[f"{layer}/query_kernel"] + w[f"{layer}/query_bias"]
            keys = (x + codes) @ w[f"{layer}/key_kernel"]
            values = x @ w[f"{layer}/value_kernel"] + w[f"{layer}/value_bias"]
            heads = []
            for head in range(num_heads):
                part = slice(8 * head, 8 * head + 8)
                scores = queries[:, part] @ keys[:, part].T / np.sqrt(size)
                heads.append(np.stack([softmax(row) @ values[:, part] for row in scores]))
            x = relu(dense(np.concatenate(heads, axis=1), w, f"layer{i}_dense"))
        rows.append(x.mean(axis=0))
    check(model, inputs, dense(np.stack(rows), w, "logits"))


def conv_block(x, w, name, activation):
    kernel = w[f"{name}_conv/kernel"]
    width = len(kernel)
    rows = [np.einsum("kd,kdc->c", x[t : t + width], kernel) for t in range(len(x) - width + 1)]
    x = batch_norm(np.stack(rows) + w[f"{name}_conv/bias"], w, f"{name}_bn")
    return {"none": lambda v: v, "leaky_relu": leaky, "relu": relu}[activation](x)


def pool(x, width):
    return np.stack([x[width * i : width * (i + 1)].max(axis=0) for i in range(len(x) // width)])


@lengths
@pytest.mark.parametrize("activation", ["none", "leaky_relu", "relu"])
@pytest.mark.parametrize(
    ("av_kernels", "av_pools", "concat_kernels", "concat_pools", "min_frames"),
    [([3, 2], [2, 1], [2], [], 8), ([2], [3], [3, 1, 2], [1, 2], 19), ([], [], [2], [], 2)],
)
def test_time_distributed_conv(
    av_kernels, av_pools, concat_kernels, concat_pools, min_frames, activation, max_frames, prepared
):
    channels = {"rgb": [12, 10][: len(av_kernels)], "audio": [6, 7][: len(av_kernels)]}
    options = {"name": "time_distributed_conv", "av_kernel_sizes": av_kernels, "av_pool_sizes": av_pools}
    options |= {"concat_kernel_sizes": concat_kernels, "concat_pool_sizes": concat_pools, "activation": activation}
    options |= {f"{name}_channels": sizes for name, sizes in channels.items()}
    options["concat_channels"] = [16, 14, 12][: len(concat_kernels)]
    model, inputs, w = prepared(options, max_frames)
    rows = []
    for clip in clips(inputs):
        features = []
        for name in FEATURES:
            x = np.concatenate([clip[name], np.zeros((max(min_frames - len(clip[name]), 0), FEATURES[name]))])
            for i, width in enumerate(av_pools, start=1):
                x = pool(conv_block(x, w, f"{name}_block{i}", activation), width)
            features.append(x)
        x = np.concatenate(features, axis=1)
        for i in range(1, len(concat_kernels) + 1):
            x = conv_block(x, w, f"concat_block{i}", activation)
            x = pool(x, concat_pools[i - 1] if i <= len(concat_pools) else len(x))
        assert len(x) == 1
        rows.append(x[0])
    check(model, inputs, dense(np.stack(rows), w, "logits"))


@lengths
def test_time_distributed_dense_max(max_frames, prepared):
    sizes = {"rgb_size": 15, "audio_size": 7, "resnet": {"inner_size": 16, "av_blocks": 2, "concat_blocks": 2}}
    model, inputs, w = prepared({"name": "time_distributed_dense_max"} | sizes, max_frames)
    branches = {name: [] for name in FEATURES}
    for clip in clips(inputs):
        for name, frames in clip.items():
            x = relu(batch_norm(dense(frames, w, f"{name}_frames_dense"), w, f"{name}_frames_bn"))
            branches[name].append(x.max(axis=0))
    check(model, inputs, resnet_like({name: np.stack(rows) for name, rows in branches.items()}, w, 2, 2))


@lengths
def test_time_distributed_dense_sort(max_frames, prepared):
    options = {"name": "time_distributed_dense_sort", "hidden_size": 20, "resnet": {"inner_size": 16}}
    model, inputs, w = prepared(options, max_frames)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "attention_net", "num_layers": 10, "layer_dropout": True},
            "num_layers must be at most 9 with layer_",
        ),
        ({"name": "time_distributed_conv", "rgb_channels": [8]}, "rgb_channels must have 2 numbers to go with av_ker"),
        ({"name": "time_distributed_conv", "concat_pool_sizes": [2, 2]}, "concat_pool_sizes must have 1 numbers"),
        ({"name": "time_distributed_conv", "concat_kernel_sizes": []}, "concat_kernel_sizes must name at least one"),
        ({"name": "time_distributed_conv", "activation": "tanh"}, "activation"),
        ({"name": "transformer", "num_heads": 0}, "num_heads must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_one_line_errors(options, message):
    with pytest.raises(InputError, match=message) as error:
        model_config(options)
    assert "\n" not in str(error.value)
