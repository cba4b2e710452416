"""YouTube-8M's own features: random weights with the published names and shapes, against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from backbones import write_inception, write_vggish

from yt8m_tf.errors import InputError
from yt8m_tf.extraction.inception import Inception
from yt8m_tf.extraction.log_mel import log_mel
from yt8m_tf.extraction.vggish import CHANNELS, UNITS, VGGish

_SMALL = {"channels": (4, 6, 8, 10), "units": (24, 20, 16)}


def _convolution(values: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3 x 3 convolution with zero padding, then ReLU: [H, W, I] -> [H, W, O]."""
    height, width, _ = values.shape
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
    total = np.zeros((height, width, kernel.shape[-1]))
    for i in range(3):
        for j in range(3):
            total += padded[i : i + height, j : j + width] @ kernel[i, j]
    return np.maximum(total + bias, 0)


def _pool(values: np.ndarray) -> np.ndarray:
    height, width, channels = values.shape
    return values.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))


def _vggish(example: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """VGGish as published, in float64: [96, 64] -> [128], whitened."""
    values = example[..., None].astype(np.float64)

    def of(name: str) -> tuple[np.ndarray, np.ndarray]:
        return weights[f"vggish/{name}/weights"].astype(np.float64), weights[f"vggish/{name}/biases"]

    values = _pool(_convolution(values, *of("conv1")))
    values = _pool(_convolution(values, *of("conv2")))
    values = _pool(_convolution(_convolution(values, *of("conv3/conv3_1")), *of("conv3/conv3_2")))
    values = _pool(_convolution(_convolution(values, *of("conv4/conv4_1")), *of("conv4/conv4_2")))
    flat = values.reshape(-1)
    for name in ("fc1/fc1_1", "fc1/fc1_2"):
        kernel, bias = of(name)
        flat = np.maximum(flat @ kernel + bias, 0)
    kernel, bias = of("fc2")
    return weights["pca_eigen_vectors"] @ (flat @ kernel + bias - weights["pca_means"][:, 0])


@pytest.mark.parametrize("version", [1, 2])
def test_vggish(version: int, tmp_path: Path, rng: np.random.Generator) -> None:
    weights = write_vggish(tmp_path / "with [brackets]", rng, **_SMALL, version=version)
    backbone = VGGish(tmp_path / "with [brackets]", **_SMALL)
    seconds = rng.uniform(-1, 1, (3, 16000)).astype(np.float32)
    wanted = [_vggish(example, weights) for example in log_mel(seconds)]
    found = backbone(seconds)
    assert found.shape == (3, 16) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_vggish_in_full_size(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = write_vggish(tmp_path, rng, CHANNELS, UNITS)
    seconds = rng.uniform(-1, 1, (1, 16000)).astype(np.float32)
    (found,) = VGGish(tmp_path)(seconds)
    np.testing.assert_allclose(found, _vggish(log_mel(seconds)[0], weights), rtol=1e-3, atol=1e-3)


def _bilinear(picture: np.ndarray, size: int) -> np.ndarray:
    """TF1's bilinear resizing without aligned corners: output pixel i is at i * H / size."""
    height, width, _ = picture.shape
    result = picture.astype(np.float64)
    for axis, length in ((0, height), (1, width)):
        places = np.arange(size) * length / size
        low = np.floor(places).astype(int)
        high, share = np.minimum(low + 1, length - 1), places - low
        share = share[:, None, None] if axis == 0 else share[None, :, None]
        result = np.take(result, low, axis) * (1 - share) + np.take(result, high, axis) * share
    return result


def test_inception(tmp_path: Path, rng: np.random.Generator) -> None:
    """Pictures of any size are passed on as is; y = (pool - m) V / sqrt(L + 1e-4) with the first 1,024 components."""
    arrays = write_inception(tmp_path, rng)
    backbone = Inception(tmp_path)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((40, 60, 3), (301, 299, 3))]
    wanted = []
    for picture in pictures:
        pool = ((_bilinear(picture, 299) - 128) / 128).mean(axis=(0, 1)) @ arrays["network"].astype(np.float64)
        mean, values = arrays["mean"][:, 0], arrays["eigenvals"][:1024, 0]
        wanted.append((pool - mean) @ arrays["eigenvecs"].T[:, :1024] / np.sqrt(values + 1e-4))
    found = backbone([backbone.prepare(picture) for picture in pictures])
    assert found.shape == (2, 1024) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("classify_image_graph_def.pb", "inception-2015-12-05.tgz, unpacked"),
        ("mean.npy", "yt8m_pca.tgz, unpacked"),
        ("eigenvals.npy", "yt8m_pca.tgz, unpacked"),
        ("eigenvecs.npy", "yt8m_pca.tgz, unpacked"),
        ("vggish_model.ckpt", "audioset/vggish_model.ckpt"),
        ("vggish_pca_params.npz", "audioset/vggish_pca_params.npz"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "noise", "other"])
def test_a_missing_or_damaged_file_gives_a_one_line_error_with_its_url(
    name: str, where: str, damage: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_inception(tmp_path, rng)
    write_vggish(tmp_path, rng, **_SMALL)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        other = {".npy": lambda: np.save(path, np.ones((3, 3))), ".npz": lambda: np.savez(path, x=np.ones(3))}
        other |= {".ckpt": lambda: _other_checkpoint(path), ".pb": lambda: path.write_bytes(_other_graph())}
        other[path.suffix]()
    else:
        path.write_bytes(b"" if damage == "empty" else rng.bytes(3000))
    with pytest.raises(InputError) as error:
        Inception(tmp_path) if where.endswith("unpacked") else VGGish(tmp_path, **_SMALL)
    message = str(error.value)
    assert name in message and where.removesuffix(", unpacked") in message and "\n" not in message
    if damage == "missing":
        assert where in message


def _other_checkpoint(path: Path) -> None:
    tf.raw_ops.Save(filename=str(path), tensor_names=["vggish/conv1/weights"], data=[tf.ones([3, 3])])


def _other_graph() -> bytes:
    with tf.Graph().as_default() as graph:
        tf.constant(1.0, name="one")
    return graph.as_graph_def().SerializeToString()
