"""Finds and checks the published files with which YouTube-8M's features were made, and says where to get them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from yt8m_tf import files
from yt8m_tf.errors import InputError

# Where each file is published, by its name.
_PUBLISHED: Mapping[str, str] = {
    "classify_image_graph_def.pb": "http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz",
    "mean.npy": "http://data.yt8m.org/yt8m_pca.tgz",
    "eigenvals.npy": "http://data.yt8m.org/yt8m_pca.tgz",
    "eigenvecs.npy": "http://data.yt8m.org/yt8m_pca.tgz",
    "vggish_model.ckpt": "https://storage.googleapis.com/audioset/vggish_model.ckpt",
    "vggish_pca_params.npz": "https://storage.googleapis.com/audioset/vggish_pca_params.npz",
}


def published_file(directory: Path, name: str, flag: str, suffix: str = "") -> Path:
    """Returns the path of a published file in a user's directory.

    Args:
      directory: the user's directory.
      name: the file's name, as published.
      flag: the flag that names the directory, such as "--vggish".
      suffix: a file whose name has this suffix also counts; the returned path never has it.

    Raises:
      InputError: the file does not exist; the message says where it is published.
    """
    path = directory / name
    if not path.is_file() and not (suffix and path.with_name(name + suffix).is_file()):
        source = _PUBLISHED[name]
        unpack = "" if source.endswith(name) else ", unpacked"
        raise InputError(f"{flag}={directory}: has no '{name}'; it is published at {source}{unpack}")
    return path


def published_array(directory: Path, name: str, flag: str) -> np.ndarray:
    """Reads the array of a user's `.npy` file as float64, without unpickling.

    Raises:
      InputError: the file does not exist, or is not an array of finite numbers.
    """
    path = published_file(directory, name, flag)
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except Exception as error:  # NumPy raises a dozen types for bad headers
        raise damaged(path, f"not an array of numbers: {' '.join(str(error).split())}") from error
    return _numbers(array, path, "its array")


def published_arrays(directory: Path, name: str, flag: str, shapes: Mapping[str, tuple[int, ...]]) -> list[np.ndarray]:
    """Reads arrays of a user's `.npz` file as float64, without unpickling.

    Args:
      directory, name, flag: see `published_file`.
      shapes: name of each array to its shape.

    Raises:
      InputError: the file does not exist, is not an `.npz` file, or lacks an array of finite numbers of a given shape.
    """
    path = published_file(directory, name, flag)
    try:
        with path.open("rb") as file:
            found = files.read_arrays(file)
    except ValueError as error:
        raise damaged(path, str(error)) from error
    for own, shape in shapes.items():
        if own not in found or found[own].shape != shape:
            raise damaged(path, f"has no array '{own}' of shape {shape}")
    return [_numbers(found[own], path, f"'{own}'") for own in shapes]


def _numbers(array: object, path: Path, what: str) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise damaged(path, f"{what} has values that are not finite")
    return array.astype(np.float64)


def damaged(path: Path, problem: str) -> InputError:
    """Returns an error that says what is wrong with a published file, and where to get it again."""
    return InputError(f"{path}: {problem}; get it again from {_PUBLISHED[path.name]}")
