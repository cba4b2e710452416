"""The files that YouTube-8M's features were made with: where users get them, and what is wrong with those they have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from yt8m_tf import files
from yt8m_tf.errors import InputError

# What holds each file, by its name.
_PUBLISHED: Mapping[str, str] = {
    "classify_image_graph_def.pb": "http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz",
    "mean.npy": "http://data.yt8m.org/yt8m_pca.tgz",
    "eigenvals.npy": "http://data.yt8m.org/yt8m_pca.tgz",
    "eigenvecs.npy": "http://data.yt8m.org/yt8m_pca.tgz",
    "vggish_model.ckpt": "https://storage.googleapis.com/audioset/vggish_model.ckpt",
    "vggish_pca_params.npz": "https://storage.googleapis.com/audioset/vggish_pca_params.npz",
}


def published_file(directory: Path, name: str, flag: str, suffix: str = "") -> Path:
    """The path of a file in a directory of the user's.

    Args:
      directory: where the user has it.
      name: as it was published.
      flag: that names the directory, such as "--vggish".
      suffix: the file may also be there with this added to its name; the path has the name alone.

    Raises:
      InputError: it is not there; says where it is published.
    """
    path = directory / name
    if not path.is_file() and not (suffix and path.with_name(name + suffix).is_file()):
        source = _PUBLISHED[name]
        unpack = "" if source.endswith(name) else ", unpacked"
        raise InputError(f"{flag}={directory}: has no '{name}'; it is published at {source}{unpack}")
    return path


def published_array(directory: Path, name: str, flag: str) -> np.ndarray:
    """An array of an `.npy` file of the user's, as float64; none is unpickled.

    Raises:
      InputError: it is not there, or is no array of finite numbers.
    """
    path = published_file(directory, name, flag)
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except Exception as error:  # NumPy's reader of headers raises a dozen kinds
        raise damaged(path, f"no array of numbers: {' '.join(str(error).split())}") from error
    return _numbers(array, path, "its array")


def published_arrays(directory: Path, name: str, flag: str, shapes: Mapping[str, tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays of an `.npz` file of the user's, as float64; none is unpickled.

    Args:
      directory, name, flag: see `published_file`.
      shapes: name of each array to its shape.

    Raises:
      InputError: it is not there, is no such file, or lacks an array of finite numbers of such a shape.
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
        raise damaged(path, f"{what} holds what is no finite number")
    return array.astype(np.float64)


def damaged(path: Path, problem: str) -> InputError:
    """An error that says what is wrong with a published file, and where to get it again."""
    return InputError(f"{path}: {problem}; get it again from {_PUBLISHED[path.name]}")
