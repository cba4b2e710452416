"""Benchmark of exports of the final network at full size, in each precision: bytes, memory, seconds, and rates."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import workload
from benchmarks.harness import Measurement, Options, Target, Variant, measure
from benchmarks.report import Result, Table
from yt8m_tf import models
from yt8m_tf.config import configurations
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.export.report import REPORT_FILE
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints

_PRECISIONS = ("float32", "float16", "cluster")
_AT_LEAST = {"float16": 0.95, "cluster": 0.9}  # at the largest batch
_SIZES = (1, 64, 1024)
_CASTING = "float16, cast in each call"
_EXAMPLES = 2048  # on which an export is measured


def run(options: Options) -> Result:
    """Measures exports of random weights, each in a separate process of yt8m-export."""
    experiment, sizes = _experiment(options), (1, 8) if options.quick else _SIZES
    model = models.build_model(experiment.model, experiment.data.spec)
    num_weights = model.count_params()
    workdir = Path(options.directory, "run")
    checkpoints.save_run(workdir, experiment, {variable.path: variable for variable in model.weights})
    del model
    reports = {precision: _export(workdir, precision, options) for precision in _PRECISIONS}
    measurements = [_rates(workdir, size, experiment, options, size == sizes[-1]) for size in sizes]
    rows = [_row(precision, report, 4 * num_weights) for precision, report in reports.items()]
    header = ("precision", "MB", "seconds", "peak GB", "of float32", "loads in", "GAP changes", "scores change")
    facts = {
        "model": " ".join(f"{key}={value}" for key, value in experiment.model.items()),
        "weights": f"{num_weights:,}, random: {4 * num_weights / 1e6:,.0f} MB in float32",
        "peak GB": "of the whole process of yt8m-export, including about 0.7 GB for Python and TensorFlow; then as"
        " a multiple of the float32 weights",
    }
    return Result(measurements, [Table("export of random weights", header, rows)], workload=facts)


def _experiment(options: Options) -> ExperimentConfig:
    values: dict[str, Any] = configurations.load_yaml("second_level/final_network.yaml")
    model = {**values["model"], **({"width": 0.02} if options.quick else {})}
    names = [os.path.basename(shard) for shard in workload.video_shards(options)]
    return parse_experiment({"model": model, "data": {"validation": names}})


def _export(workdir: Path, precision: str, options: Options) -> dict[str, Any]:
    output = Path(options.directory, precision)
    flags = {
        "workdir": workdir,
        "output": output,
        "data_dir": options.data_dir or options.directory,
        "precision": precision,
        "size_limit": 2_000_000_000,
        "measure_examples": _EXAMPLES,
        "tolerance": 1,  # scores of random weights are close to one another
    }
    command = [sys.executable, "-m", "yt8m_tf.bin.export", *(f"--{name}={value}" for name, value in flags.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((output / REPORT_FILE).read_text(encoding="utf-8"))


def _row(precision: str, report: dict[str, Any], weight_bytes: int) -> list[str]:
    metrics = report["metrics"]
    return [
        precision,
        f"{report['size']['total_bytes'] / 1e6:,.1f}",
        f"{report['seconds']:.0f}",
        f"{report['peak_bytes'] / 1e9:.2f}",
        f"{report['peak_bytes'] / weight_bytes:.2f}",
        f"{report['load_seconds']:.1f}",
        f"{metrics['gap'] - metrics['gap_float32']:+.1e}",
        f"{metrics['max_difference']:.1e}",
    ]


def _rates(workdir: Path, size: int, experiment: ExperimentConfig, options: Options, demanded: bool) -> Measurement:
    rng = np.random.default_rng(0)
    features = {
        name: tf.constant(rng.normal(size=(size, width)).astype(np.float32))
        for name, width in experiment.data.sizes.items()
    }
    loaded = {name: tf.saved_model.load(os.path.join(options.directory, name)) for name in _PRECISIONS}

    def scoring(name: str) -> Variant:
        def run_calls(amount: int) -> int:
            for _ in range(amount):
                loaded[name].signatures["features"](**features)["predictions"].numpy()
            return amount * size

        return Variant(
            name, f"the signature 'features' of the SavedModel, {size} at a time, from memory to memory", run_calls
        )

    ways = [scoring(name) for name in _PRECISIONS]
    targets = [Target(name, "float32", least if demanded else None) for name, least in _AT_LEAST.items()]
    if size == 1:
        casts = [tf.Variable(tf.cast(variable, tf.float16)) for variable in _large(loaded["float32"])]
        ways.append(Variant(_CASTING, "as float32, plus a cast of each large weight, as in a graph without decoded"
            " weights", _with_casts(scoring("float32"), casts)))  # fmt: skip
        targets.append(Target(_CASTING, "float32"))
    return measure(f"batches of {size}", "videos/s", ways, targets, options)


def _large(loaded: Any) -> list[tf.Variable]:
    found = loaded.signatures["features"].variables
    return [variable for variable in found if variable.shape.num_elements() >= 1024]


def _with_casts(way: Variant, halves: list[tf.Variable]) -> Any:
    @tf.function
    def cast() -> list[tf.Tensor]:
        return [tf.cast(half, tf.float32) for half in halves]

    def run_calls(amount: int) -> Any:
        for _ in range(amount):
            cast()
            way.run(1)
        return amount

    return run_calls
