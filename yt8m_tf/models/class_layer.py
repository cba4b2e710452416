"""The last layer of a model that is as wide as the classes: its weights are the classes' vectors, its input a video's.

Of the layer named "logits", as the registry has it, before any gate that comes after it. Where that layer maps single
numbers, the last layer before it that makes a number for each class.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.layers.moe import MixtureOfExperts
from yt8m_tf.models.registry import parts


def class_weights(model: keras.Model, spec: InputSpec, flag: str) -> np.ndarray:
    """One vector for each class: what the class layer multiplies its input by.

    A column of its kernel, or the mean over the class's experts (their order means nothing, so that they cannot stand
    side by side). Of a mean of several models, theirs side by side; members without such a layer, as nearest neighbours
    are, are left out.

    Args:
      model: as `checkpoints.load_trained` gives it.
      spec: of the run's data; columns of tags, which come after those of the C classes, are left out.
      flag: that messages name.

    Returns:
      [C, D] float32.

    Raises:
      InputError: no layer makes a number for each class by a kernel.
    """
    found = [_kernel(layer) for part in parts(model) if (layer := _class_layer(part, spec)) is not None]
    if not found:
        raise InputError(
            f"{flag}: model '{model.name}' has no layer with a kernel of a column for each of the"
            f" {spec.num_classes} classes; leave the flag out"
        )
    vectors = [np.ascontiguousarray(kernel[:, : spec.num_classes].T, np.float32) for kernel in found]  # type: ignore
    return np.concatenate(vectors, axis=1)


def embedding_model(model: keras.Model, spec: InputSpec, flag: str) -> keras.Model:
    """The part of a model that makes what goes into its class layer: from the same inputs to [B, D] float32.

    Its variables are the model's. Of a mean of several models, the members' side by side, in the order of
    `class_weights`, and with the same ones left out. For the logistic model these are its inputs.

    Args:
      model, spec, flag: see `class_weights`.

    Raises:
      InputError: no layer makes a number for each class from one vector of a video.
    """
    inputs = dict(model.input)
    found = _embeddings(model, inputs, spec)
    if not found:
        raise InputError(
            f"{flag}: model '{model.name}' has no layer that makes a number for each of the {spec.num_classes} classes"
            " from one vector of a video; leave the flag out, or choose a model with such a layer"
        )
    vectors = [ops.cast(vector, "float32") for vector in found]
    return keras.Model(inputs, ops.concatenate(vectors, axis=-1) if len(vectors) > 1 else vectors[0], name="embeddings")


def _embeddings(
    model: keras.Model, inputs: Mapping[str, keras.KerasTensor], spec: InputSpec
) -> list[keras.KerasTensor]:
    members = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if members:
        own = [(member, {name: inputs[name] for name in member.input}) for member in members]
        return [vector for member, given in own for vector in _embeddings(member, given, spec)]
    layer = _class_layer(model, spec)
    vector = None if layer is None or len(layer._inbound_nodes) != 1 else layer.input
    if not isinstance(vector, keras.KerasTensor) or len(vector.shape) != 2:
        return []
    return [keras.Model(model.input, vector)(dict(inputs))]


def _class_layer(model: keras.Model, spec: InputSpec) -> keras.layers.Layer | None:
    """Of a model that is no mean of others."""
    logits = [layer for layer in model.layers if layer.name.endswith("logits") and "tag_logits" not in layer.name]
    # "logits" before a gate that comes after it; then from the last layer back.
    for layer in (*logits[::-1], *model.layers[::-1]):
        kernel = _kernel(layer)
        if kernel is not None and kernel.shape[1] in (spec.num_outputs, spec.num_classes):
            return layer
    return None


def _kernel(layer: keras.layers.Layer) -> np.ndarray | None:
    """[D, outputs], if the layer has such a kernel."""
    if isinstance(layer, MixtureOfExperts):
        kernel = ops.convert_to_numpy(layer.expert_kernel)  # [D, outputs * M], output by output
        return kernel.reshape(len(kernel), layer.num_classes, layer.num_mixtures).mean(axis=2)
    kernel = getattr(layer, "kernel", None)
    return ops.convert_to_numpy(kernel) if kernel is not None and len(kernel.shape) == 2 else None
