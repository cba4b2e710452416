"""Times implementations of the same work alternately in one process, so that noise affects all of them equally."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

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
      directory: an empty directory for the files of a benchmark.
      data_dir: directory of video-level shards (`*.tfrecord`); None: makes random ones.
      repetitions: number of timed runs of every implementation.
      quick: whether to run a smoke test: tiny inputs and models, with meaningless figures.
      match: for `models` and `train` with PyTorch: a regular expression that finds the names of models to measure.
      earlier: for `models`: figures of other models, from an earlier run.
      torch_python: for `train`: the interpreter of an environment with torch, to compare with; None: compares with
        Keras.
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
    """An implementation of the work.

    Attributes:
      name: unique within its measurement.
      counted: what exactly is timed.
      run: does the work a given number of times; returns the units done (records, examples, videos), or (units,
        seconds) if it times only a part.
    """

    name: str
    counted: str
    run: Callable[[int], float | tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Target:
    """The rate of `ours` must be at least `at_least` times that of `against`; None: shown, not required."""

    ours: str
    against: str
    at_least: float | None = None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Measured rates.

    Attributes:
      title: name of the measurement.
      unit: unit of the rates.
      ways: implementations, in the order in which they ran.
      targets: the comparisons.
      rates: maps names of implementations to their rates in every repetition.
    """

    title: str
    unit: str
    ways: Sequence[Variant]
    targets: Sequence[Target]
    rates: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Returns the median rate of an implementation."""
        return statistics.median(self.rates[name])

    def ratios(self, target: Target) -> list[float]:
        """Returns the ratio within each repetition: of two runs in short succession."""
        pairs = zip(self.rates[target.ours], self.rates[target.against], strict=True)
        return [ours / against for ours, against in pairs]

    def ratio(self, target: Target) -> float:
        """Returns the median of `ratios`; noise in one repetition affects a ratio of medians more."""
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
    """Times every implementation `options.repetitions` times: A B C A B C ...

    Each first has two untimed runs: the first one traces, compiles and fills the page cache; the second one determines
    how many times a run must do its work to last `min_seconds`.

    Args:
      title, unit: see `Measurement`.
      ways: the implementations.
      targets: the comparisons.
      options: repetitions; with `quick`, each run does the work once, however short it is.
      min_seconds: the least duration of a timed run.
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
