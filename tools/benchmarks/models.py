"""Benchmark of a training step of every model: examples per second, share of the matrix-product rate, peak memory.

Every model runs in a separate process, so that its peak memory can be measured. The matrix products with which it is
compared alternate with its steps in that process.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Options
from benchmarks.report import Result, Table
from yt8m_tf.console.progress import Progress

_BATCH_SIZE = {"video": 512, "frame": 32}
_NUM_FRAMES = 300
_MATRIX = 4096
_STATUS = Path("/proc/self/status")


def run(options: Options) -> Result:
    """Measures all models in their published sizes (the defaults of their options)."""
    from yt8m_tf.errors import InputError
    from yt8m_tf.models import registry

    names = [name for name in registry.model_names() if re.search(options.match, name) and name != "weighted_mean"]
    if not names:
        raise InputError(f"--match={options.match}: matches no model; yt8m-models lists them")
    cases = [(name, level) for name in names for level in registry.registration(name).levels]
    rows = [row for row in options.earlier if (row["model"], row["level"]) not in cases]
    for name, level in (bar := Progress(cases, desc="models", leave=False)):
        bar.set_postfix_str(name)
        job = {"model": name, "level": level, "quick": options.quick, "repetitions": options.repetitions}
        command = [sys.executable, "-m", "benchmarks.models", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
        if done.returncode:
            print(f"{name} ({level}): {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    rows.sort(key=lambda row: (row["level"], row["model"]))
    header = ("model", "level", "parameters", "examples/s", "GFLOP an example", "share", "peak GB", "compile s")
    cells = [
        [
            row["model"],
            row["level"],
            f"{row['num_parameters']:,}",
            f"{row['examples_per_second']:.3g}",
            f"{row['gflop_per_example']:.3g}",
            f"{row['share']:.2f}",
            f"{row['peak_gb']:.1f}",
            f"{row['compile_seconds']:.0f}",
        ]
        for row in rows
    ]
    facts = {
        "batches": f"video level {_BATCH_SIZE['video']} videos; frame level {_BATCH_SIZE['frame']} clips of"
        f" {_NUM_FRAMES} frames; the same batch again and again, uint8 as it is read",
        "step": "decoding, forward, backward, clipping, Adam; one update a call; the median of the repetitions",
    }
    remarks = [
        "GFLOP an example: the operations of the matrix products and convolutions of the forward pass and of the"
        " gradients of all weights. Share: their rate, as part of that of float32 products of two"
        f" [{_MATRIX}, {_MATRIX}] by XLA in the same process. Peak: of the whole process, XLA compiling included."
    ]
    return Result([], [Table("training steps", header, cells)], facts, remarks, models=rows)


def measure_model(job: dict[str, Any]) -> dict[str, Any]:
    """Trains one model on one batch, and returns the figures that `run` prints."""
    import statistics

    import numpy as np
    import tensorflow as tf

    from yt8m_tf import models
    from yt8m_tf.data import clips
    from yt8m_tf.models.operations import matrix_operations
    from yt8m_tf.models.registry import parse_experiment
    from yt8m_tf.training import distribution
    from yt8m_tf.training.state import TrainState
    from yt8m_tf.training.step import TrainStep

    name, level, quick = job["model"], job["level"], job["quick"]
    size, frames = (4, 12) if quick else (_BATCH_SIZE[level], _NUM_FRAMES)
    data = {"level": level, "max_frames": frames} | needed_data(name)
    experiment = parse_experiment({"model": {"name": name}, "data": data, "train": {"batch_size": size}})
    spec = experiment.data.spec
    model = models.build_model(experiment.model, spec)
    batch = random_batch(spec, size, frames)

    features = {key: value for key, value in batch.items() if key != "labels"}

    def forward_and_backward() -> Any:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(clips.decode_features(features, spec), training=True))
        return tape.gradient(total, [variable.value for variable in model.trainable_variables])

    flops = matrix_operations(forward_and_backward) / size
    membership = np.eye(spec.num_classes, spec.num_tags, dtype="float32") if spec.num_tags else None
    strategy = distribution.make_strategy()
    step = TrainStep(TrainState(model, experiment), experiment, strategy, xla=True, membership=membership)
    started = time.perf_counter()
    float(step.train([batch], 0, [1e-3])["loss"])
    compile_seconds = time.perf_counter() - started

    matrix = 256 if quick else _MATRIX
    factors = [tf.random.stateless_normal([matrix, matrix], [0, seed]) for seed in (1, 2)]
    product = tf.function(tf.matmul, jit_compile=True)
    product(*factors)
    seconds, shares = [], []
    for repetition in range(job["repetitions"]):
        started = time.perf_counter()
        float(step.train([batch], repetition + 1, [1e-3])["loss"])
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        float(product(*factors)[0, 0])
        limit = 2.0 * matrix**3 / (time.perf_counter() - started)
        shares.append(flops * size / seconds[-1] / limit)
    rate = size / statistics.median(seconds)
    share, parameters = statistics.median(shares), sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    where = "videos" if level == "video" else f"clips of {frames} frames"
    return {
        "model": name,
        "level": level,
        "num_parameters": parameters,
        "examples_per_second": rate,
        "steps_per_second": rate / size,
        "gflop_per_example": flops / 1e9,
        "share": share,
        "peak_gb": peak_bytes() / 1e9,
        "compile_seconds": compile_seconds,
        "text": f"{rate / size:.2g} steps/s of {size} {where} ({share:.0%} of the matrix-product rate,"
        f" {peak_bytes() / 1e9:.1f} GB)",
    }


def needed_data(name: str) -> dict[str, Any]:
    """Returns the keys that a model needs in the data configuration, in addition to its level."""
    return {"verticals": 25} if "hierarchy" in name else {}


def peak_bytes() -> int:
    """Returns VmHWM, the peak physical memory of this process."""
    lines = [line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024


def random_batch(spec: Any, size: int, frames: int) -> dict[str, Any]:
    """Returns a labelled batch in the form in which records are read: `size` videos, or clips of `frames` frames."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    batch: dict[str, Any] = {"labels": tf.constant(rng.integers(0, spec.num_classes, (size, 3)), tf.int32)}
    for name, width in spec.features.items():
        if spec.level == "video":
            batch[name] = tf.constant(rng.uniform(-2, 2, (size, width)), tf.float32)
        else:
            batch[name] = tf.constant(rng.integers(0, 256, (size, frames, width), np.uint8))
    if spec.level == "frame":
        batch["num_frames"] = tf.fill([size], frames)
    return batch


if __name__ == "__main__":
    from yt8m_tf.console.quiet import import_quietly

    import_quietly()
    print(json.dumps(measure_model(json.loads(sys.argv[1]))))
