"""The learning rate over time, and when to stop."""

from __future__ import annotations

import dataclasses
import math

from yt8m_tf.config.experiment import ScheduleConfig


def planned_factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Returns the factor, from 0 to 1, by which warm-up and cosine decay scale the learning rate.

    Args:
      config: the schedule.
      step: updates made before this one.
      total_steps: updates of the whole run.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.name != "cosine":
        return 1.0
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


@dataclasses.dataclass
class Plateau:
    """Tracks 1 - GAP over the evaluations of a run; its state is saved in every checkpoint.

    For runs on rated segments, MAP takes the place of GAP.

    Attributes:
      factor: the factor of the learning rate that results from the reductions so far.
      best: the lowest 1 - GAP that counted as an improvement for the schedule (by more than its threshold).
      bad_evaluations: evaluations in a row without such an improvement; reset by a reduction.
      best_gap: the highest GAP so far.
      since_best: evaluations since the one with the highest GAP.
    """

    factor: float = 1.0
    best: float = math.inf
    bad_evaluations: int = 0
    best_gap: float = -1.0
    since_best: int = 0

    def update(self, gap: float, config: ScheduleConfig) -> bool:
        """Updates the state with the GAP of an evaluation.

        An evaluation improves if its 1 - GAP is below the best so far by more than the share `threshold`. The learning
        rate is reduced after more than `patience` evaluations in a row without improvement; with patience 0, after the
        first one. PyTorch's ReduceLROnPlateau does the same in its "rel" mode.

        Returns:
          Whether this GAP is the highest so far.
        """
        if 1.0 - gap < self.best * (1.0 - config.threshold):
            self.best, self.bad_evaluations = 1.0 - gap, 0
        else:
            self.bad_evaluations += 1
        if config.name == "plateau" and self.bad_evaluations > config.patience:
            self.factor, self.bad_evaluations = self.factor * config.factor, 0
        is_best = gap > self.best_gap
        self.best_gap, self.since_best = (gap, 0) if is_best else (self.best_gap, self.since_best + 1)
        return is_best
