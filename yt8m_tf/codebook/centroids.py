"""The file of centroids that `yt8m-kmeans` writes and the model cluster_resnet starts from.

It is a NumPy archive (.npz): `centroids` [K, D] float32, of decoded frames with their features concatenated in the
order of `feature_names` and `feature_sizes`; `inertia`, the sum of the sampled frames' squared distances to the nearest
centroid; `num_frames` of the sample; `seed`.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.regular import check_regular


@dataclasses.dataclass(frozen=True)
class Clustering:
    """Centroids, and how well they represent the frames that they were fitted to.

    Attributes:
      centroids: [K, D] float32.
      features: feature name to size D', in the order of the columns.
      num_frames: frames of the sample.
      seed: seed of the sample and the fit.
      inertia: sum of squared distances of the frames to their nearest centroids.
      total_inertia: the same with the mean frame as the only centroid.
      num_empty: centroids that are nearest to no frame.
    """

    centroids: np.ndarray
    features: Mapping[str, int]
    num_frames: int
    seed: int
    inertia: float
    total_inertia: float
    num_empty: int

    @property
    def mean_squared_distance(self) -> float:
        """The mean squared distance of frames to their nearest centroids."""
        return self.inertia / self.num_frames

    @property
    def explained(self) -> float:
        """The share of the frames' variance that is between clusters, not within: 1 if every frame is a centroid."""
        return 1.0 - self.inertia / self.total_inertia if self.total_inertia else 1.0


def write(clustering: Clustering, output: Path) -> None:
    """Writes the file of centroids, which appears only when complete.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        with files.whole_file(output) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                centroids=clustering.centroids,
                feature_names=np.array(list(clustering.features)),
                feature_sizes=np.array(list(clustering.features.values()), np.int64),
                inertia=np.float64(clustering.inertia),
                num_frames=np.int64(clustering.num_frames),
                seed=np.int64(clustering.seed),
            )
    except OSError as error:
        raise InputError(f"--output={output}: cannot be written ({error.strerror}); name another file") from error


def load_centroids(model: Any, path: str, features: Mapping[str, int], data_dir: str = "") -> None:
    """Assigns the centroids of a file to the layer "codebook" of a new model.

    Args:
      model: a `keras.Model` with such a layer.
      path: path of the file, relative to `data_dir` unless it is absolute or has a scheme, such as "gs://".
      features: the model's features, in the order in which it concatenates them.
      data_dir: see `path`.

    Raises:
      InputError: the file does not exist, is not from `yt8m-kmeans`, or has another number of clusters or other
        features.
    """
    variable = model.get_layer("codebook").centroids
    path = files.below(data_dir, path)
    where, flags = f"configuration key 'model.centroids': '{path}'", as_flag(features)
    check_regular(path, "configuration key 'model.centroids': ")
    try:
        archive = files.read_arrays(io.BytesIO(tf.io.gfile.GFile(path, "rb").read()))
        centroids, names, sizes = (archive[key] for key in ("centroids", "feature_names", "feature_sizes"))
        found = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        right = centroids.ndim == 2 and centroids.dtype.kind == "f" and np.isfinite(centroids).all()
        if not right or not all(isinstance(name, str) for name in found):
            raise ValueError("other arrays than those of a clustering")
    except tf.errors.OpError as error:
        reason = files.why_unreadable(error)
        remedy = (
            f"fit centroids with yt8m-kmeans --num_clusters={variable.shape[0]} --features={flags}, or name a file of"
            " such centroids"
        )
        raise InputError(f"{where} cannot be read ({reason}); {remedy}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is not a file of centroids; name one that yt8m-kmeans wrote") from error
    if list(found.items()) != list(features.items()):
        raise InputError(
            f"{where} is of the features {as_flag(found)}, data.features has {flags}; make data.features the same, in"
            f" the same order, or run yt8m-kmeans with --features={flags}"
        )
    if centroids.shape != tuple(variable.shape):
        raise InputError(
            f"{where} contains {len(centroids)} centroids, not model.num_clusters: {variable.shape[0]}; set"
            f" model.num_clusters: {len(centroids)}, or run yt8m-kmeans with --num_clusters={variable.shape[0]}"
        )
    variable.assign(centroids)


def as_flag(features: Mapping[str, int]) -> str:
    """Formats features as the flag `--features` takes them."""
    return ",".join(f"{name}:{size}" for name, size in features.items())
