"""Rebuilds the Keras model of an exported SavedModel from its metadata and weights."""

from __future__ import annotations

from pathlib import Path

import keras

from yt8m_tf import models
from yt8m_tf.config import stored
from yt8m_tf.config.data import DataConfig
from yt8m_tf.errors import InputError
from yt8m_tf.serving.metadata import read_data, read_metadata
from yt8m_tf.serving.scorer import load_saved_model
from yt8m_tf.serving.weights import read_weights


def load_exported(directory: Path, where: str) -> tuple[keras.Model, DataConfig]:
    """Rebuilds the model of a SavedModel of yt8m-export, with its stored weights.

    The SavedModel's own graph takes features as records store them, and thus no computed inputs such as mixed frames.

    Args:
      directory: the SavedModel's; it may contain an ensemble or a packed model.
      where: the key or flag and its value, for messages.

    Returns:
      The model, from decoded features to [B, C] float32 logits without tags, and the configuration of its records.

    Raises:
      InputError: yt8m-export did not write the SavedModel, or it lacks weights of the model that its metadata names.
    """
    metadata, data = read_metadata(directory), read_data(directory)
    if metadata is None or data is None or not isinstance(metadata.get("model"), dict):
        raise InputError(
            f"{where}: a SavedModel that does not say how to build its model; name a run directory, or a SavedModel"
            " that yt8m-export wrote"
        )
    model = models.build_model(stored.completed({"model": metadata["model"]})["model"], data.spec)
    weights = read_weights(load_saved_model(directory, where))
    for variable in model.weights:
        if (found := weights.get(variable.path)) is None or found.shape != tuple(variable.shape):
            there = "none" if found is None else f"one of {list(found.shape)}"
            raise InputError(
                f"{where}: its metadata names model '{metadata['model'].get('name')}', which needs the weight"
                f" '{variable.path}' {list(variable.shape)}, but it has {there}; export it again"
            )
        variable.assign(found)
    if data.spec.num_tags:
        model = keras.Model(model.input, model.output[:, : data.num_classes], name=model.name)
    return model, data
