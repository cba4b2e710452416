"""Activations of a model, by layer name."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.config.strict_yaml import nearest
from yt8m_tf.errors import InputError
from yt8m_tf.models.class_layer import embedding_model

EMBEDDINGS = "embeddings"


def activations(model: keras.Model, spec: InputSpec, names: Sequence[str] = (EMBEDDINGS,)) -> keras.Model:
    """Returns a model with the same inputs and weights whose outputs are activations, by layer name.

    Args:
      model: a model of `build_model`.
      spec: its input specification.
      names: "embeddings", the [B, D] float32 input of the last layer with an output for each class (as in
        `yt8m-export --embeddings`); "logits", the output of the layer of that name; or the name of any other layer of
        `model.layers`.

    Returns:
      A functional model from the inputs of `model` to {name: tensor}.

    Raises:
      InputError: the model has no such layer, or no embeddings.

    Example:
      >>> import yt8m_tf
      >>> spec = yt8m_tf.InputSpec(features={"rgb": 24, "audio": 12}, num_classes=20)
      >>> model = yt8m_tf.build_model("fcn", spec, hidden_sizes=[32, 16])
      >>> inner = yt8m_tf.activations(model, spec, ["embeddings", "logits"])
      >>> {name: tensor.shape for name, tensor in inner.output.items()}
      {'embeddings': (None, 16), 'logits': (None, 20)}
    """
    layers = {layer.name: layer for layer in model.layers}
    outputs = {}
    for name in names:
        if name == EMBEDDINGS:
            outputs[name] = embedding_model(model, spec, "activations")(dict(model.input))
        elif name in layers:
            outputs[name] = layers[name].output
        else:
            raise InputError(f"activations: model '{model.name}' has no layer '{name}'{nearest(name, layers)}")
    return keras.Model(model.input, outputs, name=f"{model.name}_activations")
