"""Compares two models on the same videos, with a paired interval of the difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yt8m_tf import files, run_dir
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation import runs
from yt8m_tf.evaluation.saved_models import evaluate_scorer
from yt8m_tf.metrics.accumulator import Metrics
from yt8m_tf.metrics.bootstrap import Interval, difference_interval
from yt8m_tf.metrics.rated_pairs import RatedMetrics
from yt8m_tf.serving.scorer import load_scorer
from yt8m_tf.training.checkpoints import load_trained


@dataclasses.dataclass(frozen=True)
class Difference:
    """GAP@20 of a model minus that of another one.

    Attributes:
      against: path of the other model.
      gap: its GAP@20.
      difference: the model's GAP@20 minus `gap`.
      interval: paired interval of the difference, over videos.
    """

    against: str
    gap: float
    difference: float
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """Formats the comparison as a line."""
        low, high = self.interval.low, self.interval.high
        told = (
            "which excludes 0" if self.interval.excludes_zero else "which includes 0: the difference is not significant"
        )
        return (
            f"against {self.against} ({self.gap:.6f}): {self.difference:+.6f}, {self.interval.level:.0%} interval over"
            f" videos {low:+.6f} to {high:+.6f}, {told}"
        )


def check_model(path: Path) -> None:
    """Raises InputError if `path` is neither a run directory nor a SavedModel."""
    if not files.is_saved_model(path) and not (path / run_dir.CONFIG).is_file():
        raise InputError(f"--against={path}: neither a run directory of yt8m-train nor a SavedModel; name one")


def measure(
    metrics: Metrics | RatedMetrics,
    path: Path,
    patterns: Sequence[str],
    data_dir: str,
    *,
    which: str = "best",
    batch_size: int | None = None,
    faults: Faults,
    xla: bool = True,
    progress: bool = True,
) -> Difference:
    """Evaluates another model, checked by `check_model`, on the same shards, and compares the two.

    Args:
      metrics: metrics of the first model, with the ids of its videos (`keep_ids`).
      path: path of the other model: a run directory, or a SavedModel.
      patterns, data_dir: the shards that the first model was evaluated on.
      which: "best" or "last" checkpoint of a run.
      batch_size, faults, xla, progress: see `runs.evaluate_trained`.

    Raises:
      InputError: a model is of rated segments, or the models have different classes or videos; see `evaluate_trained`,
        `evaluate_scorer`.
    """
    if isinstance(metrics, RatedMetrics):
        raise InputError("--against: compares GAP@20, which models of rated segments do not have; leave it out")
    num_classes = len(metrics.num_positives)
    if files.is_saved_model(path):
        scorer = load_scorer(str(path), 1, f"--against={path}", None, num_classes)
        _check_classes(path, scorer.num_classes, num_classes)
        shards = list_shards(patterns, data_dir, "--input")
        other: Metrics | RatedMetrics = evaluate_scorer(
            scorer, shards, batch_size=batch_size, faults=faults, keep_ids=True, progress=progress
        )
    else:
        trained = load_trained(path, which)
        _check_classes(path, trained.experiment.data.num_classes, num_classes)
        other = runs.evaluate_trained(
            trained, patterns, data_dir, batch_size=batch_size, faults=faults, xla=xla, keep_ids=True, progress=progress
        )
    if isinstance(other, RatedMetrics):
        raise InputError(f"--against={path}: a model of rated segments, which has no GAP@20; name another one")
    assert metrics.videos is not None and other.videos is not None
    interval = difference_interval(metrics.videos, other.videos)
    return Difference(str(path), other.gap, metrics.gap - other.gap, interval)


def _check_classes(path: Path, own: int, others: int) -> None:
    if own != others:
        raise InputError(
            f"--against={path}: a model of {own:,} classes, where the other has {others:,}; compare models of one"
            " version of the dataset"
        )
