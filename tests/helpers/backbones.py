"""Writes backbones with random weights: with the names and shapes of published ones, and small Keras models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def write_vggish(
    directory: Path, rng: np.random.Generator, channels: Sequence[int], units: Sequence[int], version: int = 1
) -> dict[str, np.ndarray]:
    """Writes a TF1 checkpoint of VGGish and the PCA; returns the weights by their published names.

    Args:
      directory: the directory, which is created.
      rng: source of the weights, which are scaled to keep activations near 1.
      channels: numbers of channels of the convolutions before each pool.
      units: widths of the dense layers.
      version: version of the checkpoint's format; the published checkpoint has the first.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kernels: dict[str, tuple[int, ...]] = {}
    a, b, c, d = channels
    for name, incoming, width in (
        *(("conv1", 1, a), ("conv2", a, b), ("conv3/conv3_1", b, c), ("conv3/conv3_2", c, c)),
        *(("conv4/conv4_1", c, d), ("conv4/conv4_2", d, d)),
    ):
        kernels[name] = (3, 3, incoming, width)
    kernels |= {
        "fc1/fc1_1": (6 * 4 * d, units[0]),
        "fc1/fc1_2": (units[0], units[1]),
        "fc2": (units[1], units[2]),
    }
    weights: dict[str, np.ndarray] = {}
    for name, shape in kernels.items():
        scale = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        weights[f"vggish/{name}/weights"] = rng.standard_normal(shape, np.float32) * scale
        weights[f"vggish/{name}/biases"] = rng.standard_normal(shape[-1:], np.float32) * np.float32(0.1)
    save = tf.raw_ops.Save if version == 1 else None
    path = str(directory / "vggish_model.ckpt")
    names, values = list(weights), list(weights.values())
    if save is not None:
        save(filename=path, tensor_names=names, data=values)
    else:
        tf.raw_ops.SaveV2(prefix=path, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
    pca = {
        "pca_eigen_vectors": rng.standard_normal((units[2], units[2]), np.float32),
        "pca_means": rng.standard_normal((units[2], 1), np.float32),
    }
    np.savez(directory / "vggish_pca_params.npz", **pca)
    return weights | pca


def write_inception(directory: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Writes a frozen TF1 graph with the published names of Inception, and the PCA.

    Like the published graph, it resizes to 299 x 299 and scales pixels by (x - 128) / 128. In place of the network, it
    multiplies the mean over the picture by a matrix "network" of [3, 2048].

    Returns:
      The arrays, by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    network = rng.standard_normal((3, 2048), np.float32)
    with tf.Graph().as_default() as graph:
        decoded = tf.compat.v1.placeholder(tf.uint8, [None, None, 3], name="DecodeJpeg")
        batch = tf.expand_dims(tf.cast(decoded, tf.float32), 0)
        resized = tf.compat.v1.image.resize_bilinear(batch, [299, 299], align_corners=False)
        scaled = (resized - 128.0) * (1 / 128.0)
        pool = tf.reduce_mean(scaled, axis=[1, 2], keepdims=True)
        pooled = tf.einsum("nijk,kd->nijd", pool, tf.constant(network))
        with tf.name_scope("pool_3"):
            tf.reshape(pooled, [1, 2048], name="_reshape")
    (directory / "classify_image_graph_def.pb").write_bytes(graph.as_graph_def().SerializeToString())
    arrays = {
        "mean": rng.standard_normal((2048, 1)),
        "eigenvals": rng.uniform(0.1, 2, (1536, 1)),
        "eigenvecs": rng.standard_normal((1536, 2048)) / 45,
    }
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)
    return arrays | {"network": network}


def write_picture_model(path: Path, widths: tuple[int, int] = (32, 64), size: int = 48, seed: int = 0) -> Path:
    """Writes a small convolutional network with random weights: [size, size, 3] in [0, 255] -> [2 * sum(widths)]."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input([size, size, 3])
    values, pooled = keras.layers.Rescaling(1 / 127.5, -1)(inputs), []
    for width, side in zip(widths, (5, 3), strict=True):
        options = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal", "name": f"conv{width}"}
        values = keras.layers.Conv2D(width, side, strides=2, **options)(values)
        pooled += [keras.layers.GlobalAveragePooling2D()(values), keras.layers.GlobalMaxPooling2D()(values)]
    keras.Model(inputs, keras.layers.Concatenate(name="pooled")(pooled)).save(str(path))
    return path
