"""Inception-v3 as a frozen TF1 graph, with the PCA of YouTube-8M's visual features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_tf.errors import InputError
from yt8m_tf.extraction.published import damaged, published_array, published_file

_FLAG = "--inception"
_GRAPH = "classify_image_graph_def.pb"
# The graph takes decoded images of any size, and scales and resizes them itself.
_INPUT, _OUTPUT = "DecodeJpeg:0", "pool_3/_reshape:0"
_NUM_POOLED, _NUM_COMPONENTS = 2048, 1024
_EPSILON = 1e-4


class Inception:
    """Visual features of YouTube-8M: the last pooling layer of Inception-v3, after PCA with whitening.

    Args:
      directory: the directory of `classify_image_graph_def.pb`, `mean.npy`, `eigenvals.npy` and `eigenvecs.npy`.

    Attributes:
      size: 1024.

    Raises:
      InputError: a file is missing, damaged or of another network.
    """

    size = _NUM_COMPONENTS

    def __init__(self, directory: Path):
        self._pool = _load_graph(published_file(directory, _GRAPH, _FLAG))
        wanted = {
            "mean.npy": (_NUM_POOLED, 1),
            "eigenvals.npy": (_NUM_COMPONENTS, 1),
            "eigenvecs.npy": (_NUM_COMPONENTS, _NUM_POOLED),
        }
        arrays = {}
        for name, shape in wanted.items():
            array = arrays[name] = published_array(directory, name, _FLAG)
            if array.ndim != 2 or array.shape[0] < shape[0] or array.shape[1] != shape[1]:
                raise damaged(directory / name, f"has the shape {array.shape}, where the PCA has {shape} or more rows")
        values = arrays["eigenvals.npy"][:_NUM_COMPONENTS, 0]
        if (values < 0).any():
            raise damaged(directory / "eigenvals.npy", f"has {int((values < 0).sum()):,} values below 0")
        self._mean = arrays["mean.npy"][:_NUM_POOLED, 0]
        self._projection = arrays["eigenvecs.npy"][:_NUM_COMPONENTS].T / np.sqrt(values + _EPSILON)  # [2048, 1024]

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """Runs the network, which takes one picture at a time: [H, W, 3] uint8 -> [2048] float32."""
        return self._pool(tf.constant(picture)).numpy()[0]

    def __call__(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Computes the features of prepared pictures: N of [2048] -> [N, 1024] float32."""
        return ((np.stack(prepared).astype(np.float64) - self._mean) @ self._projection).astype(np.float32)


def _load_graph(path: Path) -> tf.types.experimental.ConcreteFunction:
    """Returns the function from a picture [H, W, 3] uint8 to the output of the pooling layer, [1, 2048] float32."""
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
        imported = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
        pool = imported.prune(_INPUT, _OUTPUT)
    except (DecodeError, ValueError, KeyError, OSError, tf.errors.OpError) as error:
        raise damaged(path, f"not a frozen graph from '{_INPUT}' to '{_OUTPUT}' ({_one_line(error)})") from error

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def run(picture: tf.Tensor) -> tf.Tensor:
        return pool(picture)

    try:
        shape = tuple(run(tf.zeros([8, 8, 3], tf.uint8)).shape)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise damaged(path, f"does not run ({_one_line(error)})") from error
    if shape != (1, _NUM_POOLED):
        raise InputError(f"{path}: '{_OUTPUT}' has the shape {shape}, where Inception-v3's has (1, {_NUM_POOLED})")
    return run.get_concrete_function()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
