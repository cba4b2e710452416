"""Operations of a forward pass for one example, counted by tracing; a table has those of the shipped models."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf import models
from yt8m_tf.config import configurations
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models.operations import matrix_operations
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.pipelines.settings import load_pipeline
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.stages import make_stages

COSTS_FILE = "forward_costs.csv"
_HEADER = ("key", "model", "parameters", "operations")
_TRACED_BATCH = 2


@dataclasses.dataclass(frozen=True)
class ForwardCost:
    """Trainable parameters, and floating-point operations of the matrix products and convolutions of one example."""

    parameters: int
    operations: float


def experiments_of(stages: Iterable[Stage]) -> dict[str, ExperimentConfig]:
    """Returns the experiments of the training stages, by the stages' outputs."""
    return {stage.output: parse_experiment(stage.options["experiment"]) for stage in stages if stage.kind == "train"}


def forward_cost(experiment: ExperimentConfig) -> ForwardCost:
    """Returns the cost of a model from the table or, if it is not there, by `measure`, which takes up to a second."""
    return _table().get(key_of(experiment)) or measure(experiment)


def measure(experiment: ExperimentConfig) -> ForwardCost:
    """Measures the cost of a model for an example of the maximum number of frames, or of a segment's length."""
    segments = experiment.data.segments
    return ForwardCost(
        *forward_operations(experiment.model, experiment.data.spec, segments.length if segments else None)
    )


def key_of(experiment: ExperimentConfig) -> str:
    """Returns a short hash of everything that determines the cost: model options, data sizes, length of a segment."""
    segments = experiment.data.segments
    values = experiment.model, dataclasses.asdict(experiment.data.spec), segments and segments.length
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def shipped_models() -> list[ExperimentConfig]:
    """Returns the distinct experiments that the shipped pipelines train, sorted by the model's name."""
    found: dict[str, ExperimentConfig] = {}
    for selector in configurations.shipped_selectors():
        if selector.startswith("pipelines/"):
            experiments = experiments_of(make_stages(load_pipeline(selector)))
            found |= {key_of(experiment): experiment for experiment in experiments.values()}
    return [found[key] for key in sorted(found, key=lambda key: (found[key].model["name"], key))]


def table_of(experiments: Iterable[ExperimentConfig]) -> str:
    """Measures models, and returns the text of `configs/forward_costs.csv` for them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for experiment in experiments:
        cost = measure(experiment)
        writer.writerow((key_of(experiment), experiment.model["name"], cost.parameters, repr(cost.operations)))
    return text.getvalue()


@functools.cache
def _table() -> Mapping[str, ForwardCost]:
    with open(configurations.shipped_file(COSTS_FILE), encoding="utf-8", newline="") as file:
        return {
            row["key"]: ForwardCost(int(row["parameters"]), float(row["operations"])) for row in csv.DictReader(file)
        }


def forward_operations(values: Mapping[str, Any], spec: InputSpec, num_frames: int | None = None) -> tuple[int, float]:
    """Returns the number of a model's parameters, and of the operations of its forward pass for one example.

    The model is built without weights, and traced with symbolic zeros in their place, so nothing is allocated.

    Args:
      values: the section `model` of a configuration.
      spec: input specification.
      num_frames: number of frames of the example; None: `spec.max_frames`.
    """
    model = models.build_without_weights(values, spec)

    def forward() -> Any:
        zeros = [(variable, tf.zeros(variable.shape, variable.dtype)) for variable in model.variables]
        with keras.StatelessScope(state_mapping=zeros):
            return model(_zero_inputs(spec, num_frames or spec.max_frames), training=False)

    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return parameters, matrix_operations(forward) / _TRACED_BATCH


def _zero_inputs(spec: InputSpec, num_frames: int) -> dict[str, tf.Tensor]:
    if spec.level == "video":
        return {name: tf.zeros([_TRACED_BATCH, size]) for name, size in spec.features.items()}
    frames = {name: tf.zeros([_TRACED_BATCH, num_frames, size]) for name, size in spec.features.items()}
    return frames | {"num_frames": tf.fill([_TRACED_BATCH], num_frames)}
