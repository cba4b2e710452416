"""The heads of pooling and recurrent models: logistic or a mixture of experts, with or without a gate."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.layers import blocks
from yt8m_tf.layers.moe import MixtureOfExperts


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """The head of a model.

    Attributes:
      name: "logistic", or "moe": a mixture of logistic experts per class.
      num_mixtures: number of experts of each class, without the dummy expert of probability 0.
      l2: weight of the kernels' sums of squares in the loss.
      context_gating: whether to apply context gating to the predicted probabilities.
    """

    name: Literal["logistic", "moe"] = "logistic"
    num_mixtures: int = 2
    l2: float = 0.0
    context_gating: bool = False

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "num_mixtures")
        checks.at_least(self, 0, "l2")


@dataclasses.dataclass(frozen=True)
class StarterMoEConfig(HeadConfig):
    """`HeadConfig` with the starter code's defaults: a mixture of two experts."""

    name: Literal["logistic", "moe"] = "moe"
    l2: float = 1e-8


def head_logits(x: keras.KerasTensor, config: HeadConfig, num_outputs: int) -> keras.KerasTensor:
    """Applies a head, [B, D] to [B, num_outputs] float32 logits; a bias at the prior applies before the gate."""
    if config.name == "moe":
        logits = MixtureOfExperts(num_outputs, config.num_mixtures, config.l2, name="logits")(x)
    else:
        logits = blocks.class_logits(x, num_outputs, l2=config.l2)
    if not config.context_gating:
        return logits
    gates = blocks.dense(ops.sigmoid(logits), num_outputs, "context_gate", dtype="float32")
    return gated_log_odds(logits, gates)


def gated_log_odds(logits: Any, gates: Any) -> Any:
    """Computes the log-odds of sigmoid(logits) * sigmoid(gates), of any equal shapes, without the probability itself.

    This is the context gating of probabilities that https://arxiv.org/abs/1706.06905 applies after its mixture of
    experts; here the gate has a bias instead of batch normalisation.
    """
    # 1 - p * q = (1 - p) + p * (1 - q), all terms positive.
    log_yes = ops.log_sigmoid(logits) + ops.log_sigmoid(gates)
    log_no = ops.logaddexp(ops.log_sigmoid(-logits), ops.log_sigmoid(logits) + ops.log_sigmoid(-gates))
    return log_yes - log_no
