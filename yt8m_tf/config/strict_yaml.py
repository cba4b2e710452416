"""Configurations: frozen dataclasses read strictly from YAML.

A configuration has the settings that change the result; where and how to run are flags. A file contains only
differences from the dataclasses' defaults. Unknown keys and values of the wrong type are errors that name the dotted
key.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import shlex
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from yt8m_tf.errors import InputError

T = TypeVar("T")
_HINTS: dict[Any, dict[str, Any]] = {}
_LONGEST = 200  # characters of a value in a message
_MERGE = "tag:yaml.org,2002:merge"
# The C loader, if PyYAML has it, for files of many configurations.
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SAFE_LOADER):
    """Rejects a repeated key in a mapping, which YAML forbids; PyYAML would take the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = (key_node.tag, getattr(key_node, "value", None))
            if isinstance(key[1], str) and key[0] != _MERGE:
                line = key_node.start_mark.line + 1
                if key in lines:
                    raise yaml.YAMLError(f"key '{key[1]}' is repeated in lines {lines[key]} and {line}; remove one")
                lines[key] = line
        return super().construct_mapping(node, deep)


def _type_hints(cls: Any) -> dict[str, Any]:
    """Returns the annotations of a dataclass, cached: pipelines of hundreds of models need them thousands of times."""
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def read_yaml(text: str) -> Any:
    """Parses a YAML document.

    Raises:
      yaml.YAMLError: it is not YAML, repeats a key, has a value that does not fit its type, or contains itself.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML's constructors raise these for a date 2001-13-45, `!!int x`, `!!bool x`, `!!timestamp x`.
        raise yaml.YAMLError(f"a value does not fit its type: {type(error).__name__}: {error}") from error
    if _holds_itself(content):
        raise yaml.YAMLError("an alias (*) refers to a node that contains it")
    return content


def _holds_itself(content: Any) -> bool:
    """Returns whether a collection contains itself, so that walking through it would not end."""
    known: set[int] = set()  # visited; aliases let one object occur in many places
    above: set[int] = set()
    left = [(content, False)]
    while left:
        value, is_done = left.pop()
        if is_done:
            above.remove(id(value))
        elif id(value) in above:
            return True
        elif isinstance(value, dict | list | tuple | set) and id(value) not in known:
            known.add(id(value))
            above.add(id(value))
            left.append((value, True))
            left += [(part, False) for part in (value.values() if isinstance(value, dict) else value)]
    return False


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Builds a dataclass from a mapping, checking every key and type.

    Args:
      cls: a dataclass; a field's type may be bool, int, float, str, a Literal, an optional of these, `tuple[X, ...]`
        (a single value stands for a tuple of one), `Mapping[str, X]`, another dataclass, or a union `X | D` of a
        dataclass and the type of its first field, whose value may then stand for the dataclass.
      values: plain YAML values. Numbers such as `1e-4`, which YAML reads as strings, become floats.
      where: the dotted key of the mapping, for messages ("" at the top).

    Raises:
      InputError: a key is unknown, or a value is of the wrong type or rejected by the dataclass itself.
    """
    check_mapping(values, where)
    hints = _type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise InputError(unknown("key", _join(where, key), [_join(where, name) for name in fields]))
    parsed = {key: _parse_value(hints[key], value, _join(where, key)) for key, value in values.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in parsed:
            raise InputError(f"configuration key '{_join(where, name)}' is missing; it has no default")
    try:
        return cls(**parsed)
    except ValueError as error:  # a dataclass checks ranges in __post_init__
        raise InputError(f"configuration key '{where}': {error}" if where else str(error)) from error


def read_json(path: Path, hint: Any, remedy: str) -> Any:
    """Reads a small JSON file and checks the type of its contents.

    Args:
      path: the file.
      hint: a dataclass, `Mapping[str, X]`, or another type that a field may have in `parse`. In mappings, values that
        are not numbers in JSON, such as Infinity, count as missing.
      remedy: what to do about a file that cannot be read.

    Raises:
      InputError: the file cannot be read, is not JSON or not of that type; the message names it and ends with `remedy`.
    """
    nothing = object()

    def without(items: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in items.items() if value is not nothing}

    try:
        text = path.read_text(encoding="utf-8")
        contents = json.loads(text, object_hook=without, parse_constant=lambda _: nothing)
        return _parse_value(hint, {} if contents is nothing else contents, "")
    except (OSError, ValueError, RecursionError) as error:  # an InputError is a ValueError
        reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from error


def to_dict(config: Any) -> Any:
    """Returns plain mappings, lists, numbers and strings, ready for YAML: the inverse of `parse`."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_dict(value) for value in config]
    return config


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `changes` on top; mappings are merged key by key, everything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


def apply_overrides(cls: type, values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Applies `--set` flags such as `optimizer.learning_rate=3e-5`; the value is read as YAML.

    An override changes only the keys that it names. `data.features.audio=64` keeps `rgb`, even from the defaults, and
    how `audio` is stored; `data.features.audio.dtype=float16` keeps its size; `data.features.audio=null` removes it.
    Only a whole mapping of names replaces the previous one: `data.features={rgb: 1024}` leaves no other feature.

    Args:
      cls: the dataclass that the result will be parsed to.
      values: plain YAML values.
      overrides: "key=value" each; later ones win.

    Raises:
      InputError: an override has no "=", or is below a key that is not a mapping.
    """
    result = _with_default_mappings(cls, values) if overrides else dict(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise InputError(f"--set={override}: write it as key=value, for example optimizer.learning_rate=3e-5")
        try:
            value: Any = read_yaml(text)
        except yaml.YAMLError as error:
            hint = ""
            if any(sign in text for sign in "*&!%@`"):  # alias, anchor, tag, and reserved characters
                quoted = json.dumps(text, ensure_ascii=False)
                within = ", and likewise each text in a list or mapping" if text[:1] in ("[", "{") else ""
                hint = f"; quote a text with YAML's special characters: --set={shlex.quote(f'{key}={quoted}')}{within}"
            raise InputError(f"--set={override}: the value is not YAML ({one_line(error)}){hint}") from error
        result = _overridden(cls, result, key.split("."), value)
    return _without_nulls(cls, result)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Lists the keys in which two plain configurations differ, as lines of `key: old -> new`."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, _join(where, key))
        elif before != after:
            lines.append(f"{_join(where, key)}: {before} -> {after}")
    return lines


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the known name closest to `name`, or "" if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _with_default_mappings(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` with the default of each `Mapping[str, X]` that they leave out."""
    result, hints = dict(values), _type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, given = hints[field.name], result.get(field.name)
        if dataclasses.is_dataclass(hint) and (given is None or isinstance(given, Mapping)):
            result |= {field.name: found} if (found := _with_default_mappings(hint, given or {})) else {}  # type: ignore[arg-type]
        elif given is None and typing.get_origin(hint) is Mapping and field.default_factory is not dataclasses.MISSING:
            result |= {field.name: default} if (default := to_dict(field.default_factory())) else {}
    return result


def _overridden(hint: Any, base: Any, keys: Sequence[str], value: Any) -> Any:
    """Returns `base`, of the type `hint`, with `value` at the dotted key `keys`."""
    if (whole := _with_short_form(hint)) and value is not None:
        first = dataclasses.fields(whole)[0].name
        if keys and base is not None and not isinstance(base, Mapping):
            base = {first: base}
        if not keys and isinstance(base, Mapping) and not isinstance(value, Mapping):
            keys = [first]
        hint = whole
    if keys:
        result = dict(base) if isinstance(base, Mapping) else {}
        if len(keys) == 1 and value is None and _is_of_names(hint) and keys[0] not in result:
            known = ", ".join(map(str, result)) or "nothing"
            raise InputError(f"--set: no '{keys[0]}' to remove with null; known: {known}{nearest(keys[0], result)}")
        own = _overridden(_hint_of(hint, keys[0]), result.get(keys[0]), keys[1:], value)
        return {**result, keys[0]: own}
    if not isinstance(value, Mapping) or _is_of_names(hint):
        return value
    result = dict(base) if isinstance(base, Mapping) else {}
    for key, item in value.items():
        result = _overridden(hint, result, [str(key)], item)
    return result


def _hint_of(hint: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _type_hints(hint).get(key, Any)
    return typing.get_args(hint)[1] if _is_of_names(hint) else Any


def _with_short_form(hint: Any) -> type | None:
    """Returns the dataclass D of a union `X | D`: a value of type X stands for a D with that first field."""
    if not isinstance(hint, types.UnionType):
        return None
    kinds = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    if len(kinds) == 1:
        return None
    return next((kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)


def _is_of_names(hint: Any) -> bool:
    """Returns whether a type is `Mapping[str, X]`: from names that the user chooses to values of one type."""
    return typing.get_origin(hint) is Mapping and typing.get_args(hint)[1] is not Any


def _without_nulls(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` without the null entries of a `Mapping[str, X]`, if X does not allow null."""
    result, hints = dict(values), _type_hints(cls)
    for name, value in result.items():
        hint = hints.get(name)
        if not isinstance(value, Mapping):
            continue
        if dataclasses.is_dataclass(hint):
            result[name] = _without_nulls(hint, value)  # type: ignore[arg-type]
        elif _is_of_names(hint):
            result[name] = {key: item for key, item in value.items() if item is not None}
    return result


def _parse_value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        is_long = isinstance(value, Mapping)
        (inner,) = kinds if len(kinds) == 1 else [kind for kind in kinds if dataclasses.is_dataclass(kind) is is_long]
        return _parse_value(inner, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(_wrong(where, value, "one of " + ", ".join(map(str, arguments))))
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_parse_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin in (Mapping, dict):
        check_mapping(value, where)
        return {key: _parse_value(arguments[1], item, _join(where, key)) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value if value is not None else {}, where)
    if hint is Any:
        return value
    return _parse_scalar(hint, value, where)


def _parse_scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(_wrong(where, value, "a number"))
        return number
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is int and type(value) is int and not -(2**63) <= value < 2**63:
        raise InputError(_wrong(where, value, "a whole number of at most 64 bits"))
    if type(value) is not hint:
        names = {int: "a whole number", bool: "true or false", str: "text", float: "a number"}
        raise InputError(_wrong(where, value, names.get(hint, str(hint))))
    return value


def check_mapping(value: Any, where: str) -> None:
    """Raises an InputError unless a value is a mapping; `where` is its dotted key, for the message."""
    if not isinstance(value, Mapping):
        raise InputError(_wrong(where, value, "a mapping of keys to values"))


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _wrong(where: str, value: Any, wanted: str) -> str:
    problem = f"{_shown(value)} is not {wanted}"
    return f"configuration key '{where}': {problem}" if where else problem


def _shown(value: Any) -> str:
    """Returns a value for a message, cut if it is too long or too deep."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} of hundreds of levels"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def unknown(kind: str, name: str, known: typing.Iterable[str]) -> str:
    """Says that a name is unknown, and which one was perhaps meant."""
    return f"unknown {kind} '{name}'{nearest(name, known)}"


def one_line(error: Exception) -> str:
    """Returns the message of an error as one line."""
    return " ".join(str(error).split())
