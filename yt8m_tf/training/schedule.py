"""The learning rate over time, and when to stop."""

from __future__ import annotations

import dataclasses
import math

from yt8m_tf.config.experiment import ScheduleConfig


def planned_factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """The planned part of the schedule: warm-up and cosine decay, as a factor of the learning rate from 0 to 1.

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
    """Watches 1 - GAP over the evaluations of a run; what it knows is saved with every checkpoint.

    Of a run on rated segments it is MAP that takes the place of GAP.

    Attributes:
      factor: of the learning rate, reached by the reductions so far.
      best: the lowest 1 - GAP that counted as an improvement for the schedule (by more than its threshold).
      bad_evaluations: evaluations in a row without such an improvement; reset by a reduction.
      best_gap: the highest GAP of all.
      since_best: evaluations since then.
    """

    factor: float = 1.0
    best: float = math.inf
    bad_evaluations: int = 0
    best_gap: float = -1.0
    since_best: int = 0

    def update(self, gap: float, config: ScheduleConfig) -> bool:
        """Takes in one evaluation.

        The rate is reduced when 1 - GAP has not improved, by more than `threshold` of the best so far, in more than
        `patience` evaluations in a row, so patience 0 reduces at the first one (as PyTorch's ReduceLROnPlateau does in
        its "rel" mode).

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
