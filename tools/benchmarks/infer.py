"""Benchmark of inference from shards to a submission file, against the forward pass alone."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from benchmarks import workload
from benchmarks.harness import Measurement, Options, Target, Variant, measure
from benchmarks.report import Result
from yt8m_tf import models
from yt8m_tf.data.records import parse_records
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.serving import inference

_BATCH_SIZE = 1024  # the default of yt8m-infer at video level
_CALLS = 8  # calls of the forward pass in the smallest timed run
_UNDER_WAY = 2  # batches that are scored at a time
_FORWARD, _FORWARD_TWO = "forward pass", "forward pass, 2 at a time"
_AT_LEAST = 0.85
_MIN_SECONDS = 10.0  # long, because filling the pipeline and a model's first call take about 0.3 s of each run


def run(options: Options) -> Result:
    """Measures videos per second of a SavedModel with random weights."""
    size = 16 if options.quick else _BATCH_SIZE
    shards = workload.video_shards(options)
    num_records = workload.count_records(shards)
    saved_model = os.path.join(options.directory, "saved_model")
    experiment = workload.experiment(options.quick, size)
    model = models.build_model(experiment.model, experiment.data.spec)
    export_saved_model(model, experiment.data, saved_model)

    def infer(passes: int) -> tuple[float, float]:
        output = os.path.join(options.directory, "submission.csv")
        summary = inference.infer(saved_model, shards * passes, output, batch_size=size, progress=False)
        os.remove(output)
        return summary.num_scored, summary.seconds

    serialized = next(iter(tf.data.TFRecordDataset(shards).repeat().batch(size)))
    parsed = parse_records(serialized, experiment.data.records)
    batch = {name: parsed[name] for name in experiment.data.features}
    loaded = tf.saved_model.load(saved_model)
    features = loaded.signatures["features"]

    def forward() -> None:
        features(**batch)["predictions"].numpy()

    ours = Variant("infer, shards to CSV", f"serving.inference.infer in batches of {size}, from the first record read"
        " to the last row written, without loading the model and joining the finished parts", infer)  # fmt: skip
    counted = f"the SavedModel's signature 'features' on one parsed batch of {size} in memory, scores fetched"
    measurement = measure_against_forward("inference", ours, counted, forward, size, options)
    facts = {
        "model": " ".join(f"{key}={value}" for key, value in experiment.model.items()),
        "weights": f"{model.count_params():,}, stored as float16",
        "records": f"{num_records:,} in {len(shards)} shards, repeated until a run lasts long enough",
    }
    return Result([measurement], workload=facts)


def measure_against_forward(
    title: str, ours: Variant, counted: str, forward: Callable[[], None], size: int, options: Options
) -> Measurement:
    """Times `ours` against the forward pass that it contains, with one batch at a time and with two.

    Args:
      title: name of the measurement.
      ours: the whole work.
      counted: a description of a call of `forward`.
      forward: the forward pass of one batch.
      size: size of the batch.
      options: options of the benchmark.
    """
    ways = [
        ours,
        Variant(_FORWARD, counted, _forwarding(forward, size, 1)),
        Variant(_FORWARD_TWO, f"the same from {_UNDER_WAY} threads", _forwarding(forward, size, _UNDER_WAY)),
    ]
    targets = [Target(ours.name, name, _AT_LEAST) for name in (_FORWARD, _FORWARD_TWO)]
    return measure(title, "videos/s", ways, targets, options, _MIN_SECONDS)


def _forwarding(forward: Callable[[], None], size: int, threads: int) -> Callable[[int], int]:
    def run_calls(amount: int) -> int:
        with ThreadPoolExecutor(threads) as executor:
            list(executor.map(lambda _: forward(), range(amount * _CALLS)))
        return amount * _CALLS * size

    return run_calls
