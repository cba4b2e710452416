"""Benchmark of metrics: our implementation against a heap in Python, and the memory per video."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import dataclasses
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Measurement, Options, Target, Variant, measure
from benchmarks.heap_evaluator import HeapEvaluator, TopPairs, heap_top, numpy_top
from benchmarks.report import Result, Table
from yt8m_tf import schema
from yt8m_tf.metrics.accumulator import MetricAccumulator, Metrics
from yt8m_tf.metrics.batch_statistics import compiled_statistics

_BATCH_SIZE, _NUM_BATCHES = 512, 8
_OURS, _HEAP, _NUMPY = "batch_statistics + MetricAccumulator", "heap in Python", "argpartition in NumPy"
_AT_LEAST = 30.0
_MAX_LABELS = 32


@dataclasses.dataclass(frozen=True)
class ScoredBatch:
    """A batch in the forms that both implementations read, made in advance.

    Attributes:
      logits: [B, C] float32, and `label_ids` [B, L] int32, padded with -1; on the device.
      scores: [B, C] float32, and `labels` [B, C] bool; NumPy arrays.
    """

    logits: tf.Tensor
    label_ids: tf.Tensor
    scores: np.ndarray
    labels: np.ndarray


def run(options: Options) -> Result:
    """Measures speed and memory."""
    size, number = (32, 2) if options.quick else (_BATCH_SIZE, _NUM_BATCHES)
    rng = np.random.default_rng(0)
    batches = [make_batch(size, schema.NUM_CLASSES, rng) for _ in range(number)]
    facts = {"videos": f"{size * number:,} in batches of {size}", "classes": f"{schema.NUM_CLASSES:,}"}
    remarks = [
        "Memory: NumPy's and Python's allocations (tracemalloc) of a MetricAccumulator, divided by the videos that it"
        " gathered; how many shards these came from does not matter. Logits stay on the device, a batch at a time."
    ]
    return Result([measure_metrics(batches, options)], [_memory_table(batches, options)], facts, remarks)


def measure_metrics(batches: Sequence[ScoredBatch], options: Options) -> Measurement:
    """Times GAP, Hit@1, PERR and mAP of the same batches."""
    num_videos = sum(len(batch.scores) for batch in batches)
    statistics = compiled_statistics()

    def timed(function: Callable[[Sequence[ScoredBatch]], Any]) -> Callable[[int], int]:
        def run_passes(passes: int) -> int:
            function([*batches] * passes)
            return num_videos * passes

        return run_passes

    ways = [
        Variant(_OURS, "from logits on the device to all metrics, BCE and calibration too",
            timed(lambda given: ours(given, statistics))),
        Variant(_HEAP, "from scores in NumPy to GAP, Hit@1, PERR and mAP; heapq.nlargest for each video, heaps of"
            " pairs", timed(lambda given: plain(given, heap_top))),
        Variant(_NUMPY, "the same, but np.argpartition for each video", timed(lambda given: plain(given, numpy_top))),
    ]  # fmt: skip
    targets = [Target(_OURS, _HEAP, _AT_LEAST), Target(_OURS, _NUMPY)]
    return measure("metrics", "videos/s", ways, targets, options)


def ours(batches: Sequence[ScoredBatch], statistics: Callable[..., dict[str, tf.Tensor]]) -> Metrics:
    """Computes all metrics in one pass with our implementation."""
    accumulator = MetricAccumulator(batches[0].logits.shape[1])
    valid = tf.ones([len(batches[0].scores)], tf.bool)
    for batch in batches:
        accumulator.update(statistics(batch.logits, batch.label_ids, valid))
    return accumulator.result()


def plain(batches: Sequence[ScoredBatch], top: TopPairs = heap_top) -> dict[str, float]:
    """Computes the metrics video by video with `HeapEvaluator`."""
    evaluator = HeapEvaluator(batches[0].scores.shape[1], top)
    for batch in batches:
        evaluator.update(batch.scores, batch.labels)
    return evaluator.result()


def make_batch(size: int, num_classes: int, rng: np.random.Generator) -> ScoredBatch:
    """Makes a batch of random labels, 1 to 6 per video, with few frequent classes, and logits correlated with them."""
    weights = 1.0 / (10.0 + np.arange(num_classes))
    label_ids = np.full((size, _MAX_LABELS), schema.NO_LABEL, np.int32)
    labels = np.zeros((size, num_classes), bool)
    for row in range(size):
        chosen = rng.choice(num_classes, rng.integers(1, 7), replace=False, p=weights / weights.sum())
        label_ids[row, : len(chosen)] = chosen
        labels[row, chosen] = True
    logits = rng.normal(-7.0, 1.5, labels.shape) + labels * rng.normal(6.0, 2.0, labels.shape)
    logits = logits.astype(np.float32)
    scores = (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return ScoredBatch(tf.constant(logits), tf.constant(label_ids), scores, labels)


def _memory_table(batches: Sequence[ScoredBatch], options: Options) -> Table:
    """Measures the bytes per video of the accumulator, for 1, 2 and 4 times the videos."""
    size = len(batches[0].scores)
    statistics = compiled_statistics()
    valid = tf.ones([size], tf.bool)
    arrays = [{k: v.numpy() for k, v in statistics(b.logits, b.label_ids, valid).items()} for b in batches]
    passes = 1 if options.quick else 12
    rows = []
    for factor in (1, 2, 4):
        num_videos = factor * passes * size * len(batches)
        tracemalloc.start()
        accumulator = MetricAccumulator(batches[0].logits.shape[1])
        for _ in range(factor * passes):
            for values in arrays:
                accumulator.update(values)
        held, gathering = tracemalloc.get_traced_memory()
        accumulator.result()
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows.append([f"{num_videos:,}", *(f"{value / num_videos:,.0f}" for value in (held, gathering, highest))])
    header = ("videos", "kept", "highest while gathering", "highest with the result")
    return Table("Memory of evaluation: bytes a video", header, rows)
