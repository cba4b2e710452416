"""Set-up of the parity tests, which compare models with independent float64 NumPy forward passes from the papers.

Weights are accessed by their paths. The tolerance is 1e-5 of the largest output, for float32 against float64.
"""

import keras
import numpy as np

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model

FEATURES, NUM_CLASSES, MAX_FRAMES = {"rgb": 24, "audio": 10}, 11, 13
BATCH_SIZE = 6


def prepare(options, level, rng, num_tags=0, max_frames=MAX_FRAMES):
    """Returns the model with random weights and statistics, inputs, and the weights by path in float64.

    At frame level, one clip has a single frame, and another one has `max_frames`.
    """
    keras.utils.set_random_seed(int(rng.integers(2**31)))
    model = build_model(options, InputSpec(level, FEATURES, NUM_CLASSES, max_frames, num_tags))
    for variable in model.weights:
        name = variable.path.split("/")[-1]
        if name in ("gamma", "moving_variance", "scales"):  # not near 0: division enlarges errors of float32
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(size=variable.shape))
    shape = (BATCH_SIZE,) if level == "video" else (BATCH_SIZE, max_frames)
    inputs = {name: rng.normal(size=(*shape, size)).astype("float32") for name, size in FEATURES.items()}
    if level == "frame":
        inputs["num_frames"] = rng.integers(1, max_frames + 1, BATCH_SIZE).astype("int32")
        inputs["num_frames"][:2] = 1, max_frames
    return model, inputs, {variable.path: np.asarray(variable, "float64") for variable in model.weights}


def check(model, inputs, expected, alone=True):
    """Compares outputs with `expected`, in batches of several sizes if videos are scored independently (`alone`).

    The sizes include the number of classes and small numbers of parts of a model, because Keras treats a vector as a
    bias of any axis that has the same length.
    """
    for size in (BATCH_SIZE, 1, 2, 3, NUM_CLASSES) if alone else (BATCH_SIZE,):
        rows = np.arange(size) % BATCH_SIZE
        outputs = model({name: value[rows] for name, value in inputs.items()}, training=False).numpy()
        difference = np.abs(outputs - expected[rows]).max()
        assert difference <= 1e-5 * np.abs(expected).max(), f"{difference} in a batch of {size}"


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
    """Concatenates rgb and audio; of clips, the means over real frames."""
    if "num_frames" not in inputs:
        return np.concatenate([inputs["rgb"], inputs["audio"]], axis=1).astype("float64")
    return np.stack([frames.mean(axis=0) for frames in joint_clips(inputs)])


def directions(vectors, means):
    """Subtracts the means, and divides rgb and audio by their lengths: [B, D] float64, of concatenated features."""
    centred = np.asarray(vectors, "float64") - means
    parts = np.split(centred, [FEATURES["rgb"]], axis=1)
    return np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in parts], axis=1)


def clips(inputs, names=tuple(FEATURES)):
    """Yields the real frames of each clip, {feature: [n, D] float64}."""
    for i, count in enumerate(inputs["num_frames"]):
        yield {name: inputs[name][i, :count].astype("float64") for name in names}


def joint_clips(inputs):
    """Yields the real frames of each clip, with all features concatenated: [n, D] float64."""
    for clip in clips(inputs):
        yield np.concatenate([clip["rgb"], clip["audio"]], axis=1)


def relu(x):
    return np.maximum(x, 0.0)


def relu6(x):
    return np.clip(x, 0.0, 6.0)


def softmax(x):
    """Computes the softmax along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x)


def batch_norm(x, w, name):
    """Applies batch normalisation as in inference; there may be no offset."""
    x = (x - w[f"{name}/moving_mean"]) / np.sqrt(w[f"{name}/moving_variance"] + 1e-5) * w[f"{name}/gamma"]
    return x + w.get(f"{name}/beta", 0.0)


def fcn(x, w, num_layers):
    """Applies `num_layers` dense layers with ReLU, and the layer of logits."""
    for i in range(1, num_layers + 1):
        x = relu(dense(x, w, f"fcn{i}_dense"))
    return dense(x, w, "logits")


HEADS = {
    "logistic": {"name": "logistic", "context_gating": False},
    "moe": {"name": "moe", "num_mixtures": 3, "context_gating": False},
    "gated moe": {"name": "moe", "num_mixtures": 2, "context_gating": True},
}


def head(x, w, options):
    """Computes the logits [B, C] of one of `HEADS` from probabilities."""
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


def run_rnn(sequence, w, kind, layer):
    """Computes a recurrent layer by its equations, step by step.

    The GRU is PyTorch's: the reset gate is applied after the product. Keras stores its gates in the order z, r, n, and
    those of an LSTM in the order i, f, g, o.

    Args:
      sequence: [T, ..., D].
      w: weights by path.
      kind: "simple_rnn", "gru" or "lstm".
      layer: its name.

    Returns:
      Outputs [T, ..., H], and the last states, [..., H] each: h, and c of an LSTM.
    """
    kernel, recurrent, bias = (w[f"{layer}/{kind}_cell/{part}"] for part in ("kernel", "recurrent_kernel", "bias"))
    h = c = np.zeros((*np.shape(sequence[0])[:-1], len(recurrent)))
    outputs = []
    for x in sequence:
        if kind == "gru":
            (read_z, read_r, read_n), (kept_z, kept_r, kept_n) = (
                np.split(values, 3, axis=-1) for values in (x @ kernel + bias[0], h @ recurrent + bias[1])
            )
            z, r = sigmoid(read_z + kept_z), sigmoid(read_r + kept_r)
            h = (1 - z) * np.tanh(read_n + r * kept_n) + z * h
        elif kind == "lstm":
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            h = np.tanh(x @ kernel + h @ recurrent + bias)
        outputs.append(h)
    return np.stack(outputs), [h, c] if kind == "lstm" else [h]


def run_both_ways(sequence, w, kind, layer):
    """Returns the concatenated outputs of both directions, and the state of each after its last step."""
    forward, forward_states = run_rnn(sequence, w, kind, f"{layer}_forward")
    backward, backward_states = run_rnn(sequence[::-1], w, kind, f"{layer}_backward")
    return np.concatenate([forward, backward[::-1]], axis=-1), forward_states + backward_states
