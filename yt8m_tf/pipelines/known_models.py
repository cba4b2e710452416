"""What a plan needs to know of its models: completed options, costs, and shapes of variables.

A table has them for the models of the shipped pipelines, so that neither their plans nor their checks import Keras.
Whatever is not in it, such as a changed option, is checked or measured with Keras.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from yt8m_tf.config import configurations, strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.console.quiet import import_quietly

TABLE = "known_models.csv"


@dataclasses.dataclass(frozen=True)
class ForwardCost:
    """Trainable parameters, and floating-point operations of the matrix products and convolutions of one example."""

    parameters: int
    operations: float


Shapes = Mapping[str, tuple[int, ...]]  # of variables, by path


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A row of the table; values of several parts are JSON.

    Attributes:
      key: `key_of` the experiment.
      given: the section `model` of a pipeline, as it is given.
      options: the same with all defaults.
      cost: the cost of a forward pass.
      shapes: shapes of variables by path, of models whose weights start others, and of these; "" for all others.
    """

    key: str
    given: str
    options: str
    cost: ForwardCost
    shapes: str


def parse_experiment(values: Mapping[str, Any]) -> ExperimentConfig:
    """Creates an experiment from plain values, as `registry.parse_experiment` does.

    Raises:
      InputError: see there.
    """
    experiment = strict_yaml.parse(ExperimentConfig, values, "")
    options = _options().get(given_text(experiment.model))
    if options is None:
        import_quietly()
        from yt8m_tf.models import registry

        return registry.parse_experiment(values)
    return dataclasses.replace(experiment, model=json.loads(options))


def forward_cost(experiment: ExperimentConfig) -> ForwardCost:
    """Returns the cost of a model; to measure it, if the table lacks it, takes up to a second."""
    if known := _by_key().get(key_of(experiment)):
        return known.cost
    import_quietly()
    from yt8m_tf.pipelines import forward_costs

    return forward_costs.measure(experiment)


def variable_shapes(experiment: ExperimentConfig) -> Shapes:
    """Returns the shapes of a model's variables by path."""
    known = _by_key().get(key_of(experiment))
    if known and known.shapes:
        return {path: tuple(shape) for path, shape in json.loads(known.shapes).items()}
    import_quietly()
    from yt8m_tf.pipelines import forward_costs

    return forward_costs.shapes(experiment)


def key_of(experiment: ExperimentConfig) -> str:
    """Returns a short hash of everything that determines the cost: model options, data sizes, length of a segment."""
    segments = experiment.data.segments
    values = experiment.model, dataclasses.asdict(experiment.data.spec), segments and segments.length
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def given_text(model: Mapping[str, Any]) -> str:
    """Returns a section `model` as JSON, by which the table is searched; "" for values that JSON does not have."""
    try:
        return json.dumps(model)
    except (TypeError, ValueError, RecursionError):
        return ""


@functools.cache
def _options() -> Mapping[str, str]:
    """Returns options with all defaults by `given_text`, and by themselves, for records of earlier plans."""
    return {text: row.options for row in _rows() for text in (row.given, row.options)}


@functools.cache
def _by_key() -> Mapping[str, KnownModel]:
    return {row.key: row for row in _rows()}


@functools.cache
def _rows() -> tuple[KnownModel, ...]:
    with open(configurations.shipped_file(TABLE), encoding="utf-8", newline="") as file:
        return tuple(
            KnownModel(
                row["key"],
                row["given"],
                row["options"],
                ForwardCost(int(row["parameters"]), float(row["operations"])),
                row["shapes"],
            )
            for row in csv.DictReader(file)
        )
