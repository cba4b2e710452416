"""Models as members of another one: each by itself, on the features that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models.registry import build_model


def member_logits(
    members: Sequence[Mapping[str, Any]], inputs: Mapping[str, keras.KerasTensor], spec: InputSpec
) -> list[keras.KerasTensor]:
    """The logits of each member, [B, C] float32.

    The variables of member number i have the paths that they have in the model alone, with `member_<i>_` before them.

    Args:
      members: of each, its `model` configuration (`{name: ..., **options}`), and in `features` those of the data that
        it reads, where these are not all.
      inputs: of the whole model, `registry.model_inputs`.
      spec: what these are.
    """
    logits = []
    for number, member in enumerate(members):
        own = member_spec(member, spec)
        model = build_model({key: value for key, value in member.items() if key != "features"}, own)
        model = renamed(model, f"member_{number}")
        given = {name: value for name, value in inputs.items() if name in own.features or name == "num_frames"}
        logits.append(ops.cast(model(given), "float32"))
    return logits


def renamed(model: keras.Model, name: str) -> keras.Model:
    """The same model with other names, its own and those of its layers: members may be of the same kind."""

    def rename(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return renamed(layer, f"{name}_{layer.name}")
        return type(layer).from_config({**layer.get_config(), "name": f"{name}_{layer.name}"})

    copy = keras.models.clone_model(model, clone_function=rename)
    return keras.Model(copy.input, copy.output, name=name)


def member_spec(member: Mapping[str, Any], spec: InputSpec) -> InputSpec:
    """What a member reads: `spec`, or some of its features."""
    names = member.get("features")
    if names is None:
        return spec
    return dataclasses.replace(spec, features={name: spec.features[name] for name in names})
