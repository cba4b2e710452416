"""MAP and BCE over rated pairs, against plain loops over them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.metrics.rated_pairs import RatedAccumulator, RatedMetrics, rated_statistics

_CLASSES = 12


def _batches(rng: np.random.Generator, count: int = 4, size: int = 30) -> list[dict[str, np.ndarray]]:
    batches = []
    for number in range(count):
        logits = rng.integers(-8, 8, (size, _CLASSES)) / 4  # including equal ones
        rated = np.stack([rng.permutation(_CLASSES - 1)[:4] for _ in range(size)]).astype(np.int32)
        rated[rng.random(rated.shape) < 0.4] = -1
        ratings = np.where(rated >= 0, rng.choice([0.0, 0.25, 0.5, 1.0], rated.shape), 0.0)
        valid = np.arange(size) < (size if number < count - 1 else size // 3)
        logits[~valid] = math.nan
        batches.append(
            {"logits": logits, "rated_classes": rated, "ratings": ratings.astype(np.float32), "valid": valid}
        )
    return batches


def _statistics(batch: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return rated_statistics(*(tf.constant(batch[name]) for name in ("logits", "rated_classes", "ratings", "valid")))


def _expected(batches: list[dict[str, np.ndarray]]) -> tuple[float, float, dict[int, float]]:
    """MAP, BCE and the average precision of each class, computed pair by pair."""
    pairs = [
        (int(c), float(batch["logits"][row, c]), float(rating))
        for batch in batches
        for row in np.flatnonzero(batch["valid"])
        for c, rating in zip(batch["rated_classes"][row], batch["ratings"][row], strict=True)
        if c >= 0
    ]
    bce = sum(np.logaddexp(0, logit) - rating * logit for _, logit, rating in pairs) / len(pairs)
    precisions = {}
    for label in {c for c, _, rating in pairs if rating >= 0.5}:
        own = sorted(((logit, rating >= 0.5) for c, logit, rating in pairs if c == label), key=lambda p: (-p[0], p[1]))
        hits = [rank for rank, (_, present) in enumerate(own, 1) if present]
        precisions[label] = sum(found / rank for found, rank in enumerate(hits, 1)) / len(hits)
    return float(np.mean(list(precisions.values()))), float(bce), precisions


def _check(metrics: RatedMetrics, batches: list[dict[str, np.ndarray]]) -> None:
    expected_map, bce, precisions = _expected(batches)
    assert metrics.scalars() == pytest.approx({"map": expected_map, "bce": bce}, abs=1e-12)
    for label in range(_CLASSES):
        if label in precisions:
            assert metrics.average_precision[label] == pytest.approx(precisions[label], abs=1e-12)
        else:
            assert math.isnan(metrics.average_precision[label]) and metrics.num_positives[label] == 0
    rated = [(batch["rated_classes"] >= 0) & batch["valid"][:, None] for batch in batches]
    assert metrics.num_ratings == sum(map(np.count_nonzero, rated)) == metrics.num_rated.sum()
    assert metrics.num_segments == sum(batch["valid"].sum() for batch in batches)


def test_metrics_are_those_of_plain_loops_in_any_order_and_from_several_workers(rng: np.random.Generator) -> None:
    batches = _batches(rng)
    one, workers = RatedAccumulator(_CLASSES), [RatedAccumulator(_CLASSES) for _ in range(3)]
    for number, batch in enumerate(batches):
        one.update(_statistics(batch))
        workers[number % 2].update(_statistics(batch))  # the third worker has nothing to do
    _check(one.result(), batches)
    parts = [worker.arrays() for worker in workers]
    gathered = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    together = RatedAccumulator.from_arrays(gathered).result()
    _check(together, batches)
    assert together.map == one.result().map


def test_numbers_computed_by_hand() -> None:
    # Class 0 is present at ranks 1 and 3 of three, class 1 at rank 2 of two: of equal scores, the absent one is first.
    accumulator = RatedAccumulator(3)
    rated = np.array([[0, 1], [0, 1], [0, -1]], np.int32)
    ratings = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], np.float32)
    logits = np.array([[3.0, 0.0, 9.0], [2.0, 0.0, 9.0], [1.0, 9.0, 9.0]], np.float32)
    accumulator.update(rated_statistics(logits, rated, ratings, np.ones(3, bool)))
    metrics = accumulator.result()
    np.testing.assert_allclose(metrics.average_precision[:2], [(1 + 2 / 3) / 2, 1 / 2])
    assert metrics.map == pytest.approx((5 / 6 + 1 / 2) / 2) and metrics.counts() == {
        "num_segments": 3,
        "num_ratings": 5,
    }


def test_scores_that_are_not_finite_are_named_and_unrated_ones_do_not_matter(rng: np.random.Generator) -> None:
    (batch,) = _batches(rng, 1)
    batch["valid"][:] = True
    batch["logits"] = np.zeros((30, _CLASSES))
    batch["logits"][:, _CLASSES - 1] = math.nan  # never rated
    ids = [b"v%d:5" % row for row in range(30)]
    RatedAccumulator(_CLASSES).update(_statistics(batch), ids)
    batch["rated_classes"][7, 0] = _CLASSES - 1
    with pytest.raises(InputError, match="segment v7:5: its scores are not finite"):
        RatedAccumulator(_CLASSES).update(_statistics(batch), ids)


@pytest.mark.parametrize("kind", ["nothing", "all absent"])
def test_evaluating_nothing_is_an_error(kind: str, rng: np.random.Generator) -> None:
    accumulator = RatedAccumulator(_CLASSES)
    if kind == "all absent":
        (batch,) = _batches(rng, 1)
        batch["ratings"][:] = 0.0
        accumulator.update(_statistics(batch))
    message = r"no rated segments to evaluate" if kind == "nothing" else r"ratings evaluated is 0\.5 or more"
    with pytest.raises(InputError, match=message):
        accumulator.result()
