"""The class layer of a model: its weights are the vectors of the classes, its input is the vector of a video.

It is the layer named "logits" (see `registry`), regardless of any gate after it. If that layer maps single numbers, it
is the last layer before it with an output for each class.
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
    """Returns one vector for each class: the weights of the class layer.

    A class's vector is a column of the kernel, or the mean of the columns of its experts. (They are not concatenated,
    because their order has no meaning.) For a mean of several models, the members' vectors are concatenated; members
    without a class layer, such as nearest neighbours, are left out.

    Args:
      model: a result of `checkpoints.load_trained`.
      spec: specification of the run's data; columns of tags, which follow those of the C classes, are left out.
      flag: name of the flag for messages.

    Returns:
      [C, D] float32.

    Raises:
      InputError: no layer has a kernel with a column for each class.
    """
    found = [_kernel(layer) for part in parts(model) if (layer := _class_layer(part, spec)) is not None]
    if not found:
        raise InputError(
            f"{flag}: model '{model.name}' has no layer whose kernel has a column for each of the"
            f" {spec.num_classes} classes; leave the flag out"
        )
    vectors = [np.ascontiguousarray(kernel[:, : spec.num_classes].T, np.float32) for kernel in found]  # type: ignore
    return np.concatenate(vectors, axis=1)


def embedding_model(model: keras.Model, spec: InputSpec, flag: str) -> keras.Model:
    """Returns the part of a model before its class layer: from the same inputs to [B, D] float32.

    Its variables are those of the model. For a mean of several models, the members' embeddings are concatenated in the
    order of `class_weights`, and the same members are left out. Embeddings of the logistic model are its inputs.

    Args:
      model, spec, flag: see `class_weights`.

    Raises:
      InputError: no layer computes an output for each class from one vector of a video.
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
    """Returns the class layer of a model that is not a mean of others; None if it has none."""
    logits = [layer for layer in model.layers if layer.name.endswith("logits") and "tag_logits" not in layer.name]
    # "logits" is preferred to a gate after it; then other layers, from the last to the first.
    for layer in (*logits[::-1], *model.layers[::-1]):
        kernel = _kernel(layer)
        if kernel is not None and kernel.shape[1] in (spec.num_outputs, spec.num_classes):
            return layer
    return None


def _kernel(layer: keras.layers.Layer) -> np.ndarray | None:
    """Returns the layer's kernel [D, outputs], or None if it has no such kernel."""
    if isinstance(layer, MixtureOfExperts):
        kernel = ops.convert_to_numpy(layer.expert_kernel)  # [D, outputs * M], output by output
        return kernel.reshape(len(kernel), layer.num_classes, layer.num_mixtures).mean(axis=2)
    kernel = getattr(layer, "kernel", None)
    return ops.convert_to_numpy(kernel) if kernel is not None and len(kernel.shape) == 2 else None
