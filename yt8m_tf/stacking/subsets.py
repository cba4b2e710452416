"""Ensembles of the stacked models that show the effect of their number, and that of weak models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

BEST, WORST, RANDOM, WITH_WEAK = "best first", "worst first", "random order", "best, and all weak ones"


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """A subset of the models.

    Attributes:
      order: `BEST`, `WORST`, `RANDOM` (the second random order is "random order 2", and so on), or `WITH_WEAK`.
      members: indices of its models, ascending.
      strong: with `WITH_WEAK`, the number of best models in it; else None.
    """

    order: str
    members: tuple[int, ...]
    strong: int | None = None


def sizes_up_to(count: int) -> list[int]:
    """Returns 1, 2, 4, 8, ... and `count` itself."""
    return sorted({*(2**n for n in range(count.bit_length())), count})


def best_first(gaps: Sequence[float]) -> list[int]:
    """Returns the indices of the models, highest GAP first; equal ones keep their order."""
    return sorted(range(len(gaps)), key=lambda number: -gaps[number])


def ensembles(gaps: Sequence[float], num_weak: int, random_orders: int, seed: int) -> list[Ensemble]:
    """Returns all ensembles, order by order, small ones first; those of different orders may have the same members.

    Args:
      gaps: GAP@20 of each model, out of fold.
      num_weak: number of weak models, those with the lowest GAP, which `WITH_WEAK` adds to the best 1, 2, 4, ... of the
        others; 0: no such ensembles.
      random_orders: number of random orders.
      seed: seed of the random orders.
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
