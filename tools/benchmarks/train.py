"""Benchmark of training steps: against Keras `fit`, against the rate of matrix products, and from shards."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import against_torch, workload
from benchmarks.harness import Options, Target, Variant, measure
from benchmarks.read import ours_training
from benchmarks.report import Result
from yt8m_tf import models
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.losses import losses
from yt8m_tf.training import distribution
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep
from yt8m_tf.training.teacher import Teacher

_BATCH_SIZE = 512
_STEPS_PER_CALL = 4  # the default of yt8m-train
_STEPS = 8  # steps of the smallest timed run
_LEARNING_RATE = 1e-3
_OURS, _SHARDS, _LIMIT = "TrainStep, in memory", "TrainStep, from shards", "matrix products"
_TAUGHT = "TrainStep, in memory, with a teacher"
_FIT, _FIT_XLA = "Keras fit", "Keras fit, jit_compile=True"

Work = Callable[[int], int]


def run(options: Options) -> Result:
    """Measures examples per second of one model, or of three against PyTorch."""
    if options.torch_python is not None:
        return against_torch.run(options)
    size = 16 if options.quick else _BATCH_SIZE
    experiment = workload.experiment(options.quick, size)
    stream = ours_training(workload.video_shards(options), experiment.data, size)
    batch = next(stream)
    model = models.build_model(experiment.model, experiment.data.spec)
    strategy = distribution.make_strategy()
    step = TrainStep(TrainState(model, experiment), experiment, strategy, xla=True)
    taught = TrainState(models.build_model(experiment.model, experiment.data.spec), experiment)
    teacher = Teacher([models.build_model(experiment.model, experiment.data.spec)])
    flops, matrix = flops_per_example(model, experiment), 512 if options.quick else 4096
    ways = [
        Variant(_OURS, f"with XLA, {_STEPS_PER_CALL} updates a call, gradients clipped; always the same batch",
            _training(step, lambda: batch, size)),
        Variant(_TAUGHT, "the same with another model of its kind that scores the batch (labels.teacher)",
            _training(TrainStep(taught, experiment, strategy, xla=True, teacher=teacher), lambda: batch, size)),
        Variant(_SHARDS, "the same step on batches of the training stream, which is already under way",
            _training(step, lambda: next(stream), size)),
        Variant(_FIT, "compile(Adam, BinaryCrossentropy), default options; tensors in memory, dense float labels",
            _fitting(experiment, batch, size)),
        Variant(_FIT_XLA, "the same, compiled by XLA", _fitting(experiment, batch, size, jit_compile=True)),
        Variant(_LIMIT, f"float32 products of two [{matrix}, {matrix}] by XLA, as a number of examples with the same"
            " operations", _products(matrix, flops)),
    ]  # fmt: skip
    targets = [Target(_OURS, _FIT, 1.4), Target(_OURS, _FIT_XLA), Target(_OURS, _LIMIT), Target(_SHARDS, _OURS, 0.95)]
    targets.append(Target(_TAUGHT, _OURS))  # has a third more matrix products
    measurement = measure("training", "examples/s", ways, targets, options)
    facts = {
        "model": " ".join(f"{key}={value}" for key, value in experiment.model.items()),
        "batch size": size,
        "weights": f"{model.count_params():,}",
        "operations": f"{flops / 1e6:.1f} MFLOP an example",
        "GFLOP/s": "; ".join(f"{way.name} {measurement.median(way.name) * flops / 1e9:.1f}" for way in ways),
    }
    remarks = [
        "Operations: only those of the matrix products. For each weight of a matrix and each example, 6 (forward,"
        " gradient of the weight, gradient of the input), or 4 where the input is a feature, which needs no gradient."
    ]
    return Result([measurement], workload=facts, remarks=remarks)


def flops_per_example(model: keras.Model, experiment: ExperimentConfig) -> float:
    """Returns the floating-point operations of the matrix products of a training step, for one example."""
    first = {f"{feature}_fc_dense" for feature in experiment.data.features}
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) == 2]
    return float(sum((4 if v.path.split("/")[0] in first else 6) * np.prod(v.shape) for v in kernels))


def _training(step: TrainStep, next_batch: Callable[[], Mapping[str, Any]], size: int) -> Work:
    rates = [_LEARNING_RATE] * _STEPS_PER_CALL

    def run_steps(amount: int) -> int:
        number = 0
        for number in range(0, amount * _STEPS, _STEPS_PER_CALL):
            outputs = step.train([next_batch() for _ in rates], number, rates)
        float(outputs["loss"])  # waits for the device
        return amount * _STEPS * size

    return run_steps


def _fitting(experiment: ExperimentConfig, batch: Mapping[str, tf.Tensor], size: int, **options: Any) -> Work:
    """Returns a function that runs epochs of `fit` on a new model."""
    model = models.build_model(experiment.model, experiment.data.spec)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(_LEARNING_RATE), loss=loss, **options)
    inputs = {name: tf.tile(batch[name], [_STEPS, 1]) for name in experiment.data.features}
    targets = tf.tile(losses.dense_targets(batch["labels"], experiment.data.num_classes), [_STEPS, 1])

    def run_epochs(amount: int) -> int:
        model.fit(inputs, targets, batch_size=size, epochs=amount, verbose=0)
        return amount * _STEPS * size

    return run_epochs


def _products(matrix: int, flops: float) -> Callable[[int], float]:
    left, right = (tf.random.stateless_normal([matrix, matrix], [0, seed]) for seed in (1, 2))
    product = tf.function(tf.matmul, jit_compile=True)

    def run_products(amount: int) -> float:
        for _ in range(amount):
            result = product(left, right)
        result[0, 0].numpy()  # waits for the device
        return amount * 2 * matrix**3 / flops

    return run_products
