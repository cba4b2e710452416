"""Evaluates a model over a dataset, and writes the metrics for people and for programs."""

from __future__ import annotations

import csv
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
from yt8m_tf.metrics.accumulator import TITLES, Metrics
from yt8m_tf.metrics.batch_statistics import NUM_BINS, compiled_statistics
from yt8m_tf.metrics.evaluate import evaluate
from yt8m_tf.training import distribution
from yt8m_tf.training.checkpoints import Trained

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
    progress: bool = True,
) -> Metrics:
    """Evaluates a trained model on labelled shards, on one device.

    Args:
      trained: from `load_trained`.
      patterns: of shards, relative to `data_dir`.
      data_dir: see there.
      batch_size: examples scored together; None: `pipeline.scoring_batch_size`.
      faults: what to do about damaged shards and empty clips.
      xla: whether to compile the forward pass with XLA, where XLA can (`distribution.compiles_with_xla`), and the
        statistics.
      min_positives: see `MetricAccumulator.result`.
      progress: whether to show a progress bar.

    Raises:
      InputError: as `evaluate`, or whatever is wrong with the shards.
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
        features = {name: batch[name] for name in batch if name not in ("labels", "valid")}
        return statistics(logits(prepare_clips(features, data.spec)), batch["labels"], batch["valid"])

    batch_size = batch_size or pipeline.scoring_batch_size(data.level)
    batches = pipeline.evaluation_stream(paths, data, batch_size, faults=faults)
    return evaluate(step, batches, data.num_classes, progress=progress, min_positives=min_positives)


def format_table(metrics: Metrics) -> str:
    """The metrics as aligned lines of plain text."""
    rows = [(TITLES[name], f"{value:.6f}") for name, value in metrics.scalars().items()]
    rows += [
        ("Videos", f"{metrics.num_videos:,}"),
        ("Labels", f"{metrics.num_labels:,}"),
        ("Classes with labels", f"{np.count_nonzero(metrics.num_positives):,} of {len(metrics.num_positives):,}"),
    ]
    return tables.aligned(rows, num_left=1)


def write_evaluation(
    metrics: Metrics,
    directory: str | Path,
    *,
    vocabulary: Sequence[str] | None = None,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Writes `metrics.json` and `classes.csv`; each appears whole or not at all.

    Args:
      metrics: what to write.
      directory: made if it does not exist.
      vocabulary: the names of the C classes (`vocabulary.load_vocabulary`).
      context: what was evaluated (the run, the checkpoint, the patterns), ready for JSON.

    Raises:
      InputError: the directory cannot be written to.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        _write(Path(directory, METRICS_FILE), _json(metrics, context or {}))
        _write(Path(directory, CLASSES_FILE), _csv(metrics, vocabulary))
    except OSError as error:
        raise InputError(
            f"{directory}: cannot write the evaluation ({error.strerror}); name another directory"
        ) from error


def _json(metrics: Metrics, context: Mapping[str, Any]) -> str:
    pairs, scores, positives = metrics.calibration
    bins = [
        {
            "from": b / NUM_BINS,
            "to": (b + 1) / NUM_BINS,
            "pairs": int(pairs[b]),
            "mean_score": scores[b] / pairs[b] if pairs[b] else None,
            "share_positive": positives[b] / pairs[b] if pairs[b] else None,
        }
        for b in range(NUM_BINS)
    ]
    content = {
        "metrics": metrics.scalars(),
        "num_videos": metrics.num_videos,
        "num_labels": metrics.num_labels,
        "num_classes": len(metrics.num_positives),
        "num_classes_with_labels": int(np.count_nonzero(metrics.num_positives)),
        "calibration": bins if pairs.any() else None,
        "context": dict(context),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(metrics: Metrics, vocabulary: Sequence[str] | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *(["name"] if vocabulary is not None else []), "num_positives", "average_precision"])
    for index, (count, precision) in enumerate(zip(metrics.num_positives, metrics.average_precision, strict=True)):
        name = [vocabulary[index]] if vocabulary is not None else []
        writer.writerow([index, *name, int(count), repr(float(precision)) if count else ""])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with files.whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
