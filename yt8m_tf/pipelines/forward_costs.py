"""Operations of a forward pass for one example, counted by tracing, and the table of the shipped pipelines' models."""

from __future__ import annotations

import csv
import dataclasses
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
from yt8m_tf.pipelines.known_models import ForwardCost, Shapes, given_text, key_of
from yt8m_tf.pipelines.settings import ModelSettings, PipelineConfig, load_pipeline

_HEADER = ("key", "given", "options", "parameters", "operations", "shapes")
_TRACED_BATCH = 2


@dataclasses.dataclass(frozen=True)
class ShippedModel:
    """A model of a shipped pipeline.

    Attributes:
      given: its section `model` as JSON, as it is given.
      experiment: its experiment.
      shares_weights: whether it starts from the weights of others, or others from its weights.
    """

    given: str
    experiment: ExperimentConfig
    shares_weights: bool


def measure(experiment: ExperimentConfig) -> ForwardCost:
    """Measures the cost of a model for an example of the maximum number of frames, or of a segment's length."""
    segments = experiment.data.segments
    return ForwardCost(
        *forward_operations(experiment.model, experiment.data.spec, segments.length if segments else None)
    )


def shapes(experiment: ExperimentConfig) -> Shapes:
    """Builds a model without weights, and returns the shapes of its variables by path."""
    model = models.build_without_weights(experiment.model, experiment.data.spec)
    return {variable.path: tuple(variable.shape) for variable in model.variables}


def shipped_models() -> list[ShippedModel]:
    """Returns the distinct models that the shipped pipelines train, sorted by name; does not look at the table."""
    found: dict[tuple[str, str, str], ExperimentConfig] = {}  # by name, key and given section
    sharing: set[str] = set()  # keys
    for selector in configurations.shipped_selectors():
        if selector.startswith("pipelines/"):
            settings = load_pipeline(selector)
            for model, shares_weights in _models_of(settings):
                values = settings.values(model, {})
                experiment = parse_experiment(values)
                key = key_of(experiment)
                found[experiment.model["name"], key, given_text(values["model"])] = experiment
                sharing |= {key} if shares_weights else set()
    return [ShippedModel(given, found[name, key, given], key in sharing) for name, key, given in sorted(found)]


def _models_of(settings: PipelineConfig) -> Iterable[tuple[ModelSettings, bool]]:
    """Yields all models of a pipeline, and whether they share weights."""
    trunks = settings.final.trunks if settings.final else ()
    starts = {own.start for own in settings.segments.values()}
    yield from ((model, False) for model in settings.first_level().values())
    yield from ((model, name in trunks) for name, model in settings.students.items())
    yield from ((model, name in starts) for name, model in settings.baselines.items())
    yield from ((model, model.start is not None) for model in settings.segments.values())
    if settings.final:
        yield settings.final, bool(trunks)


def table_of(shipped: Iterable[ShippedModel]) -> str:
    """Measures models, and returns the text of `configs/known_models.csv` for them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    costs: dict[str, ForwardCost] = {}  # a model may be given in several ways
    for own in shipped:
        key = key_of(own.experiment)
        cost = costs[key] = costs.get(key) or measure(own.experiment)
        shared = json.dumps(shapes(own.experiment)) if own.shares_weights else ""
        options = json.dumps(own.experiment.model)
        writer.writerow((key, own.given, options, cost.parameters, repr(cost.operations), shared))
    return text.getvalue()


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
