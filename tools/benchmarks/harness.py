"""Times several ways of doing the same work in one process, in turn, so that noise of the machine hits all alike."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from yt8m_tf.console.progress import Progress


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the measurements.

    Attributes:
      directory: an empty directory for whatever a benchmark writes.
      data_dir: directory of video-level shards (`*.tfrecord`); None makes random ones.
      repetitions: timed runs of every way.
      quick: a smoke test: tiny inputs and models, whose figures mean nothing.
      match: of `models`: a regular expression that finds the names of those to measure.
      earlier: of `models`: figures of other models, from an earlier run.
      torch_python: of `train`: the interpreter of an environment with torch, to compare with; None: with Keras.
    """

    directory: str
    data_dir: str | None = None
    repetitions: int = 5
    quick: bool = False
    match: str = ""
    earlier: Sequence[dict[str, Any]] = ()
    torch_python: str | None = None


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of doing the work.

    Attributes:
      name: unique within its measurement.
      counted: what exactly is timed.
      run: does the work so many times over; returns the units done (records, examples, videos), or (units, seconds)
        where it times a part of itself.
    """

    name: str
    counted: str
    run: Callable[[int], float | tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Target:
    """The rate of way `ours` is to be at least `at_least` times that of `against`; None: shown, not demanded."""

    ours: str
    against: str
    at_least: float | None = None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Rates that were measured.

    Attributes:
      title: of what.
      unit: of the rates.
      ways: in the order in which they ran.
      targets: what is compared.
      rates: name of the way to its rate in every repetition.
    """

    title: str
    unit: str
    ways: Sequence[Variant]
    targets: Sequence[Target]
    rates: dict[str, list[float]]

    def median(self, name: str) -> float:
        """The median rate of a way."""
        return statistics.median(self.rates[name])

    def ratios(self, target: Target) -> list[float]:
        """The ratio within each repetition: of two runs that followed one another closely."""
        pairs = zip(self.rates[target.ours], self.rates[target.against], strict=True)
        return [ours / against for ours, against in pairs]

    def ratio(self, target: Target) -> float:
        """The median of `ratios`: a burst of noise in one repetition leaves it alone, unlike a ratio of medians."""
        return statistics.median(self.ratios(target))


def measure(
    title: str,
    unit: str,
    ways: Sequence[Variant],
    targets: Sequence[Target],
    options: Options,
    min_seconds: float = 1.0,
    progress: bool = True,
) -> Measurement:
    """Times every way `options.repetitions` times: A B C A B C ...

    Each way first runs twice untimed: the first run traces, compiles and fills the page cache, the second one tells how
    many times over a run must do its work to last `min_seconds`.

    Args:
      title, unit: see `Measurement`.
      ways: what to time.
      targets: what to compare.
      options: repetitions; `quick` does the work once in each run, however short it is.
      min_seconds: what each timed run should last at least.
      progress: whether to show a progress bar on standard error.
    """
    amounts: dict[str, int] = {}
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    with Progress(total=len(ways) * (1 + options.repetitions), desc=title, leave=False, disable=not progress) as bar:
        for way in ways:
            bar.set_postfix_str(f"warm-up: {way.name}")
            way.run(1)
            _, seconds = _timed(way, 1)
            amounts[way.name] = 1 if options.quick else math.ceil(min_seconds / max(seconds, 1e-6))
            bar.update()
        for _ in range(options.repetitions):
            for way in ways:
                bar.set_postfix_str(way.name)
                units, seconds = _timed(way, amounts[way.name])
                rates[way.name].append(units / seconds)
                bar.update()
    return Measurement(title, unit, ways, targets, rates)


def _timed(way: Variant, amount: int) -> tuple[float, float]:
    start = time.perf_counter()
    done = way.run(amount)
    seconds = time.perf_counter() - start
    return done if isinstance(done, tuple) else (done, seconds)
