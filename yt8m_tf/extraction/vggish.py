"""VGGish, with the weights and the PCA of YouTube-8M's audio features.

S. Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017. The weights are those of the
published TF1 checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.extraction.log_mel import NUM_BANDS, NUM_STEPS, log_mel
from yt8m_tf.extraction.published import damaged, published_arrays, published_file

_FLAG = "--vggish"
_CHECKPOINT, _PCA = "vggish_model.ckpt", "vggish_pca_params.npz"
# Each group of convolutions is followed by a pooling layer.
_CONVOLUTIONS = (("conv1",), ("conv2",), ("conv3/conv3_1", "conv3/conv3_2"), ("conv4/conv4_1", "conv4/conv4_2"))
_DENSE = ("fc1/fc1_1", "fc1/fc1_2", "fc2")
CHANNELS = (64, 128, 256, 512)  # of the groups of convolutions
UNITS = (4096, 4096, 128)  # of the dense layers


class VGGish:
    """Audio features of YouTube-8M: embeddings of VGGish after PCA with whitening.

    Args:
      directory: the directory of `vggish_model.ckpt` and `vggish_pca_params.npz`.
      channels, units: sizes of the network's layers; only tests change the published ones.

    Attributes:
      size: 128.

    Raises:
      InputError: a file is missing, damaged or of another network.
    """

    def __init__(self, directory: Path, channels: Sequence[int] = CHANNELS, units: Sequence[int] = UNITS):
        self.size = units[-1]
        path = published_file(directory, _CHECKPOINT, _FLAG, suffix=".index")
        weights = _load(path, _shapes(channels, units))
        shapes = {"pca_eigen_vectors": (self.size, self.size), "pca_means": (self.size, 1)}
        self._vectors, self._means = published_arrays(directory, _PCA, _FLAG, shapes)

        @tf.function(input_signature=[tf.TensorSpec([None, NUM_STEPS, NUM_BANDS], tf.float32)])
        def embed(examples: tf.Tensor) -> tf.Tensor:
            return _network(examples, weights)

        self._embed = embed

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Computes the features of sound: [N, 16000] float32 in [-1, 1] -> [N, 128] float32."""
        embeddings = self._embed(log_mel(seconds)).numpy().astype(np.float64)
        return ((embeddings - self._means[:, 0]) @ self._vectors.T).astype(np.float32)


def _network(examples: tf.Tensor, weights: dict[str, tf.Tensor]) -> tf.Tensor:
    """Maps [N, 96, 64] log-mel examples to [N, 128] embeddings, before any activation (`vggish/fc2/BiasAdd`)."""
    values = examples[..., None]
    for group in _CONVOLUTIONS:
        for name in group:
            convolved = tf.nn.conv2d(values, weights[f"{name}/weights"], strides=1, padding="SAME")
            values = tf.nn.relu(convolved + weights[f"{name}/biases"])
        values = tf.nn.max_pool2d(values, ksize=2, strides=2, padding="SAME")
    values = tf.reshape(values, [tf.shape(values)[0], -1])
    for name in _DENSE:
        values = values @ weights[f"{name}/weights"] + weights[f"{name}/biases"]
        if name != _DENSE[-1]:
            values = tf.nn.relu(values)
    return values


def _shapes(channels: Sequence[int], units: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every weight, by its name below "vggish/"."""
    shapes: dict[str, tuple[int, ...]] = {}
    incoming = 1
    for group, width in zip(_CONVOLUTIONS, channels, strict=True):
        for name in group:
            shapes[f"{name}/weights"], shapes[f"{name}/biases"] = (3, 3, incoming, width), (width,)
            incoming = width
    pools = 2 ** len(_CONVOLUTIONS)
    incoming *= (NUM_STEPS // pools) * (NUM_BANDS // pools)
    for name, width in zip(_DENSE, units, strict=True):
        shapes[f"{name}/weights"], shapes[f"{name}/biases"] = (incoming, width), (width,)
        incoming = width
    return shapes


def _load(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, tf.Tensor]:
    try:
        reader = tf.train.load_checkpoint(files.plain(path.parent) + f"/{path.name}")
        saved = reader.get_variable_to_shape_map()
        for name, shape in shapes.items():
            if (found := saved.get(f"vggish/{name}")) is None or tuple(found) != shape:
                problem = "is missing" if found is None else f"has the shape {tuple(found)}"
                raise damaged(path, f"variable 'vggish/{name}' {problem}, where VGGish has {shape}")
        weights = {name: tf.constant(reader.get_tensor(f"vggish/{name}"), tf.float32) for name in shapes}
    except InputError:
        raise
    except (tf.errors.OpError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(path, f"not a readable checkpoint ({' '.join(str(error).split())[:200]})") from error
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise damaged(path, f"variable 'vggish/{name}' has values that are not finite")
    return weights
