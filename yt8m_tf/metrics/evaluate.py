"""One pass of a model over a dataset: from batches to all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from yt8m_tf.console.progress import Progress

Step = Callable[[dict[str, Any]], Mapping[str, Any]]
MetricsT = TypeVar("MetricsT", covariant=True)


class Accumulator(Protocol[MetricsT]):
    """An accumulator of batch statistics: `MetricAccumulator`, or `RatedAccumulator` for rated segments."""

    UNIT: ClassVar[str]

    @property
    def num_examples(self) -> int: ...

    def update(self, statistics: Mapping[str, Any], ids: Any = None) -> None: ...

    def arrays(self) -> dict[str, np.ndarray]: ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self: ...

    def result(self, min_positives: int | None = None) -> MetricsT: ...


def evaluate(
    step: Step,
    batches: Iterable[Mapping[str, Any]],
    accumulator: Accumulator[MetricsT],
    *,
    total: int | None = None,
    description: str = "evaluate",
    progress: bool = True,
    leave: bool = True,
    gather: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
    min_positives: int | None = None,
) -> MetricsT:
    """Computes all metrics in one pass.

    Args:
      step: maps a batch without its ids to its statistics (`batch_statistics`, `rated_statistics`); compiled and
        distributed by the caller.
      batches: batches of `pipeline.evaluation_stream`: {"id": [B] strings, optional; the features; the labels, or the
        ratings; "valid": [B] bool}.
      accumulator: a new accumulator for these statistics.
      total: the number of examples, if known, for the progress bar.
      description: title of the progress bar.
      progress: whether to show the bar, on standard error.
      leave: whether the bar stays on the screen.
      gather: if each of several workers evaluates a part, maps `Accumulator.arrays` to the arrays of all workers,
        concatenated along the first axis.
      min_positives: see `MetricAccumulator.result`.

    Raises:
      InputError: a score is NaN, or there are no examples or no labels.
    """
    with Progress(total=total, desc=description, unit=f" {accumulator.UNIT}", disable=not progress, leave=leave) as bar:
        for statistics, ids in _one_ahead(step, batches):
            before = accumulator.num_examples
            accumulator.update(statistics, ids)
            bar.update(accumulator.num_examples - before)
    if gather is not None:
        accumulator = type(accumulator).from_arrays(gather(accumulator.arrays()))
    return accumulator.result(min_positives)


def _one_ahead(step: Step, batches: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Yields statistics and ids of each batch, after the step of the next batch was issued.

    So the accelerator computes while the host reads the result of the previous batch.
    """
    previous = None
    for batch in batches:
        ids = np.asarray(batch["id"]) if "id" in batch else None
        current = step({name: value for name, value in batch.items() if name != "id"}), ids
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous
