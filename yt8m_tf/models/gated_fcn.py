"""Gated fully connected networks: seven variants of one family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks
from yt8m_tf.layers.gating import context_gating
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class Hidden:
    """A hidden layer: Dense(s), and the operations after it.

    Attributes:
      residual: whether to add the layer's input to the output of the Dense.
      batch_norm: whether to normalise the result.
      activation: "relu", or "sort": sorts the values in ascending order.
    """

    residual: bool = False
    batch_norm: bool = False
    activation: Literal["relu", "sort"] = "relu"


@dataclasses.dataclass(frozen=True)
class Variant:
    """The parts of a variant, in the order of computation.

    Attributes:
      hidden: the hidden layers.
      class_heads: whether a last ReLU Dense computes `heads` values for each class, from which its logit is computed.
      gate: x * gate(Dense(x)), over the values of the last hidden layer or, with `class_heads`, over those of a class.
    """

    hidden: tuple[Hidden, ...]
    class_heads: bool = False
    gate: Callable[[Any], Any] = ops.sigmoid


_RELU = Hidden()
_SORT = Hidden(activation="sort")
_NORM = Hidden(batch_norm=True)
_RESIDUAL = Hidden(residual=True)
_RESIDUAL_NORM = Hidden(residual=True, batch_norm=True)

VARIANTS: Mapping[str, Variant] = {
    "v1": Variant((_RELU,)),
    "v2": Variant((_RELU, _RELU), class_heads=True),
    "v3": Variant((_RELU, _RELU)),
    "v4": Variant((_RELU, _RELU), gate=ops.softmax),
    "v5": Variant((_SORT, _RELU)),
    "v6": Variant((_RELU, _NORM, _RESIDUAL)),
    "v7": Variant((_RELU, _NORM, _RESIDUAL_NORM, _RESIDUAL_NORM)),
}


@dataclasses.dataclass(frozen=True)
class GatedFCNConfig:
    """The variant and its sizes.

    Attributes:
      variant: one of `VARIANTS`.
      inner_size: s, width of the hidden layers.
      heads: number of values for each class, in v2.
      dropout: rate after the gate, in [0, 1); 0 in the original's v1 and v2.
    """

    variant: Literal["v1", "v2", "v3", "v4", "v5", "v6", "v7"] = "v1"
    inner_size: int = 2048
    heads: int = 5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "inner_size", "heads")
        checks.rates(self, "dropout")


def hidden_layer(x: keras.KerasTensor, hidden: Hidden, units: int, name: str) -> keras.KerasTensor:
    """Applies a hidden layer, [B, D] to [B, units]; no bias before batch normalisation, see `blocks.fc_block`."""
    y = blocks.dense(x, units, f"{name}_dense", use_bias=not hidden.batch_norm)
    y = x + y if hidden.residual else y
    y = blocks.batch_norm(y, f"{name}_bn") if hidden.batch_norm else y
    if hidden.activation == "sort":
        return ops.sort(y, axis=-1)
    # On a CPU, Grappler of TensorFlow 2.21 fuses MatMul, BiasAdd, Add and Relu to a node that has no kernel, and then
    # leaves the whole function unoptimised. A leaky ReLU of slope 0 is the same function.
    return ops.leaky_relu(y, 0.0) if hidden.residual else ops.relu(y)


@register_model("gated_fcn", GatedFCNConfig, levels=("video",))
def build_gated_fcn(config: GatedFCNConfig, spec: InputSpec) -> keras.Model:
    """Hidden layers, a gate, dropout, Dense(C); in v2, which has values for each class, one Dense(1) for all classes.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    variant, num_outputs = VARIANTS[config.variant], spec.num_outputs
    inputs = model_inputs(spec)
    x = blocks.concat_features(inputs, spec.features)
    for i, hidden in enumerate(variant.hidden, start=1):
        x = hidden_layer(x, hidden, config.inner_size, f"hidden{i}")  # [B, s]
    if variant.class_heads:
        x = ops.relu(blocks.dense(x, num_outputs * config.heads, "heads"))
        x = ops.reshape(x, (-1, num_outputs, config.heads))  # [B, C, heads]
    x = context_gating(x, "gate", activation=variant.gate)
    x = blocks.dropout(x, config.dropout, "dropout")
    logits = blocks.class_logits(x, 1)[:, :, 0] if variant.class_heads else blocks.class_logits(x, num_outputs)
    return keras.Model(inputs, logits, name="gated_fcn")
