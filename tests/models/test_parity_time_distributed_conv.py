"""Convolutions over frames against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import FEATURES, batch_norm, check, clips, dense, leaky, prepare, relu


def conv_block(x, w, name, activation):
    kernel = w[f"{name}_conv/kernel"]
    width = len(kernel)
    rows = [np.einsum("kd,kdc->c", x[t : t + width], kernel) for t in range(len(x) - width + 1)]
    x = batch_norm(np.stack(rows) + w[f"{name}_conv/bias"], w, f"{name}_bn")
    return {"none": lambda v: v, "leaky_relu": leaky, "relu": relu}[activation](x)


def pool(x, width):
    return np.stack([x[width * i : width * (i + 1)].max(axis=0) for i in range(len(x) // width)])


@pytest.mark.parametrize("max_frames", [13, 303])
@pytest.mark.parametrize(
    ("av_kernels", "av_pools", "concat_kernels", "concat_pools", "min_frames", "activation"),
    [
        ([3, 2], [2, 1], [2], [], 8, "leaky_relu"),
        ([2], [3], [3, 1, 2], [1, 2], 19, "relu"),
        ([], [], [2], [], 2, "none"),
    ],
)
def test_time_distributed_conv(
    av_kernels, av_pools, concat_kernels, concat_pools, min_frames, activation, max_frames, rng
):
    channels = {"rgb": [12, 10][: len(av_kernels)], "audio": [6, 7][: len(av_kernels)]}
    options = {"name": "time_distributed_conv", "av_kernel_sizes": av_kernels, "av_pool_sizes": av_pools}
    options |= {"concat_kernel_sizes": concat_kernels, "concat_pool_sizes": concat_pools, "activation": activation}
    options |= {f"{name}_channels": sizes for name, sizes in channels.items()}
    options["concat_channels"] = [16, 14, 12][: len(concat_kernels)]
    model, inputs, w = prepare(options, "frame", rng, max_frames=max_frames)
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
