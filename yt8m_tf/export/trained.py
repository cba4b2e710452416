"""From a run directory to a SavedModel that has been measured on validation data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import config, run_dir
from yt8m_tf.data.clips import model_inputs
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream, scoring_batch_size
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.export.measure import TOLERANCE, Comparison, compare
from yt8m_tf.export.precision import FLOAT16, Precision, unused_rules
from yt8m_tf.export.saved_model import SIZE_LIMIT, ExportedSize, export_saved_model
from yt8m_tf.export.strip import checkpoint_bytes, strip_report
from yt8m_tf.training.checkpoints import Trained, load_trained
from yt8m_tf.vocabulary import load_vocabulary


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and how it compares with the trained model; `lines` say it to people."""

    size: ExportedSize
    comparison: Comparison
    lines: tuple[str, ...]


def export_trained(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    data_dir: str = ".",
    which: str = "best",
    precision: Precision = FLOAT16,
    size_limit: int = SIZE_LIMIT,
    vocabulary: str | None = None,
    measure_examples: int | None = None,
    tolerance: float | None = None,
    report: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Exports a run's model; the SavedModel appears if it is within the size limit and the tolerance.

    Args:
      workdir: run directory.
      output: the SavedModel's directory.
      data_dir: what the run's `data.validation` is relative to.
      which: "best" or "last" checkpoint.
      precision, size_limit, vocabulary, report, overwrite: see `export_saved_model`.
      measure_examples: compare on the first so many validation examples; None: on all.
      tolerance: how much GAP@20 may change; None: 1e-3 where weights are clustered, 1e-4 for float16, 1e-6 for float32.

    Raises:
      InputError: a rule of `precision` for variables that the model does not have; see `load_trained`, `list_shards`,
        `export_saved_model`, `Comparison.check`.
    """
    trained = load_trained(Path(workdir), which)
    data = trained.experiment.data
    if unused := unused_rules(precision, trained.model.weights):
        layers = ", ".join(dict.fromkeys(variable.path.split("/")[0] for variable in trained.model.weights))
        raise InputError(
            f"--precision: no variable's path fits '{unused[0].pattern}'; the model's layers are: {layers}"
        )
    if vocabulary is not None:
        load_vocabulary(vocabulary, data.num_classes)  # refuses that of another version of the dataset
    shards = list_shards(data.validation, data_dir, "data.validation")
    comparisons: list[Comparison] = []

    def check(directory: Path) -> dict[str, Any]:
        batches = evaluation_stream(shards, data, scoring_batch_size(data.level), faults=Faults(on_empty="skip"))
        comparison = compare(directory, lambda batch: _logits(trained, batch), _limited(batches, measure_examples))
        comparison.check(TOLERANCE[precision.coarsest] if tolerance is None else tolerance)
        comparisons.append(comparison)
        return dataclasses.asdict(comparison)

    size = export_saved_model(
        trained.model,
        data,
        output,
        precision=precision,
        size_limit=size_limit,
        metadata=_metadata(trained, Path(workdir)),
        vocabulary=vocabulary,
        check=check,
        report=report,
        overwrite=overwrite,
    )
    stripped = strip_report(checkpoint_bytes(trained.checkpoint), size.total_bytes)
    return ExportReport(size, comparisons[0], (*stripped, *_comparison_lines(comparisons[0])))


def _logits(trained: Trained, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return trained.model(model_inputs(batch, trained.experiment.data.spec), training=False)


def _limited(batches: Iterable[Mapping[str, tf.Tensor]], limit: int | None) -> Iterator[Mapping[str, tf.Tensor]]:
    """`batches` up to the first `limit` valid rows."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        valid = batch["valid"] & (tf.cumsum(tf.cast(batch["valid"], tf.int32)) <= left)
        left -= int(tf.math.count_nonzero(valid))
        yield {**batch, "valid": valid}
        if not left:
            return


def _metadata(trained: Trained, workdir: Path) -> dict[str, Any]:
    evaluations = [line for line in run_dir.read_history(workdir) if line.get("step") == trained.step]
    return {
        "model": dict(config.to_dict(trained.experiment.model)),
        "experiment": config.to_dict(trained.experiment),
        "step": trained.step,
        "evaluation": evaluations[-1] if evaluations else None,
    }


def _comparison_lines(comparison: Comparison) -> list[str]:
    return [
        f"GAP@20 {comparison.gap:.6f}, of the float32 model {comparison.gap_float32:.6f}"
        f" ({comparison.num_videos:,} validation videos)",
        f"scores differ by {comparison.max_difference:.2e} at most, {comparison.mean_difference:.2e} on average",
    ]
