"""Greedy forward selection of an ensemble within a byte budget: its members, their weights and precisions.

An ensemble is a list of members. A candidate may occur several times, always at the same precision; its count is its
weight. A pass starts with the empty ensemble and repeats the best of these moves:

- Add a candidate at a precision; if it is a member already, this takes no bytes.
- Change the precision of a member.
- Lower the count of a member by one; at a count of 0 it is removed.

Moves beyond the budget are not considered. If no move gains more than 2e-5, the counts of all members are doubled,
which keeps the mean and halves the step size. The pass ends if that would make more than 64 members.

There are three passes, each for the budget and for a half, a quarter and an eighth of it:

- By gain: the best move has the highest gain of GAP@20.
- By gain per byte. A move that takes less than a thousandth of the budget, or frees bytes, counts as a thousandth.
- By gain, but first with the smallest precision of each candidate only, and then with all precisions.

Every intermediate ensemble, and every single model, is a point of size and GAP.

Selection with replacement is from R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble Selection from
Libraries of Models", ICML 2004. Passes by gain and by gain per byte, and lazy evaluation (moves with the highest known
gains are evaluated first), are from J. Leskovec et al., "Cost-effective Outbreak Detection in Networks", KDD 2007.
Unlike them, we choose precisions, remove members (small members that come first are often not worth keeping), refine
steps, and do not bag models. GAP is not submodular, so lazy evaluation could miss moves; therefore all moves are
evaluated before a pass ends.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from yt8m_tf.console.progress import Progress
from yt8m_tf.ensembling.packing.held_out import HeldOut
from yt8m_tf.stacking.means import fit_weights

Rule = Literal["gain", "gain per byte", "gain, smallest first"]
RULES: tuple[Rule, ...] = ("gain", "gain per byte", "gain, smallest first")

MIN_GAIN = 2e-5  # of GAP@20
_PARTS = (1, 2, 4, 8)  # divisors of the budget; passes run for each
_FREE = 1e-3  # a move counts as at least this share of the budget
_MAX_COUNT = 64  # of members, counted with repetition
_FITTED_ROWS = 1_000_000
_MIN_WEIGHT = 1e-3  # members with smaller fitted weights are left out, which saves their bytes


@dataclasses.dataclass(frozen=True)
class Item:
    """A candidate at a precision.

    Attributes:
      candidate: index of the candidate; an ensemble has at most one item of each.
      column: its index in `HeldOut.scores`.
      num_bytes: size as a member, more than 0.
    """

    candidate: int
    column: int
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class Point:
    """An ensemble.

    Attributes:
      rule: the rule of the pass that found it, "single" for one model, or "fitted weights".
      weights: maps the index of an item to its weight, more than 0.
      num_bytes: bytes of all members.
      gap: GAP@20 on the videos that the selection uses.
    """

    rule: str
    weights: Mapping[int, float]
    num_bytes: int
    gap: float


@dataclasses.dataclass(frozen=True)
class _Move:
    """One step: remove item `out` and add item `into`, `times` times."""

    out: int | None
    into: int | None
    times: int
    num_bytes: int


def select(items: Sequence[Item], videos: HeldOut, budget: int, progress: bool = True) -> list[Point]:
    """Returns all ensembles within the budget that the passes find, and all single items.

    Args:
      items: at least one has at most `budget` bytes.
      videos: held-out videos, on which GAP is computed.
      budget: the most bytes of all members.
      progress: whether to show a progress bar.
    """
    singles = {
        number: Point("single", {number: 1}, item.num_bytes, videos.gap(videos.weighted_sum({item.column: 1})))
        for number, item in enumerate(items)
    }
    points = [point for point in singles.values() if point.num_bytes <= budget]
    first_gains = {number: point.gap for number, point in singles.items()}
    with Progress(desc="select", unit=" moves", disable=not progress) as bar:
        for part, rule in itertools.product(_PARTS, RULES):
            points += _Pass(items, videos, budget // part, rule, first_gains, bar).run()
    return points


def frontier(points: Sequence[Point]) -> list[Point]:
    """Returns the Pareto-optimal points, by size: each has a higher GAP than all smaller ones."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.num_bytes, -point.gap)):
        if not best or point.gap > best[-1].gap:
            best.append(point)
    return best


def with_fitted_weights(point: Point, items: Sequence[Item], videos: HeldOut, seed: int = 0) -> Point:
    """Returns the point with maximum-likelihood weights if its GAP is higher; otherwise the point itself."""
    numbers = list(point.weights)
    scores = videos.scores[[items[number].column for number in numbers]].reshape(len(numbers), -1).T  # [R, m]
    labels = videos.labels.ravel()
    rows = np.flatnonzero(scores.any(axis=1))
    if len(rows) > _FITTED_ROWS:
        rows = np.random.default_rng(seed).choice(rows, _FITTED_ROWS, replace=False)
    fitted = fit_weights(scores[rows], labels[rows])
    weights = {n: float(weight) for n, weight in zip(numbers, fitted, strict=True) if weight >= _MIN_WEIGHT}
    gap = videos.gap(videos.weighted_sum({items[number].column: weight for number, weight in weights.items()}))
    if gap <= point.gap:
        return point
    return Point("fitted weights", weights, sum(items[number].num_bytes for number in weights), gap)


