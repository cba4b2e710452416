"""What the parity tests share: models against independent float64 NumPy forward passes, written from the papers.

The weights are fetched by their paths. Tolerance: 1e-5 of the largest output, float32 against float64.
"""

import keras
import numpy as np

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model

FEATURES, NUM_CLASSES, MAX_FRAMES = {"rgb": 24, "audio": 10}, 11, 13
BATCH_SIZE = 6


def prepare(options, level, rng, num_tags=0):
    """The model with random weights and statistics, inputs, and the weights by path in float64."""
    keras.utils.set_random_seed(int(rng.integers(2**31)))
    model = build_model(options, InputSpec(level, FEATURES, NUM_CLASSES, MAX_FRAMES, num_tags))
    for variable in model.weights:
        name = variable.path.split("/")[-1]
        if name in ("gamma", "moving_variance", "scales"):  # a scale near 0 is divided by, and float32 with it
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(size=variable.shape))
    shape = (BATCH_SIZE,) if level == "video" else (BATCH_SIZE, MAX_FRAMES)
    inputs = {name: rng.normal(size=(*shape, size)).astype("float32") for name, size in FEATURES.items()}
    if level == "frame":
        inputs["num_frames"] = rng.integers(1, MAX_FRAMES + 1, BATCH_SIZE).astype("int32")
    return model, inputs, {variable.path: np.asarray(variable, "float64") for variable in model.weights}


def check(model, inputs, expected):
    outputs = model(inputs, training=False).numpy()
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(x, w, name):
    return x @ w[f"{name}/kernel"] + w.get(f"{name}/bias", 0.0)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def fc_block(x, w, name):
    x = dense(x, w, f"{name}_dense")
    mean, variance = w[f"{name}_bn/moving_mean"], w[f"{name}_bn/moving_variance"]
    return leaky((x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}_bn/gamma"] + w[f"{name}_bn/beta"])


def res_block(x, w, name, block=fc_block):
    return leaky(x + dense(block(x, w, f"{name}_inner"), w, f"{name}_outer"))


def resnet_like(branches, w, av_blocks, concat_blocks, gate=False, block=fc_block):
    outputs = {}
    for name, x in branches.items():
        x = block(x, w, f"{name}_fc")
        for i in range(av_blocks):
            x = res_block(x, w, f"{name}_res{i + 1}", block)
        outputs[name] = x
    x = np.concatenate([outputs[name] for name in ("audio", "rgb") if name in outputs], axis=1)
    for i in range(concat_blocks):
        x = res_block(x, w, f"concat_res{i + 1}", block)
    logits = dense(block(x, w, "concat_fc"), w, "logits")
    return logits * sigmoid(dense(logits, w, "context_gate")) if gate else logits


def clip_vector(inputs):
    """rgb beside audio; of clips, the means over real frames."""
    if "num_frames" not in inputs:
        return np.concatenate([inputs["rgb"], inputs["audio"]], axis=1).astype("float64")
    rows = []
    for i, count in enumerate(inputs["num_frames"]):
        parts = [inputs[name][i, :count].astype("float64").mean(axis=0) for name in ("rgb", "audio")]
        rows.append(np.concatenate(parts))
    return np.stack(rows)
