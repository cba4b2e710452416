"""Several models in one graph: the weighted mean of their probabilities or logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models.members import member_logits
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class WeightedMeanConfig:
    """The members.

    Attributes:
      members: each member's `model` configuration (`{name: ..., **options}`), with `features` and `level` if its inputs
        differ from those of the whole model (`members.member_spec`).
      weights: weights of the members, 0 or more; they are divided by their sum. Equal by default.
      average: mean of "probabilities", or of "logits", which gives more influence to confident members.
    """

    members: tuple[Mapping[str, Any], ...]
    weights: tuple[float, ...] = ()
    average: Literal["probabilities", "logits"] = "probabilities"

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members must name at least one model")
        if self.weights and len(self.weights) != len(self.members):
            raise ValueError(
                f"weights must have one number for each member, {len(self.members)}, got {len(self.weights)}"
            )
        if min(self.weights, default=1) < 0 or (self.weights and not sum(self.weights)):
            raise ValueError(f"weights must be 0 or more, and not all 0, got {', '.join(map(str, self.weights))}")


@register_model("weighted_mean", WeightedMeanConfig, levels=("video", "frame"))
def build_weighted_mean(config: WeightedMeanConfig, spec: InputSpec) -> keras.Model:
    """The weighted mean of several models, as log-odds; yt8m-ensemble makes it from runs.

    The variables of member number i keep the paths of its own model, prefixed with `member_<i>_`.

    Reference: M. Skalic, D. Austin, "Building a Size Constrained Predictive Model for Video Classification", 2018.
    """
    inputs = model_inputs(spec)
    logits = member_logits(config.members, inputs, spec)
    weights = np.asarray(config.weights or (1.0,) * len(config.members))
    shares = (weights / weights.sum()).astype("float32")[:, None, None]
    stacked = ops.stack(logits)  # [M, B, C]
    if config.average == "logits":
        return keras.Model(inputs, ops.sum(stacked * shares, axis=0), name="weighted_mean")
    # Log-probabilities, so that scores near 0 and 1 keep their order.
    # Subtracted, not added: Keras's `add` treats a constant with a single axis longer than 1 as a bias. If the last or
    # second axis of the other term has the same length, it adds the constant along that axis instead of broadcasting.
    minus_log_weights = -np.log(np.maximum(shares, 1e-30))
    yes = ops.logsumexp(ops.log_sigmoid(stacked) - minus_log_weights, axis=0)
    no = ops.logsumexp(ops.log_sigmoid(-stacked) - minus_log_weights, axis=0)
    return keras.Model(inputs, yes - no, name="weighted_mean")
