"""The reference of all configuration keys, docs/CONFIGURATION.md, from the dataclasses and their docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.errors import InputError
from yt8m_tf.pipelines.settings import FinalSettings, ModelSettings, PipelineConfig, SegmentSettings

_HEAD = """\
# All configuration keys

Written by `yt8m-models --reference=docs/CONFIGURATION.md` from the docstrings of the code; a test compares. A
configuration is a YAML file; `--set=KEY=VALUE` overrides one key, as in `--set=optimizer.learning_rate=3e-4`. A key
that is left out has its default. An unknown key, or a value of the wrong type or range, is an error that names it.

- [A training run](#a-training-run): `yt8m-train --config`
- [Options of the models](#options-of-the-models): the section `model`
- [A pipeline](#a-pipeline): `yt8m-pipeline --config`; its section `stack` is also what `yt8m-stack --config` takes
- [Files of several configurations](#files-of-several-configurations)
"""
_FILES = """\
## Files of several configurations

A file may hold several configurations, `--config=FILE.yaml:NAME`, and what they share. A configuration's own keys go on
top of its `base`:

```
bases:
  common: {data: {level: frame}, train: {batch_size: 64}}
configurations:
  small: {base: common, model: {name: nextvlad, groups: 4}}
  large: {base: common, model: {name: nextvlad, groups: 8}}
```
"""
_MODELS = """\
## Options of the models

`model.name` chooses the model; the other keys of `model` are its options. [MODELS.md](MODELS.md) describes the models.
"""
_ENTRY = re.compile(r"^  (\w+(?:, \w+)*): (.*)$")


def markdown() -> str:
    """`docs/CONFIGURATION.md`.

    Raises:
      InputError: a key has no description: its dataclass's docstring does not list it under "Attributes:".
    """
    from yt8m_tf.models import registry  # takes Keras, and seconds, to import

    models = {name: registry.registration(name).config_class for name in registry.model_names()}
    lines = [_HEAD, "## A training run", "", *_sections(ExperimentConfig, ""), *_features()]
    lines += [
        "## Options of the models",
        "",
        "`model.name` chooses the model; the other keys of `model` are its options.",
    ]
    lines += ["What the models are: [MODELS.md](MODELS.md).", ""]
    for name, options in models.items():
        lines += [f"### `model: {{name: {name}}}`", "", *_table(_rows(options, "model."))]
    lines += ["## A pipeline", "", *_sections(PipelineConfig, "")]
    lines += ["### A model of a pipeline: `models.NAME`, `students.NAME`, `baselines.NAME`", ""]
    lines += [*_table(_rows(ModelSettings, "")), "### A model on rated segments: `segments.NAME`", ""]
    lines += [*_table(_rows(SegmentSettings, "")), "### `final`", "", *_table(_rows(FinalSettings, "final.")), _FILES]
    return "\n".join(lines)


def _sections(config: type, prefix: str) -> Iterator[str]:
    """The keys of a dataclass that are no sections themselves, then each section of it."""
    types_of = typing.get_type_hints(config)
    own = [field for field in dataclasses.fields(config) if not _section(types_of[field.name])]
    if own:
        yield from [*([f"### `{prefix[:-1]}`", "", _summary(config), ""] if prefix else [])]
        yield from _table([_row(config, field, prefix) for field in own])
    for field in dataclasses.fields(config):
        section = _section(types_of[field.name])
        if section and section is not FinalSettings:
            yield from _sections(section, f"{prefix}{field.name}.")


def _features() -> Iterator[str]:
    yield from ["### A feature: `data.features.NAME`", "", _summary(FeatureConfig), ""]
    yield from _table(_rows(FeatureConfig, ""))


def _rows(config: type, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """The rows of all keys, those of sections included."""
    types_of = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if section := _section(types_of[field.name]):
            default = field.default_factory() if callable(field.default_factory) else None
            yield from _rows(type(default) if default is not None else section, f"{prefix}{field.name}.")
        else:
            yield _row(config, field, prefix)


def _row(config: type, field: dataclasses.Field[Any], prefix: str) -> tuple[str, str, str, str]:
    if field.default is not dataclasses.MISSING:
        default = _value(field.default)
    elif field.default_factory is not dataclasses.MISSING:
        default = _value(field.default_factory())
    else:
        default = "needed"
    kind = _type(typing.get_type_hints(config)[field.name])
    return f"`{prefix}{field.name}`", kind, default, description(config, field.name)


def _table(rows: Any) -> list[str]:
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return ["| key | type | default | what it is |", "|---|---|---|---|", *lines, ""] if lines else ["No options.", ""]


def description(config: type, name: str) -> str:
    """Returns the description of a key under "Attributes:" in the docstring of a dataclass or one that it extends.

    Raises:
      InputError: neither does.
    """
    for owner in config.__mro__:
        if name in (found := _attributes(owner)):
            return found[name]
    raise InputError(f"{config.__module__}.{config.__name__}: its docstring does not describe '{name}'")


def _attributes(config: type) -> dict[str, str]:
    text = inspect.cleandoc(config.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.split("\n"):
        if not line.startswith("  "):
            if line:
                break
            continue
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _summary(config: type) -> str:
    """Returns the part of a docstring before its list of keys."""
    text = inspect.cleandoc(config.__doc__ or "")
    return re.split(r"\n\n(?:Attributes|Example|Raises):", text)[0]


def _section(kind: Any) -> type | None:
    """The dataclass that a key's value is, or null."""
    for part in (kind, *get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else (kind,):
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            return part
    return None


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin in (tuple, Sequence, list):
        return f"list of {_type(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping to {_type(arguments[1])}"
    if dataclasses.is_dataclass(kind):
        return "section"
    return {str: "text", bool: "true, false", int: "integer", float: "number", type(None): "null"}.get(kind, "anything")


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {own}' for name, own in value.items())}}}"
    return str(value)
