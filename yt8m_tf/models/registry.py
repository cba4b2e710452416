"""The registry of models: a name, a configuration dataclass and a builder function for each.

    @register_model("logistic", LogisticConfig, levels=("video", "frame"))
    def build_logistic(config: LogisticConfig, spec: InputSpec) -> keras.Model: ...

Every model is a functional `keras.Model` from a dict of inputs (`model_inputs`) to `[B, C]` float32 logits, or
`[B, C + V]` if the data has tags (`InputSpec.num_outputs`). The builder names every layer with weights, so variable
paths do not depend on other models in the process. The layer whose bias starts at the classes' prior is named "logits";
if tags have their own layer, it is named "tag_logits".
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig, load_values
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.config.strict_yaml import nearest, parse
from yt8m_tf.errors import InputError

Builder = Callable[[Any, InputSpec], keras.Model]


@dataclasses.dataclass(frozen=True)
class Registration:
    """A registered model: its configuration dataclass, builder, and the levels of records that it reads.

    A model with `trains` False cannot be trained, because it is combined from trained runs.
    """

    config_class: type
    builder: Builder
    levels: tuple[str, ...]
    trains: bool = True


_MODELS: dict[str, Registration] = {}


def register_model(
    name: str, config_class: type, levels: tuple[str, ...], trains: bool = True
) -> Callable[[Builder], Builder]:
    """Registers the decorated builder under `name`; see `Registration`.

    Raises:
      ValueError: `name` is already registered.
    """

    def register(builder: Builder) -> Builder:
        if name in _MODELS:
            raise ValueError(f"register_model: the name '{name}' is already taken by {_MODELS[name].builder}")
        _MODELS[name] = Registration(config_class, builder, levels, trains)
        return builder

    return register


def model_names() -> list[str]:
    """Returns the names of all models that can be trained, sorted.

    Example:
      >>> import yt8m_tf
      >>> "netvlad" in yt8m_tf.model_names()
      True
    """
    return sorted(name for name, entry in _MODELS.items() if entry.trains)


def registration(name: str) -> Registration:
    """Returns the registration of `name`.

    Raises:
      InputError: `name` is not registered; the message lists the known names.
    """
    if not isinstance(name, str):
        raise InputError(
            f"configuration key 'model.name': {name!r} is not a name; give one of {', '.join(model_names())}"
        )
    if name not in _MODELS:
        known = ", ".join(model_names())
        raise InputError(
            f"configuration key 'model.name': unknown model '{name}'{nearest(name, _MODELS)} (known: {known})"
        )
    return _MODELS[name]


def model_config(values: Mapping[str, Any]) -> Any:
    """Parses `{"name": ..., **options}` into the named model's configuration dataclass.

    Raises:
      InputError: the name is unknown or missing, an option is unknown, or a value has the wrong type or range.
    """
    if "name" not in values:
        raise InputError(f"configuration key 'model.name' is missing; name one of {', '.join(model_names())}")
    options = {key: value for key, value in values.items() if key != "name"}
    return parse(registration(values["name"]).config_class, options, "model")


def load_experiment(selector: str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Reads `PATH.yaml[:NAME]`, applies `--set` overrides, and checks all values, including the model's options.

    Raises:
      InputError: see `load_values` and `parse_experiment`.
    """
    return parse_experiment(load_values(selector, overrides))


def parse_experiment(values: Mapping[str, Any]) -> ExperimentConfig:
    """Creates an experiment from plain values; the model's options are completed with their defaults.

    Raises:
      InputError: a key or the model is unknown, or a value has the wrong type or range.
    """
    experiment = strict_yaml.parse(ExperimentConfig, values, "")
    resolved = strict_yaml.to_dict(model_config(experiment.model))
    return dataclasses.replace(experiment, model={"name": experiment.model["name"], **resolved})


