"""The configuration of a stacking."""

from __future__ import annotations

import dataclasses
from typing import Literal

from yt8m_tf.config import checks

# What models are combined to, as tables name it beside them.
COMBINATIONS = MEAN, LOGIT_MEAN, WEIGHTED_MEAN, LIGHTGBM = "mean", "mean of logits", "weighted mean", "LightGBM"


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Settings of a stacking: candidates, negatives and LightGBM's parameters.

    Attributes:
      candidates: which classes of a video become rows: "union", the `top` highest of every model (20 unless given), or
        "best_model", those of the model of the highest GAP (30 unless given).
      top: how many classes of each list become rows; null: 20 of "union", 30 of "best_model".
      ranks: a column for each model with the class's rank in its list, from 1.
      aggregates: columns with the mean over models (0 where one does not list the class), the maximum, and the number
        of models that list it.
      negatives: the share of rows without a label that trees are trained on, drawn at random; those kept weigh
        1 / negatives, so that scores stay probabilities.
      num_trees: at most.
      learning_rate: shrinkage of each tree.
      early_stopping: stop when the loss on the held-out fold has not fallen for so many trees; 0: never.
      num_leaves, min_data_in_leaf, feature_fraction, max_bin, lambda_l2, cat_smooth, cat_l2: LightGBM's. The last two
        hold back what trees learn of single classes.
      seed: of everything random.
    """

    candidates: Literal["union", "best_model"] = "union"
    top: int | None = None
    ranks: bool = False
    aggregates: bool = True
    negatives: float = 1.0
    num_trees: int = 3000
    learning_rate: float = 0.01
    early_stopping: int = 30
    num_leaves: int = 31
    min_data_in_leaf: int = 20
    feature_fraction: float = 1.0
    max_bin: int = 255
    lambda_l2: float = 0.0
    cat_smooth: float = 10.0
    cat_l2: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "num_candidates", "num_trees", "min_data_in_leaf")
        checks.at_least(self, 2, "num_leaves", "max_bin")
        checks.at_least(self, 0, "early_stopping", "lambda_l2", "cat_smooth", "cat_l2")
        for name in ("negatives", "feature_fraction", "learning_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")

    @property
    def num_candidates(self) -> int:
        """`top`, with its default."""
        return {"union": 20, "best_model": 30}[self.candidates] if self.top is None else self.top
