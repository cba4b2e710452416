"""One pass of a model over a dataset: from batches to all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from yt8m_tf.console.progress import Progress
from yt8m_tf.metrics.accumulator import MetricAccumulator, Metrics

Step = Callable[[dict[str, Any]], Mapping[str, Any]]


def evaluate(
    step: Step,
    batches: Iterable[Mapping[str, Any]],
    num_classes: int,
    *,
    total: int | None = None,
    description: str = "evaluate",
    progress: bool = True,
    leave: bool = True,
    gather: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
    min_positives: int | None = None,
) -> Metrics:
    """All metrics in one pass.

    Args:
      step: from a batch without its ids to its statistics (`batch_statistics`); compiled and distributed by
        the caller.
      batches: {"id": [B] strings, optional; the features; "labels": [B, L] int32; "valid": [B] bool}.
      num_classes: C.
      total: the number of videos, if known, for the progress bar.
      description: what the progress bar is called.
      progress: whether to show it, on standard error.
      leave: whether it stays on the screen.
      gather: where several workers evaluate a part each: from `MetricAccumulator.arrays` to all workers' arrays, one
        after the other along the first axis.
      min_positives: see `MetricAccumulator.result`.

    Raises:
      InputError: a NaN score, no videos, no labels.
    """
    accumulator = MetricAccumulator(num_classes)
    with Progress(total=total, desc=description, unit=" videos", disable=not progress, leave=leave) as bar:
        for statistics, ids in _one_ahead(step, batches):
            before = accumulator.num_videos
            accumulator.update(statistics, ids)
            bar.update(accumulator.num_videos - before)
    if gather is not None:
        accumulator = MetricAccumulator.from_arrays(gather(accumulator.arrays()))
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
