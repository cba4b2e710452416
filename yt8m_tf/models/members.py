"""Models as members of another model, each on the features that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from yt8m_tf.config.frames import FramesConfig
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers.masking import masked_means
from yt8m_tf.models.registry import build_model

# The keys of a member's configuration that state which data it reads.
_READS = ("features", "level")


def member_logits(
    members: Sequence[Mapping[str, Any]], inputs: Mapping[str, keras.KerasTensor], spec: InputSpec
) -> list[keras.KerasTensor]:
    """Returns the logits of each member, [B, C] float32.

    The variables of member number i keep the paths of its own model, prefixed with `member_<i>_`.

    Args:
      members: each member's `model` configuration (`{name: ..., **options}`), with `features` and `level` if its inputs
        differ from `spec`, see `member_spec`. A video-level member of a frame-level model reads the means over frames.
      inputs: inputs of the whole model, `registry.model_inputs`.
      spec: specification of these inputs.
    """
    means: Mapping[str, keras.KerasTensor] = {}
    if any(member_spec(member, spec).level != spec.level for member in members):
        means = masked_means(inputs, spec.features)
    logits = []
    for number, member in enumerate(members):
        own = member_spec(member, spec)
        model = build_model({key: value for key, value in member.items() if key not in _READS}, own)
        model = renamed(model, f"member_{number}")
        given = means if own.level != spec.level else inputs
        given = {name: value for name, value in given.items() if name in own.features or name == "num_frames"}
        logits.append(ops.cast(model(given), "float32"))
    return logits


def renamed(model: keras.Model, name: str) -> keras.Model:
    """Returns the model with a new name and new names of its layers, because members may be of the same kind.

    Layers of models within the model get the same prefix, once: `member_0_member_1_dense` in a mean of a mean.
    """

    def copied(original: keras.Model, own_name: str) -> keras.Model:
        copy = keras.models.clone_model(original, clone_function=rename)
        return keras.Model(copy.input, copy.output, name=own_name)

    def rename(layer: keras.layers.Layer) -> keras.layers.Layer:
        own_name = f"{name}_{layer.name}"
        if isinstance(layer, keras.Model):
            return copied(layer, own_name)
        return type(layer).from_config({**layer.get_config(), "name": own_name})

    return copied(model, name)


def member_spec(member: Mapping[str, Any], spec: InputSpec) -> InputSpec:
    """Returns a member's input spec: `spec`, restricted to its `features`, and at its `level` if it has one."""
    own = spec if "level" not in member else dataclasses.replace(spec, level=member["level"], frames=FramesConfig())
    names = member.get("features")
    if names is None:
        return own
    return dataclasses.replace(own, features={name: own.features[name] for name in names})
