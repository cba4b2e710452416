"""The learning rate over time, against values computed by hand and an independent plateau schedule."""

from __future__ import annotations

import numpy as np
import pytest

from yt8m_tf.config.experiment import ScheduleConfig
from yt8m_tf.training.schedule import Plateau, planned_factor


@pytest.mark.parametrize("name", ["constant", "plateau", "cosine"])
def test_warm_up_is_linear_and_ends_at_one(name: str) -> None:
    config = ScheduleConfig(name=name, warmup_steps=4)  # type: ignore[arg-type]
    factors = [planned_factor(config, step, 100) for step in range(5)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_without_decay_the_rate_stays() -> None:
    assert {planned_factor(ScheduleConfig(name="constant"), step, 10) for step in range(10)} == {1.0}


def test_cosine_by_hand() -> None:
    config = ScheduleConfig(name="cosine", warmup_steps=10)
    # (1 + cos(pi x)) / 2 at x = 0, 1/6, 1/4, 1/3, 1/2, 2/3, 1
    expected = {10: 1.0, 20: 0.9330127, 25: 0.8535534, 30: 0.75, 40: 0.5, 50: 0.25, 70: 0.0, 71: 0.0}
    for step, factor in expected.items():
        assert planned_factor(config, step, 70) == pytest.approx(factor, abs=1e-7)
    assert planned_factor(ScheduleConfig(name="cosine"), 0, 70) == 1.0
    assert planned_factor(ScheduleConfig(name="cosine", warmup_steps=90), 69, 70) == pytest.approx(70 / 90)


def _slow_factors(gaps: list[float], factor: float, patience: int, threshold: float) -> list[float]:
    """For each evaluation, the product of the reductions so far, recomputed from the whole history."""
    losses, factors, current, start = [1.0 - gap for gap in gaps], [], 1.0, 0
    for now in range(len(losses)):
        best, last_better = np.inf, start - 1
        for i, loss in enumerate(losses[: now + 1]):
            if loss < best - threshold * best if np.isfinite(best) else True:
                best = loss
                last_better = max(last_better, i)
        # Evaluations since the last improvement, or since the last reduction, whichever came later.
        if now - last_better > patience:
            current, start = current * factor, now + 1
        factors.append(current)
    return factors


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.0503])
def test_plateau_equals_an_independent_one(patience: int, threshold: float, rng: np.random.Generator) -> None:
    config = ScheduleConfig(name="plateau", factor=0.3, patience=patience, threshold=threshold)
    for _ in range(20):
        gaps = (0.8 - 0.5 * np.exp(-np.arange(25) / 4) + rng.normal(size=25) * 0.03).round(2).tolist()
        plateau, factors, best = Plateau(), [], []
        for gap in gaps:
            best.append(plateau.update(gap, config))
            factors.append(plateau.factor)
        assert factors == pytest.approx(_slow_factors(gaps, 0.3, patience, threshold))
        assert best == [gap > max([-1.0, *gaps[:i]]) for i, gap in enumerate(gaps)]
        assert plateau.best_gap == max(gaps)
        assert plateau.since_best == 24 - gaps.index(max(gaps))


def test_patience_zero_reduces_at_the_first_bad_evaluation() -> None:
    plateau, config = Plateau(), ScheduleConfig(name="plateau", factor=0.5, patience=0)
    factors = []
    for gap in (0.5, 0.6, 0.6, 0.59, 0.7):
        plateau.update(gap, config)
        factors.append(plateau.factor)
    assert factors == [1.0, 1.0, 0.5, 0.25, 0.25]


def test_patience_counts_evaluations_in_a_row() -> None:
    plateau, config = Plateau(), ScheduleConfig(name="plateau", factor=0.5, patience=1)
    factors = []
    for gap in (0.5, 0.4, 0.6, 0.5, 0.5, 0.5, 0.5):
        plateau.update(gap, config)
        factors.append(plateau.factor)
    assert factors == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]


def test_an_improvement_below_the_threshold_counts_for_the_best_but_not_for_the_rate() -> None:
    plateau, config = Plateau(), ScheduleConfig(name="plateau", factor=0.5, patience=0, threshold=0.1)
    assert plateau.update(0.5, config)
    assert plateau.update(0.549, config)  # 1 - GAP falls by 9.8 % only
    assert plateau.factor == 0.5 and plateau.best_gap == 0.549 and plateau.since_best == 0
    assert plateau.update(0.551, config)  # 10.2 % below the best that counted
    assert plateau.factor == 0.5 and plateau.best == pytest.approx(0.449)


def test_other_schedules_never_reduce() -> None:
    plateau = Plateau()
    for gap in (0.5, 0.4, 0.3, 0.2):
        plateau.update(gap, ScheduleConfig(name="cosine", patience=0))
    assert plateau.factor == 1.0 and plateau.since_best == 3