def build_model(model: str | Mapping[str, Any], spec: InputSpec, **options: Any) -> keras.Model:
    """Builds a registered model for the data that `spec` describes.

    Args:
      model: a name of `model_names`, or a configuration's section `model`, `{"name": ..., **options}`.
      spec: level, features and classes.
      **options: options of the model, listed in docs/CONFIGURATION.md; a section is given as a mapping.

    Returns:
      A functional model from {feature: [B, D] float32}, or for clips {feature: [B, T, D] float32, "num_frames": [B]
      int32}, to [B, C + V] float32 logits.

    Raises:
      InputError: see `model_config`; or the model does not read records of `spec.level`.

    Example:
      >>> import yt8m_tf
      >>> spec = yt8m_tf.InputSpec(level="frame", features={"rgb": 24, "audio": 12}, num_classes=20)
      >>> model = yt8m_tf.build_model("netvlad", spec, cluster_size=8, hidden_size=16)
      >>> model.output_shape
      (None, 20)
    """
    values = {"name": model, **options} if isinstance(model, str) else {**model, **options}
    config, entry = model_config(values), registration(values["name"])
    if spec.level not in entry.levels:
        raise InputError(
            f"configuration key 'data.level': model '{values['name']}' reads {' or '.join(entry.levels)}-level"
            f" records, not {spec.level}-level ones"
        )
    return entry.builder(config, spec)


def build_without_weights(values: Mapping[str, Any], spec: InputSpec) -> keras.Model:
    """Builds a model whose variables have shapes but no values, to count or trace it with hardly any memory."""

    def build() -> keras.Model:
        with keras.StatelessScope(initialize_variables=False):
            return build_model(values, spec)

    # In a new thread, because Keras keeps a list per thread of variables to initialise later: the next `stateless_call`
    # in this thread would allocate the weights of all models that were built in it.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(build).result()


def model_inputs(spec: InputSpec) -> dict[str, keras.KerasTensor]:
    """Creates the inputs of a model that reads `spec`.

    Returns:
      At video level {feature: [B, D] float32}; at frame level {feature: [B, T, D] float32, decoded but not masked;
      "num_frames": [B] int32, 1 to T}. T is not fixed; models that need a fixed length truncate or pad to
      `spec.max_frames`.
    """
    if spec.level == "video":
        return {name: keras.Input((size,), name=name) for name, size in spec.features.items()}
    inputs = {name: keras.Input((None, size), name=name) for name, size in spec.features.items()}
    return inputs | {"num_frames": keras.Input((), dtype="int32", name="num_frames")}


def set_output_bias(model: keras.Model, prior: np.ndarray) -> None:
    """Initializes the output bias so that outputs start at the prior instead of one half, which saves about an epoch.

    Args:
      model: a model with a layer named "logits", or a mean of such models. The bias of the layer has a multiple of C
        elements, grouped by class, or a single element for all classes, which is set to the log-odds of their mean
        prior. Tags follow the classes in the same bias, or have a layer named "tag_logits".
      prior: [C + V] probabilities of classes and tags, strictly between 0 and 1.
    """
    for part in parts(model):
        _set_own_bias(part, prior, "" if part is model else f"{part.name}_")


def parts(model: keras.Model) -> list[keras.Model]:
    """Returns the members of a weighted mean, recursively; for any other model, the model itself."""
    members = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return [part for member in members for part in parts(member)] or [model]


def _set_own_bias(model: keras.Model, prior: np.ndarray, prefix: str) -> None:
    tags, names = f"{prefix}tag_logits", {layer.name for layer in model.layers}
    num_own = model.get_layer(tags).bias.shape[0] if tags in names else 0
    split = len(prior) - num_own
    for name, part in ((f"{prefix}logits", prior[:split]), (tags, prior[split:])):
        if not len(part):
            continue
        bias = model.get_layer(name).bias
        part = part.mean(keepdims=True) if bias.shape[0] == 1 else part
        log_odds = np.log(part) - np.log1p(-part)
        bias.assign(np.repeat(log_odds, bias.shape[0] // len(log_odds)).astype("float32"))
