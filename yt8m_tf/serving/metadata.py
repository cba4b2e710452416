"""The metadata of a SavedModel, in its `assets/metadata.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import tensorflow as tf

import yt8m_tf
from yt8m_tf.config import stored, strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.segments import SegmentsConfig
from yt8m_tf.errors import InputError
from yt8m_tf.vocabulary import load_vocabulary

METADATA_FILE = "metadata.json"
VOCABULARY_FILE = "vocabulary.csv"


def describe(data: DataConfig, precision: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model's metadata: its records, the precision of its weights, the versions of packages, and `more`."""
    return {
        "level": data.level,
        "features": data.sizes,
        "num_classes": data.num_classes,
        "precision": precision,
        "data": without_paths(strict_yaml.to_dict(data)),
        "versions": versions(),
        **more,
    }


def versions() -> dict[str, str]:
    """Returns the versions of this package and of the packages that its results depend on."""
    return {"yt8m_tf": yt8m_tf.__version__, "tensorflow": tf.__version__, "keras": metadata.version("keras")}


def without_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration's section `data` without paths of files, which mean nothing where the model is used."""
    places = ("train", "validation", "test", "vocabulary")
    return {key: value for key, value in data.items() if key not in places}


def read_data(directory: str | os.PathLike[str]) -> DataConfig | None:
    """Reads which records a SavedModel takes; None without metadata.

    Raises:
      InputError: the metadata is not valid; the message names the file.
    """
    metadata = read_metadata(directory)
    if metadata is None:
        return None
    try:
        return strict_yaml.parse(DataConfig, stored.completed_data(metadata["data"]), "data")
    except InputError as error:
        raise _damaged(directory, error) from error


def read_context(directory: str | os.PathLike[str]) -> int:
    """Reads how many frames around a rated segment a model was trained with, on each side; 0 for a model of clips.

    Raises:
      InputError: see `read_data`.
    """
    experiment = (read_metadata(directory) or {}).get("experiment")
    data = experiment.get("data") if isinstance(experiment, dict) else None
    segments = data.get("segments") if isinstance(data, dict) else None
    try:
        return 0 if segments is None else strict_yaml.parse(SegmentsConfig, segments, "data.segments").context
    except InputError as error:
        raise _damaged(directory, error) from error


def read_names(directory: str | os.PathLike[str], num_classes: int | None = None) -> list[str] | None:
    """Reads the names of classes from a SavedModel; None if it has none.

    Args:
      directory: directory of the SavedModel.
      num_classes: C; None: as many as there are names.

    Raises:
      InputError: the names are not those of its classes.
    """
    path = os.path.join(os.fspath(directory), "assets", VOCABULARY_FILE)
    return load_vocabulary(path, num_classes) if tf.io.gfile.exists(path) else None


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Reads the metadata of a SavedModel that `saved_model` wrote; None if it has none, or a file of others.

    Raises:
      InputError: the file is damaged.
    """
    try:
        with tf.io.gfile.GFile(_path(directory)) as file:
            contents = json.load(file)
    except tf.errors.NotFoundError:
        return None
    except (tf.errors.OpError, ValueError, RecursionError) as error:
        raise _damaged(directory, f"not JSON: {strict_yaml.one_line(error)}") from error
    if not isinstance(contents, dict) or "yt8m_tf" not in str(contents.get("versions")):
        return None
    if not isinstance(contents.get("data"), dict):
        raise _damaged(directory, "its section 'data' is missing")
    return contents


def _path(directory: str | os.PathLike[str]) -> str:
    return os.path.join(os.fspath(directory), "assets", METADATA_FILE)


def _damaged(directory: str | os.PathLike[str], reason: object) -> InputError:
    return InputError(f"{_path(directory)}: {reason}; export or fetch the model again")
