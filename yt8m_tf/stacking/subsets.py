"""Chooses ensembles of the stacked models that show what their number is worth, and what weak ones add."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

BEST, WORST, RANDOM, WITH_WEAK = "best first", "worst first", "random order", "best, and all weak ones"


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Some of the models.

    Attributes:
      order: `BEST`, `WORST`, `RANDOM` (the second random order is "random order 2", and so on), or `WITH_WEAK`.
      members: numbers of its models, ascending.
      strong: with `WITH_WEAK`, how many of them are the best ones; else None.
    """

    order: str
    members: tuple[int, ...]
    strong: int | None = None


def sizes_up_to(count: int) -> list[int]:
    """1, 2, 4, 8, ... and `count` itself."""
    return sorted({*(2**n for n in range(count.bit_length())), count})


def best_first(gaps: Sequence[float]) -> list[int]:
    """Numbers of the models, highest GAP first; of equal ones the first named."""
    return sorted(range(len(gaps)), key=lambda number: -gaps[number])


def ensembles(gaps: Sequence[float], num_weak: int, random_orders: int, seed: int) -> list[Ensemble]:
    """All ensembles, those of one order together, small ones first. Two of different orders may have the same members.

    Args:
      gaps: of each model, out of fold.
      num_weak: the lowest so many are the weak ones, which `WITH_WEAK` adds to 1, 2, 4, ... of the others, the best
        first; 0: no such ensembles.
      random_orders: how many.
      seed: of these.
    """
    best = best_first(gaps)
    orders = {BEST: best, WORST: best[::-1]}
    for number in range(random_orders):
        drawn = np.random.default_rng([seed, number]).permutation(len(gaps))
        orders[RANDOM if not number else f"{RANDOM} {number + 1}"] = drawn.tolist()
    sizes = sizes_up_to(len(gaps))
    found = [Ensemble(name, tuple(sorted(order[:size]))) for name, order in orders.items() for size in sizes]
    strong, weak = best[: len(best) - num_weak], best[len(best) - num_weak :]
    if weak and strong:
        found += [
            Ensemble(WITH_WEAK, tuple(sorted([*strong[:count], *weak])), count) for count in sizes_up_to(len(strong))
        ]
    return found
