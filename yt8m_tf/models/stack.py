"""First-level models and the boosters on top of them in one graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers.candidates import candidate_features, candidate_rows, stored_list
from yt8m_tf.layers.trees import BoostedTrees, ForestShape
from yt8m_tf.models.members import member_logits
from yt8m_tf.models.registry import model_inputs, register_model

# Log-odds: the largest absolute value for candidates, and the value of all other classes.
_MOST, NO_CANDIDATE = 25.0, -30.0


@dataclasses.dataclass(frozen=True)
class StackModelConfig:
    """A stacking, as written by yt8m-ensemble --stack.

    Attributes:
      members: each member's `model` configuration, with `features` and `level` if its inputs differ from those of the
        whole model (`members.member_spec`).
      first_level: for each member, the index of its first-level model. The score of a first-level model is the mean of
        its members' scores, for example those of the runs on all folds.
      listed: for each first-level model, the number of classes per video in its scores.
      naming: indices of the first-level models that name candidates.
      top: the number of candidates from each of these.
      ranks, aggregates: columns of the boosters, see `StackConfig`.
      forest: the sizes of the boosters' arrays.
    """

    members: tuple[Mapping[str, Any], ...]
    first_level: tuple[int, ...]
    listed: tuple[int, ...]
    naming: tuple[int, ...]
    top: int
    ranks: bool
    aggregates: bool
    forest: ForestShape

    def __post_init__(self) -> None:
        if len(self.first_level) != len(self.members) or {*self.first_level} != {*range(len(self.listed))}:
            raise ValueError(
                "first_level must give each member a first-level model, and each first-level model a member or more"
            )
        if not self.naming or not {*self.naming} <= {*self.first_level}:
            raise ValueError(f"naming must be indices of first-level models, got {self.naming}")


class StackedTrees(keras.layers.Layer):
    """Computes the logits of a stacking, [B, C] float32, from the logits of its members, [B, C] each.

    Candidates get the log-odds of the boosters' mean probability, between -25 and 25. All other classes get -30, whose
    probability is 0 in float16. XLA cannot compile the layer, because the number of candidates varies.

    Args:
      config: configuration of the stacking.
      num_classes: C.
      name: name of the layer.
    """

    def __init__(self, config: StackModelConfig, num_classes: int, name: str | None = None):
        super().__init__(name=name, trainable=False)
        self._config, self._num_classes, self.supports_jit = config, num_classes, False
        # As a member of a mean, the layer has another name, and so must the trees: `members.renamed`.
        self._trees = BoostedTrees(config.forest, name=f"{self.name.removesuffix('stack')}trees")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for a copy of the layer."""
        return {"config": self._config, "num_classes": self._num_classes, "name": self.name}

    def build(self, shapes: Sequence[Any]) -> None:
        """Creates nothing: the configuration has the sizes of the trees."""
        self.built = True

    def compute_output_spec(self, logits: Sequence[Any]) -> keras.KerasTensor:
        """[B, C] float32."""
        return keras.KerasTensor((logits[0].shape[0], self._num_classes), "float32")

    def call(self, logits: Sequence[tf.Tensor]) -> tf.Tensor:
        """Maps the members' logits, [B, C] each, to the logits of the stacking, [B, C] float32."""
        config, num_classes = self._config, self._num_classes
        lists = []
        for number, top_k in enumerate(config.listed):
            own = [tf.sigmoid(z) for z, model in zip(logits, config.first_level, strict=True) if model == number]
            lists.append(stored_list(tf.add_n(own) / len(own), min(top_k, num_classes)))
        rows = candidate_rows([lists[number][0][:, : config.top] for number in config.naming], num_classes)
        features = candidate_features(lists, rows, num_classes, config.ranks, config.aggregates)
        scores = tf.reduce_mean(self._trees(features), axis=1)  # [R] float64
        log_odds = tf.clip_by_value(tf.math.log(scores) - tf.math.log1p(-scores), -_MOST, _MOST)
        others = tf.fill([tf.shape(logits[0])[0], num_classes], NO_CANDIDATE)
        return tf.tensor_scatter_nd_update(others, rows, tf.cast(log_odds, tf.float32))


@register_model("stack", StackModelConfig, levels=("video", "frame"), trains=False)
def build_stack(config: StackModelConfig, spec: InputSpec) -> keras.Model:
    """A stacking in one graph: trained models, candidates, features and LightGBM's boosters (yt8m-ensemble --stack).

    The variables of member number i keep the paths of its own model, prefixed with `member_<i>_`.

    Reference: M. Skalic, D. Austin, "Building a Size Constrained Predictive Model for Video Classification", 2018.
    """
    inputs = model_inputs(spec)
    logits = member_logits(config.members, inputs, spec)
    return keras.Model(inputs, StackedTrees(config, spec.num_classes, name="stack")(logits), name="stack")
