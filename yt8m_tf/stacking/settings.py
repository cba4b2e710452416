"""The configuration of a stacking, and the names of its files. Imports no framework."""

from __future__ import annotations

import dataclasses
from typing import Literal

from yt8m_tf.config import checks

# Files of a stacking's directory, and the split of the training shards in it.
CONFIG, REPORT, WEIGHTS = "stack.json", "report.json", "weights.json"
OUT_OF_FOLD = "train"

# Combinations of models, by their names in tables.
COMBINATIONS = MEAN, LOGIT_MEAN, WEIGHTED_MEAN, LIGHTGBM = "mean", "mean of logits", "weighted mean", "LightGBM"


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Settings of a stacking: candidates, negatives and LightGBM's parameters.

    Attributes:
      candidates: the classes of a video that become rows: "union", the `top` highest of every model, or "best_model",
        the `top` highest of the model with the highest GAP.
      top: number of classes from each list; null: 20 for "union", 30 for "best_model".
      ranks: whether to add a column for each model with the class's rank in its list, from 1.
      aggregates: whether to add columns with the mean over models (0 for models that do not list the class), the
        maximum, and the number of models that list it.
      negatives: the share of rows without a label that are used in training, drawn at random. Their weight is
        1 / negatives, so that scores remain probabilities.
      num_trees: the largest number of trees.
      learning_rate: shrinkage of each tree.
      early_stopping: training stops after this many trees without a lower loss on the held-out fold; 0: never.
      num_leaves, min_data_in_leaf, feature_fraction, max_bin, lambda_l2, cat_smooth, cat_l2: options of LightGBM;
        cat_smooth and cat_l2 regularise what trees learn about single classes.
      seed: seed of all random choices.
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
        """`top`, or its default."""
        return {"union": 20, "best_model": 30}[self.candidates] if self.top is None else self.top
