"""An exported model in Python: NumPy arrays in, scores and names of classes out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.pipeline import scoring_batch_size
from yt8m_tf.data.records import feature_specs
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.pretrained import packaged
from yt8m_tf.serving.metadata import read_data, read_names
from yt8m_tf.serving.scorer import load_saved_model

_SIGNATURE = "features"


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The classes with the highest scores of each video, highest first.

    Attributes:
      classes: [B, k] int64 class ids; equal scores by lower id.
      scores: [B, k] float32 probabilities.
      names: B lists of k names; None if the export has no vocabulary.
    """

    classes: np.ndarray
    scores: np.ndarray
    names: list[list[str]] | None


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedModel:
    """A SavedModel that `yt8m-export` wrote, loaded by `load_export`.

    Attributes:
      data: the records that it reads: level, features, dtypes, `num_classes`.
      class_names: [C] names; None if the export has no vocabulary.
    """

    data: DataConfig
    class_names: list[str] | None
    _loaded: Any = dataclasses.field(repr=False)
    _where: str = ""

    def scores(self, features: Mapping[str, Any]) -> np.ndarray:
        """Computes the probabilities of all classes.

        Args:
          features: arrays with the values of records: at video level each feature [B, D] float32; at frame level each
            feature [B, T, D] uint8 codes, and "num_frames" [B] integers; without it, every clip has T frames.

        Returns:
          [B, C] float32 in [0, 1].

        Raises:
          InputError: a feature is missing, unknown, or of another shape or dtype.
        """
        arrays = self._checked(features)
        signature, size = self._loaded.signatures[_SIGNATURE], scoring_batch_size(self.data.level)
        (count,) = {len(array) for array in arrays.values()}
        parts = [
            signature(**{name: tf.constant(array[start : start + size]) for name, array in arrays.items()})
            for start in range(0, count, size)
        ]
        found = [part["predictions"].numpy() for part in parts]
        return np.concatenate([np.zeros((0, self.data.num_classes), np.float32), *found])

    def predict(self, features: Mapping[str, Any], top_k: int = TOP_K) -> Predictions:
        """Computes the `top_k` classes with the highest scores of each video, and their names.

        Args:
          features: see `scores`.
          top_k: k, at least 1; no more than all C classes are returned.

        Raises:
          InputError: see `scores`; or `top_k` is below 1.
        """
        if top_k < 1:
            raise InputError(f"predict: top_k must be at least 1, got {top_k}")
        scores = self.scores(features)
        classes = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        names = self.class_names
        named = None if names is None else [[names[number] for number in row] for row in classes]
        return Predictions(classes.astype(np.int64), np.take_along_axis(scores, classes, axis=1), named)

    def _checked(self, features: Mapping[str, Any]) -> dict[str, np.ndarray]:
        specs = feature_specs(self.data)
        arrays = {name: np.asarray(values) for name, values in features.items()}
        first = next((arrays[name] for name in self.data.sizes if name in arrays), None)
        if "num_frames" in specs and "num_frames" not in arrays and first is not None and first.ndim == 3:
            arrays["num_frames"] = np.full(len(first), first.shape[1], np.int32)
        if wrong := set(arrays) ^ set(specs):
            raise InputError(f"{self._where}: the model takes {', '.join(specs)}; '{min(wrong)}' is missing or unknown")
        lengths = {len(array) for array in arrays.values() if array.ndim}
        for name, spec in specs.items():
            array, dtype = arrays[name], spec.dtype.as_numpy_dtype
            same_kind = np.can_cast(array.dtype, dtype, "same_kind")
            if not same_kind or not spec.shape.is_compatible_with(array.shape) or len(lengths) != 1:
                raise InputError(
                    f"{self._where}: '{name}' is {array.dtype} {list(array.shape)}, not {spec.dtype.name}"
                    f" {spec.shape.as_list()}, or has another number of videos than the others"
                )
            arrays[name] = array.astype(dtype)
        return arrays


def load_export(directory: str | os.PathLike[str]) -> ExportedModel:
    """Loads a SavedModel that `yt8m-export` wrote; for those of others, use `yt8m-infer`.

    Args:
      directory: the SavedModel's, such as `exported/NAME/1`; "pretrained" is the model that comes with the package.

    Raises:
      InputError: there is no such SavedModel, or it cannot be loaded.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> model = yt8m_tf.load_export("exported/sample/1")
      >>> rng = np.random.default_rng(0)
      >>> found = model.predict({"rgb": rng.normal(size=(2, 24)), "audio": rng.normal(size=(2, 12))}, top_k=3)
      >>> found.scores.shape, len(found.names[0])
      ((2, 3), 3)
    """
    where = f"load_export: {os.fspath(directory)}"
    directory = packaged.saved_model(os.fspath(directory), "load_export")
    if not tf.io.gfile.exists(os.path.join(directory, "saved_model.pb")):
        raise InputError(f"{where}: no saved_model.pb there; give the directory that yt8m-export wrote")
    data = read_data(directory)
    if data is None:
        raise InputError(f"{where}: it has no metadata of yt8m-export; score other SavedModels with yt8m-infer")
    loaded = load_saved_model(directory, where)
    return ExportedModel(data, read_names(directory, data.num_classes), loaded, where)
