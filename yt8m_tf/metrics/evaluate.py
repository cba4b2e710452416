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
    """All metrics in one pass.

    Args:
      step: from a batch without its ids to its statistics (`batch_statistics`, `rated_statistics`); compiled and
        distributed by the caller.
      batches: of `pipeline.evaluation_stream`: {"id": [B] strings, optional; the features; the labels, or the ratings;
        "valid": [B] bool}.
      accumulator: of such statistics, new.
      total: the number of examples, if known, for the progress bar.
      description: what the progress bar is called.
      progress: whether to show it, on standard error.
      leave: whether it stays on the screen.
      gather: where several workers evaluate a part each: from `Accumulator.arrays` to all workers' arrays, one
        after the other along the first axis.
      min_positives: see `MetricAccumulator.result`.

    Raises:
      InputError: a NaN score, nothing to evaluate, no labels.
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
    """Statistics and ids of each batch; a step is issued before the one before it is waited for.

    An accelerator computes while the host reads what it gave for the batch before.
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
