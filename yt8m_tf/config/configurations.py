"""Configuration files, and selectors such as `second_level/small_nets.yaml:a`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from yt8m_tf.config.strict_yaml import check_mapping, merge, nearest, one_line, read_yaml, unknown
from yt8m_tf.errors import InputError

_PACKAGE_DIR = Path(__file__).resolve().parents[1]
# Directories of the shipped configurations: inside the installed package, or next to the package in a checkout.
_CONFIG_DIRS = (_PACKAGE_DIR / "configs", _PACKAGE_DIR.parent / "configs")


def load_yaml(selector: str) -> dict[str, Any]:
    """Reads the configuration that `PATH.yaml` or `PATH.yaml:NAME` selects.

    A file has one configuration (its top-level keys), or several: `configurations: {NAME: {...}}`. Each of several
    configurations may name one of the file's `bases: {NAME: {...}}` under `base`, and then contains only differences
    from it. A path that does not exist is looked up among the shipped configurations.

    Raises:
      InputError: there is no such file, it is not YAML, or NAME is unknown or missing.
    """
    path_text, _, name = selector.partition(".yaml:")
    path = _find(path_text + ".yaml" if name else selector)
    content = _read(path)
    if "configurations" not in content:
        if name and isinstance(content.get(name), Mapping):
            raise InputError(
                f"--config={selector}: {path} has '{name}' at its top level; write names under 'configurations:', as in"
                f" 'configurations: {{{name}: ...}}'"
            )
        if name:
            raise InputError(
                f"--config={selector}: {path} contains one configuration; leave out ':{name}', or write several in it"
                f" under their names, as in 'configurations: {{{name}: ...}}'"
            )
        return copy.deepcopy(content)
    others = set(content) - {"configurations", "bases"}
    if others:
        raise InputError(f"{path}: unknown key '{min(others)}' beside 'configurations' and 'bases'; remove it")
    choices, bases = (_named(content, kind, path) for kind in ("configurations", "bases"))
    if name not in choices:
        problem = unknown("configuration", name, choices) if name else "the file contains several configurations"
        raise InputError(f"--config={selector}: {problem}; name one of {', '.join(choices)} after ':'")
    chosen = choices[name]
    base = chosen.pop("base", None)
    if base is None:
        return copy.deepcopy(chosen)
    if str(base) not in bases:
        raise InputError(f"{path}: {unknown('base', str(base), bases)}")
    return copy.deepcopy(merge(bases[str(base)], chosen))


def configuration_names(path: str) -> list[str]:
    """Returns the names of a file's configurations, in the file's order; [] for a file of one configuration.

    Raises:
      InputError: there is no such file, or it is not YAML.
    """
    found = _find(path)
    return list(_named(_read(found), "configurations", found))


def shipped_selectors() -> list[str]:
    """Returns all selectors of shipped configurations, file by file."""
    found = []
    for _, name in _shipped("*.yaml"):
        found += [f"{name}:{choice}" for choice in configuration_names(name)] or [name]
    return found


def shipped_file(name: str) -> Path:
    """Returns the path of a shipped file from its path below `configs/`."""
    return next(path for path, relative in _shipped(Path(name).name) if relative == name)


def _find(path: str) -> Path:
    given = Path(path)
    relative = Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    candidates = [given, *(directory / relative for directory in _CONFIG_DIRS)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = [name for _, name in _shipped("*.yaml")]
    hint = nearest(str(relative), known) or f"; known ones: {', '.join(known)}"
    raise InputError(f"--config={path}: no such file{hint}")


def _shipped(pattern: str) -> list[tuple[Path, str]]:
    """Returns the shipped files whose names match: their paths, and their paths below `configs/`."""
    found = {str(file.relative_to(d)): file for d in _CONFIG_DIRS for file in d.rglob(pattern)}
    return [(found[name], name) for name in sorted(found)]


@functools.lru_cache(maxsize=8)
def _read_once(text: str) -> Any:
    """Caches `read_yaml` for shipped files, as pipelines read the zoo's file for each model; callers share results."""
    return read_yaml(text)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = _read_once(text) if any(path.is_relative_to(d) for d in _CONFIG_DIRS) else read_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file ({one_line(error)})") from error
    check_mapping(content if content is not None else {}, str(path))
    return content or {}


def _named(content: Mapping[str, Any], kind: str, path: Path) -> dict[str, dict[str, Any]]:
    """Returns the mappings under `kind` by name; keys that YAML reads as numbers become names."""
    found = content.get(kind) or {}
    check_mapping(found, f"{path}: {kind}")
    for name, values in found.items():
        check_mapping(values or {}, f"{path}: {kind}.{name}")
    return {str(name): dict(values or {}) for name, values in found.items()}
