"""Evaluates a model on a dataset, and writes the metrics for people and for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.console import tables
from yt8m_tf.data import clips, pipeline, shards
from yt8m_tf.data.clips import prepare_clips
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import TITLES, MetricAccumulator, Metrics
from yt8m_tf.metrics.batch_statistics import NUM_BINS, compiled_statistics
from yt8m_tf.metrics.evaluate import Accumulator, evaluate
from yt8m_tf.metrics.rated_pairs import RatedAccumulator, RatedMetrics, rated_statistics
from yt8m_tf.training import distribution
from yt8m_tf.training.checkpoints import Trained
from yt8m_tf.training.evaluation_step import NOT_FEATURES

METRICS_FILE = "metrics.json"
CLASSES_FILE = "classes.csv"


def evaluate_trained(
    trained: Trained,
    patterns: Sequence[str],
    data_dir: str,
    *,
    batch_size: int | None = None,
    faults: Faults,
    xla: bool = True,
    min_positives: int | None = None,
    keep_ids: bool = False,
    progress: bool = True,
) -> Metrics | RatedMetrics:
    """Evaluates a trained model on one device, on labels, or on ratings if it was trained on these.

    Args:
      trained: from `load_trained`.
      patterns: patterns of shards, relative to `data_dir`.
      data_dir: a directory.
      batch_size: examples scored together; None: `pipeline.scoring_batch_size`.
      faults: what to do about damaged shards and empty clips.
      xla: whether to compile the forward pass with XLA, where XLA can (`distribution.compiles_with_xla`), and the
        statistics.
      min_positives: see `MetricAccumulator.result`.
      keep_ids: whether `Metrics.videos` has ids; not for rated segments.
      progress: whether to show a progress bar.

    Raises:
      InputError: see `evaluate`; or a shard or record is invalid.
    """
    data = trained.experiment.data
    faults.of_model(f"the model in {trained.checkpoint.parents[2]}")
    paths = shards.list_shards(patterns, data_dir, "--input")

    statistics = compiled_statistics(xla)

    @tf.function(autograph=False, jit_compile=xla and distribution.compiles_with_xla(trained.model))
    def logits(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return trained.model(clips.decode_features(features, data.spec), training=False)

    @tf.function(autograph=False)
    def step(batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        features = {name: batch[name] for name in batch if name not in NOT_FEATURES}
        predicted = logits(prepare_clips(features, data.spec))
        if "ratings" in batch:
            return rated_statistics(predicted, batch["rated_classes"], batch["ratings"], batch["valid"])
        return statistics(predicted, batch["labels"], batch["valid"])

    batch_size = batch_size or pipeline.scoring_batch_size(data.level)
    stream = pipeline.evaluation_stream(paths, data, batch_size, faults=faults)
    batches = pipeline.at_least_one(stream, paths, faults, "nothing was evaluated")
    accumulator: Accumulator[Metrics | RatedMetrics] = (
        RatedAccumulator(data.num_classes) if data.segments else MetricAccumulator(data.num_classes, keep_ids=keep_ids)
    )
    return evaluate(step, batches, accumulator, progress=progress, min_positives=min_positives)


def format_table(metrics: Metrics | RatedMetrics) -> str:
    """Formats the metrics as aligned lines of plain text."""
    rows = [(TITLES[name], f"{value:.6f}") for name, value in metrics.scalars().items()]
    if isinstance(metrics, Metrics) and (interval := metrics.gap_interval) is not None:
        title = f"{TITLES['gap_at_20']}, {interval.level:.0%} interval over videos"
        rows.insert(1, (title, f"{interval.low:.6f} to {interval.high:.6f}"))
    rows += [(name.removeprefix("num_").capitalize(), f"{count:,}") for name, count in metrics.counts().items()]
    present = f"{np.count_nonzero(metrics.num_positives):,} of {len(metrics.num_positives):,}"
    rows.append(("Classes with labels" if isinstance(metrics, Metrics) else "Classes present", present))
    return tables.aligned(rows, num_left=1)


def write_evaluation(
    metrics: Metrics | RatedMetrics,
    directory: str | Path,
    *,
    vocabulary: Sequence[str] | None = None,
    context: Mapping[str, Any] | None = None,
    against: Mapping[str, Any] | None = None,
) -> None:
    """Writes `metrics.json` and `classes.csv`, each atomically.

    Args:
      metrics: what to write.
      directory: made if it does not exist.
      vocabulary: the names of the C classes (`vocabulary.load_vocabulary`).
      context: what was evaluated (the run, the checkpoint, the patterns), ready for JSON.
      against: a comparison with another model (`against.Difference.to_dict`).

    Raises:
      InputError: the directory cannot be written to.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        _write(Path(directory, METRICS_FILE), _json(metrics, context or {}, against))
        _write(Path(directory, CLASSES_FILE), _csv(metrics, vocabulary))
    except OSError as error:
        raise InputError(
            f"{directory}: cannot write the evaluation ({error.strerror}); name another directory"
        ) from error


def _json(metrics: Metrics | RatedMetrics, context: Mapping[str, Any], against: Mapping[str, Any] | None) -> str:
    interval = metrics.gap_interval if isinstance(metrics, Metrics) else None
    content = {
        "metrics": metrics.scalars(),
        **({"intervals": {metrics.BEST_BY: dataclasses.asdict(interval)}} if interval else {}),
        **({"against": dict(against)} if against else {}),
        **metrics.counts(),
        "num_classes": len(metrics.num_positives),
        "num_classes_with_labels": int(np.count_nonzero(metrics.num_positives)),
        "calibration": _calibration(metrics) if isinstance(metrics, Metrics) else None,
        "context": dict(context),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _calibration(metrics: Metrics) -> list[dict[str, float | None]] | None:
    pairs, scores, positives = metrics.calibration
    if not pairs.any():
        return None
    return [
        {
            "from": b / NUM_BINS,
            "to": (b + 1) / NUM_BINS,
            "pairs": int(pairs[b]),
            "mean_score": scores[b] / pairs[b] if pairs[b] else None,
            "share_positive": positives[b] / pairs[b] if pairs[b] else None,
        }
        for b in range(NUM_BINS)
    ]


def _csv(metrics: Metrics | RatedMetrics, vocabulary: Sequence[str] | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns: dict[str, Sequence[Any]] = {"class": range(len(metrics.num_positives))}
    if vocabulary is not None:
        columns["name"] = vocabulary
    if isinstance(metrics, RatedMetrics):
        columns["num_rated"] = metrics.num_rated.tolist()
    columns["num_positives"] = metrics.num_positives.tolist()
    precisions = zip(metrics.num_positives, metrics.average_precision, strict=True)
    columns["average_precision"] = [repr(float(precision)) if count else "" for count, precision in precisions]
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with files.whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
