"""Models as members of another one: each by itself, on the features that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from yt8m_tf.config.frames import FramesConfig
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers.masking import clip_mask, masked_mean
from yt8m_tf.models.registry import build_model

# Of a member's configuration what says which of the data it reads.
_READS = ("features", "level")


def member_logits(
    members: Sequence[Mapping[str, Any]], inputs: Mapping[str, keras.KerasTensor], spec: InputSpec
) -> list[keras.KerasTensor]:
    """The logits of each member, [B, C] float32.

    The variables of member number i have the paths that they have in the model alone, with `member_<i>_` before them.

    Args:
      members: of each, its `model` configuration (`{name: ..., **options}`), and beside it what it reads otherwise than
        `spec` has it, see `member_spec`. A member of videos in a model of clips gets the means of their frames.
      inputs: of the whole model, `registry.model_inputs`.
      spec: what these are.
    """
    means: Mapping[str, keras.KerasTensor] = {}
    if any(member_spec(member, spec).level != spec.level for member in members):
        mask = clip_mask(inputs)
        means = {name: masked_mean(inputs[name], mask) for name in spec.features}
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
    """The same model with other names, its own and those of its layers: members may be of the same kind."""

    def rename(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return renamed(layer, f"{name}_{layer.name}")
        return type(layer).from_config({**layer.get_config(), "name": f"{name}_{layer.name}"})

    copy = keras.models.clone_model(model, clone_function=rename)
    return keras.Model(copy.input, copy.output, name=name)


def member_spec(member: Mapping[str, Any], spec: InputSpec) -> InputSpec:
    """Returns a member's input spec: `spec`, restricted to its `features`, and at its `level` if it has one."""
    own = spec if "level" not in member else dataclasses.replace(spec, level=member["level"], frames=FramesConfig())
    names = member.get("features")
    if names is None:
        return own
    return dataclasses.replace(own, features={name: own.features[name] for name in names})