class _Pass:
    """One pass of the selection."""

    def __init__(
        self,
        items: Sequence[Item],
        videos: HeldOut,
        budget: int,
        rule: Rule,
        first_gains: Mapping[int, float],
        bar: Progress,
    ):
        self._items, self._videos, self._budget, self._rule, self._bar = items, videos, budget, rule, bar
        self._counts: dict[int, int] = {}
        self._allowed = set(range(len(items)))
        if rule == "gain, smallest first":
            smallest = {items[n].candidate: n for n in sorted(self._allowed, key=lambda n: -items[n].num_bytes)}
            self._allowed = set(smallest.values())
        self._sums, self._gap = videos.weighted_sum({}), 0.0
        # Gains of moves at their last evaluation, by (out, into).
        self._gains: dict[tuple[int | None, int | None], float] = {
            (None, number): gain for number, gain in first_gains.items()
        }

    def run(self) -> list[Point]:
        """Returns the ensembles after each move."""
        points: list[Point] = []
        seen = set(self._gains)  # the gains of single items are those of the first moves
        while True:
            move = self._best_move(seen)
            if move is not None:
                self._counts = self._after(move)
            elif 0 < 2 * sum(self._counts.values()) <= _MAX_COUNT:
                self._counts = {number: 2 * count for number, count in self._counts.items()}
            elif self._counts and len(self._allowed) < len(self._items):
                self._allowed = set(range(len(self._items)))
            else:
                return points
            columns = {self._items[number].column: float(count) for number, count in self._counts.items()}
            self._sums = self._videos.weighted_sum(columns)
            self._gap = self._videos.gap(self._sums)
            if move is not None:
                points.append(Point(self._rule, dict(self._counts), self._size(), self._gap))
            self._bar.set_postfix_str(f"by {self._rule}: {self._size():,} bytes, GAP {self._gap:.5f}", refresh=False)
            seen = set()

    def _best_move(self, seen: set[tuple[int | None, int | None]]) -> _Move | None:
        """Returns the best move, or None; `seen` are the moves whose gains are up to date."""
        moves = {(move.out, move.into): move for move in self._moves()}
        seen = seen & set(moves)
        while moves:
            best = max(moves, key=lambda key: self._worth(moves[key]))
            if best not in seen:
                look = [best]
            elif self._gains[best] > MIN_GAIN:
                return moves[best]
            elif len(seen) == len(moves):
                return None
            else:  # before a pass ends, every move is evaluated
                look = [key for key in moves if key not in seen]
            for key in look:
                self._gains[key] = self._gain(moves[key])
                seen.add(key)
                self._bar.update()
        return None

    def _worth(self, move: _Move) -> float:
        gain = self._gains.get((move.out, move.into), np.inf)
        return gain / max(move.num_bytes, _FREE * self._budget) if self._rule == "gain per byte" else gain

    def _gain(self, move: _Move) -> float:
        sums = self._sums.copy()
        if move.out is not None:
            sums -= np.float32(move.times) * self._videos.scores[self._items[move.out].column]
            np.maximum(sums, 0, out=sums)  # rounding
        if move.into is not None:
            sums += np.float32(move.times) * self._videos.scores[self._items[move.into].column]
        return self._videos.gap(sums) - self._gap

    def _moves(self) -> list[_Move]:
        """Returns all moves within the budget."""
        held = {self._items[number].candidate: number for number in self._counts}
        moves = []
        for number in sorted(self._allowed):
            item = self._items[number]
            member = held.get(item.candidate)
            if member is None:
                moves.append(_Move(None, number, 1, item.num_bytes))
            elif member == number:
                moves.append(_Move(None, number, 1, 0))
            else:
                change = item.num_bytes - self._items[member].num_bytes
                moves.append(_Move(member, number, self._counts[member], change))
        if len(self._counts) > 1:
            for number, count in self._counts.items():
                moves.append(_Move(number, None, 1, 0 if count > 1 else -self._items[number].num_bytes))
        return [move for move in moves if self._size() + move.num_bytes <= self._budget]

    def _after(self, move: _Move) -> dict[int, int]:
        counts = dict(self._counts)
        if move.out is not None:
            counts[move.out] -= move.times
        if move.into is not None:
            counts[move.into] = counts.get(move.into, 0) + move.times
        return {number: count for number, count in counts.items() if count}

    def _size(self) -> int:
        return sum(self._items[number].num_bytes for number in self._counts)
