"""Training steps of our models and of the same models in PyTorch, which runs in other processes (`torch_steps`)."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import contextlib
import json
import math
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.harness import Measurement, Options, Target, Variant, measure
from benchmarks.models import random_batch
from benchmarks.report import Result
from yt8m_tf import models
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import distribution
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep

_SIZES: dict[str, dict[str, Any]] = {
    "resnet_like": {"inner_size": 1024, "dropout": 0.4},
    "lstm_bi_attention": {"hidden_sizes": [4096, 4096]},
    "netvlad": {"cluster_size": 256, "hidden_size": 1024},
}
_QUICK: dict[str, dict[str, Any]] = {
    "resnet_like": {"inner_size": 32, "dropout": 0.4},
    "lstm_bi_attention": {"hidden_sizes": [16, 16]},
    "netvlad": {"cluster_size": 8, "hidden_size": 16},
}
_PROGRAM = Path(__file__).with_name("torch_steps.py")
_OURS, _EAGER, _COMPILED = "yt8m_tf", "PyTorch", "PyTorch, torch.compile"
# The required ratio to the rate of PyTorch, with and without torch.compile; None: shown, not required.
_MODELS: dict[str, float | None] = {"resnet_like": 1.4, "lstm_bi_attention": None, "netvlad": None}


class _Worker:
    """A process of another interpreter that runs training steps on request."""

    def __init__(self, python: str, job: dict[str, Any]):
        self._job = job
        command = [python, str(_PROGRAM), json.dumps(job)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise InputError(
                f"--torch_python={python}: {error.strerror}; name an interpreter that has torch"
            ) from error
        self.facts = self._answer()

    def run(self, steps: int) -> tuple[int, float]:
        """Runs `steps` steps, and returns the numbers of examples and seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return steps * self._job["batch_size"], self._answer()["seconds"]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            last = (self._process.stderr.read().strip().splitlines() or ["it ended without a message"])[-1]
            raise InputError(
                f"--torch_python: {self._process.args[0]} could not train {self._job['model']}: {last};"
                " name an interpreter of an environment with torch"
            )
        return json.loads(line)


def run(options: Options) -> Result:
    """Measures examples per second of three models, or of those that --match selects, with both packages."""
    chosen = {name: at_least for name, at_least in _MODELS.items() if re.search(options.match, name)}
    if not chosen:
        raise InputError(f"--match={options.match}: matches none of {', '.join(_MODELS)}")
    measurements, facts = [], {}
    for name, at_least in chosen.items():
        measurement, facts[name], facts["PyTorch"] = _measure(name, at_least, options)
        measurements.append(measurement)
    remarks = [
        "Both make forward pass, backward pass, clipping by the global norm and Adam, in float32, on all cores, with"
        " always the same batch; no clip of it is padded. PyTorch's LSTM has two biases, ours one."
    ]
    return Result(measurements, workload=facts, remarks=remarks)


def _measure(name: str, at_least: float | None, options: Options) -> tuple[Measurement, str, str]:
    settings = dict(_QUICK[name] if options.quick else _SIZES[name])
    batch_size, frames = _batch_shape(name, options.quick)
    experiment = parse_experiment(
        {
            "model": {"name": name, **settings},
            "data": {} if name == "resnet_like" else {"level": "frame", "max_frames": frames},
            "train": {"batch_size": batch_size},
        }
    )
    model = models.build_model(experiment.model, experiment.data.spec)
    step = TrainStep(TrainState(model, experiment), experiment, distribution.make_strategy(), xla=True)
    batch = random_batch(experiment.data.spec, batch_size, frames)

    def ours(amount: int) -> int:
        for number in range(amount):
            outputs = step.train([batch], number, [1e-3])
        float(outputs["loss"])  # waits for the device
        return amount * batch_size

    job = {"model": name, "options": settings, "batch_size": batch_size, "frames": frames, "threads": os.cpu_count()}
    with contextlib.ExitStack() as stack:
        workers = []
        for compiled in (False, True):
            workers.append(_Worker(options.torch_python, job | {"compile": compiled}))
            stack.callback(workers[-1].close)
        ways = [
            Variant(_OURS, "one update a call, with XLA", ours),
            Variant(_EAGER, "without compilation, in a separate process that waits meanwhile", workers[0].run),
            Variant(_COMPILED, "the same; forward pass and loss through torch.compile", workers[1].run),
        ]
        targets = [Target(_OURS, _EAGER, at_least), Target(_OURS, _COMPILED, at_least)]
        measurement = measure(name, "examples/s", ways, targets, options)
        theirs = workers[0].facts
    shape = f"batches of {batch_size}" + ("" if name == "resnet_like" else f" clips of {frames} frames, uint8")
    sizes = " ".join(f"{key}={value}" for key, value in settings.items())
    weights = f"{sum(math.prod(v.shape) for v in model.trainable_variables):,} weights, PyTorch {theirs['weights']:,}"
    return measurement, f"{sizes}; {shape}; {weights}", str(theirs["version"])


def _batch_shape(name: str, quick: bool) -> tuple[int, int]:
    if name == "resnet_like":
        return (16 if quick else 512), 1
    return (4, 12) if quick else (32, 300)
