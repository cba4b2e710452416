"""Greedy selection against hand-worked cases, and against all possible ensembles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from yt8m_tf.ensembling.packing import selection
from yt8m_tf.ensembling.packing.held_out import HeldOut
from yt8m_tf.ensembling.packing.selection import MIN_GAIN, Item, Point, frontier, select, with_fitted_weights
from yt8m_tf.metrics.accumulator import global_average_precision


def _specialists(*shares: int) -> HeldOut:
    """100 videos of one label and one other class: model m scores 1 for the label in `shares[m]` videos of its own."""
    scores = np.zeros((len(shares), 100, 2), np.float16)
    for model, (first, count) in enumerate(zip(np.cumsum([0, *shares]), shares, strict=False)):
        scores[model, first : first + count, 0] = 1
    return HeldOut(scores, np.tile([True, False], (100, 1)), np.ones(100, np.int64))


def _unknown(count: int) -> float:
    """The contribution of `count` of 100 labels with score 0 to GAP: they rank after all misses, which also score 0."""
    return sum(hits / (100 + hits) for hits in range(100 - count + 1, 101)) / 100


def test_specialists_by_hand() -> None:
    videos = _specialists(50, 30, 20)
    items = [Item(number, number, 10) for number in range(3)]
    for budget, known in ((10, 50), (20, 80), (30, 100)):
        best = frontier(select(items, videos, budget, progress=False))[-1]
        assert sorted(best.weights) == list(range(budget // 10)) and best.num_bytes == budget
        assert best.gap == pytest.approx(known / 100 + _unknown(100 - known), abs=1e-12)


def test_by_gain_for_each_byte_where_the_best_model_leaves_no_room() -> None:
    videos = _specialists(40, 30, 30)
    points = select([Item(0, 0, 20), Item(1, 1, 10), Item(2, 2, 10)], videos, 20, progress=False)
    best = {rule: max(p.gap for p in points if p.rule == rule) for rule in ("gain", "gain per byte")}
    assert best["gain"] == pytest.approx(0.4 + _unknown(60))
    assert best["gain per byte"] == pytest.approx(0.6 + _unknown(40))
    assert sorted(frontier(points)[-1].weights) == [1, 2]


def test_the_finer_precision_goes_where_it_matters() -> None:
    """Coarse models 0 and 1 (columns 2, 3) know 1 and 20 videos less; the budget fits one fine and one coarse model."""
    videos = _specialists(50, 50)
    coarse = videos.scores.copy()
    coarse[0, 0], coarse[1, 80:] = 0, 0
    videos = HeldOut(np.concatenate([videos.scores, coarse]), videos.labels, videos.num_labels)
    items = [Item(0, 0, 20), Item(1, 1, 20), Item(0, 2, 10), Item(1, 3, 10)]
    best = frontier(select(items, videos, 30, progress=False))[-1]
    assert sorted(best.weights) == [1, 2]
    assert best.gap == pytest.approx(0.99 + _unknown(1))


def _random_case(rng: np.random.Generator, models: int) -> tuple[list[Item], HeldOut]:
    """Models with different noise, each in two precisions; the coarser one has additional noise and half the size."""
    truth = rng.normal(-2, 2, (300, 30))
    labels = rng.random(truth.shape) < 1 / (1 + np.exp(-truth))
    logits = [truth + rng.normal(size=truth.shape) * rng.uniform(1, 3) for _ in range(models)]
    logits += [own + rng.normal(size=truth.shape) * 0.3 for own in logits]
    sizes = rng.integers(20, 100, models)
    items = [Item(m, m + models * coarse, int(sizes[m]) // (1 + coarse)) for m in range(models) for coarse in (0, 1)]
    return items, HeldOut((1 / (1 + np.exp(-np.array(logits)))).astype(np.float16), labels, labels.sum(axis=1))


def _gap(items: list[Item], videos: HeldOut, weights: dict[int, float]) -> float:
    """GAP@20, computed independently."""
    total = sum(weights.values())
    scores = sum(w / total * videos.scores[items[n].column].astype(np.float64) for n, w in weights.items())
    top = np.argsort(-scores, axis=1)[:, :20]
    pairs = np.take_along_axis(np.asarray(scores), top, 1), np.take_along_axis(videos.labels, top, 1)
    return global_average_precision(*pairs, int(videos.num_labels.sum()))


def test_close_to_the_best_of_all_ensembles(rng: np.random.Generator) -> None:
    items, videos = _random_case(rng, models=3)
    budget = sum(item.num_bytes for item in items) // 3
    found = select(items, videos, budget, progress=False)
    points = frontier(found)
    assert all(point.num_bytes <= budget for point in found)
    for point in points[-3:]:
        assert point.gap == pytest.approx(_gap(items, videos, dict(point.weights)), abs=1e-4)
        assert point.num_bytes == sum(items[number].num_bytes for number in point.weights)
        candidates = [items[number].candidate for number in point.weights]
        assert len(set(candidates)) == len(candidates)
    # Each model is left out, or taken one to four times in one precision.
    choices = [[{}] + [{2 * m + c: count} for c in (0, 1) for count in range(1, 5)] for m in range(3)]
    best = 0.0
    for parts in itertools.product(*choices):
        weights = {number: count for part in parts for number, count in part.items()}
        if weights and sum(items[number].num_bytes for number in weights) <= budget:
            sums = videos.weighted_sum({items[number].column: count for number, count in weights.items()})
            best = max(best, videos.gap(sums))
    assert points[-1].gap >= best - 2e-3


def test_a_pass_ends_where_no_move_is_left(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_PARTS", (1,))
    items, videos = _random_case(rng, models=4)
    budget = sum(item.num_bytes for item in items) // 4
    found = select(items, videos, budget, progress=False)
    for rule in selection.RULES:
        last = [point for point in found if point.rule == rule][-1]
        for number, item in enumerate(items):
            twin = next((n for n in last.weights if items[n].candidate == item.candidate), None)
            weights = {n: w for n, w in last.weights.items() if n != twin}
            weights[number] = 1 if twin is None else last.weights[twin] + (twin == number)
            size = sum(items[n].num_bytes for n in weights)
            assert size > budget or _gap(items, videos, weights) <= last.gap + MIN_GAIN + 1e-4


def test_fitted_weights_are_kept_if_they_are_better(rng: np.random.Generator) -> None:
    items, videos = _random_case(rng, models=4)
    members = {0: 1.0, 2: 1.0, 4: 1.0, 6: 1.0}
    equal = Point("gain", members, sum(items[n].num_bytes for n in members), _gap(items, videos, members))
    fitted = with_fitted_weights(equal, items, videos)
    assert fitted.gap >= equal.gap and fitted.num_bytes <= equal.num_bytes
    assert fitted.gap == pytest.approx(_gap(items, videos, dict(fitted.weights)), abs=1e-4)
    best = Point("gain", members, equal.num_bytes, 1.0)
    assert with_fitted_weights(best, items, videos) is best


def test_a_frontier_contains_each_point_that_no_smaller_one_equals() -> None:
    sizes_and_gaps = [(5, 0.5), (3, 0.5), (9, 0.4), (7, 0.6), (7, 0.55), (8, 0.6)]
    points = [Point("gain", {0: 1}, size, gap) for size, gap in sizes_and_gaps]
    assert [(point.num_bytes, point.gap) for point in frontier(points)] == [(3, 0.5), (7, 0.6)]
