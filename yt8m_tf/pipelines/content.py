"""The inputs that determine a stage's result, and the differences between two sets of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from yt8m_tf.config import stored, strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.shards import list_shards, size_of
from yt8m_tf.errors import InputError
from yt8m_tf.pipelines.known_models import parse_experiment
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.stacking.settings import StackConfig

# Base name and size in bytes of each shard, in the order of the paths.
Shards = tuple[tuple[str, int], ...]

_LONGEST = 200  # characters of a line about a key whose values differ


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that the result of a stage depends on.

    Attributes:
      kind: kind of the stage.
      options: options of the stage, as plain values.
      inputs: fingerprints of the stages that it needs, by name.
      shards: the shards that it reads; None: unknown, because the record of them is lost.
    """

    kind: str
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    shards: Shards | None

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the content."""
        parts = *map(_text, (self.kind, self.options, list(self.inputs.values()))), _text_of_shards(self.shards)
        return _hash(f"[{', '.join(parts)}]")


@dataclasses.dataclass(frozen=True)
class Changes:
    """Changes of a stage since it ran.

    Attributes:
      own: lines about its options, its shards, and the set of stages that it needs.
      inputs: names of the needed stages whose results changed.
    """

    own: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.own or self.inputs)

    def __str__(self) -> str:
        changed = (f"{some(self.inputs)}, which it needs, changed",) if self.inputs else ()
        return "; ".join((*self.own, *changed))

    def cause(self) -> str:
        """Returns what changed in the stage itself or, if nothing did, in the stages that it needs."""
        return "; ".join(self.own) or str(self)


def shards_of(stages: Sequence[Stage], data_dir: str) -> dict[str, Shards]:
    """Returns the shards that each stage reads, by the stage's name.

    Raises:
      InputError: see `list_shards`.
    """
    sizes: dict[str, int] = {}
    found: dict[tuple[str, ...], Shards] = {(): ()}  # hundreds of stages read the same thousands of shards
    for stage in stages:
        if stage.shards not in found:
            paths = list_shards(stage.shards, data_dir, stage.name)
            sizes |= {path: size_of(path) for path in paths if path not in sizes}
            found[stage.shards] = tuple((os.path.basename(path), sizes[path]) for path in paths)
    return {stage.name: found[stage.shards] for stage in stages}


@functools.cache
def digest(shards: Shards) -> str:
    """Returns a short hash that identifies a list of shards."""
    return _hash(_text_of_shards(shards))[:16]


def differences(old: Content, new: Content) -> Changes:
    """Returns how `new` differs from `old`; keys unknown to the release of `old` have the value of its behaviour."""
    options = strict_yaml.differences(_completed(old), new.options)
    lines = [line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..." for line in options]
    for what, names in (
        ("needed now", [name for name in new.inputs if name not in old.inputs]),
        ("no longer needed", [name for name in old.inputs if name not in new.inputs]),
    ):
        lines += [f"{some(names)} {'is' if len(names) == 1 else 'are'} {what}"] if names else []
    inputs = [name for name in new.inputs if name in old.inputs and old.inputs[name] != new.inputs[name]]
    return Changes((*lines, *_between(old.shards, new.shards)), tuple(inputs))


def _completed(content: Content) -> dict[str, Any]:
    """Returns the options, with values for keys that their release did not have (`config.stored`)."""
    options = dict(content.options)
    # Unknown keys, such as removed ones, remain and show as differences.
    with contextlib.suppress(InputError, LookupError, TypeError, AttributeError):
        if content.kind == "train":
            options["experiment"] = strict_yaml.to_dict(parse_experiment(stored.completed(options["experiment"])))
        elif content.kind in ("mean", "stack_graph"):
            data = strict_yaml.parse(DataConfig, options["experiment"]["data"], "data")
            options["experiment"] = {"data": strict_yaml.to_dict(data)}
        elif content.kind == "stack":
            options["stack"] = strict_yaml.to_dict(strict_yaml.parse(StackConfig, options["stack"], "stack"))
    return options


@functools.cache
def _between(old: Shards | None, new: Shards | None) -> tuple[str, ...]:
    """Returns the changes of a list of shards, as one line; nothing if there are none."""
    if old is None or new is None:
        return ("its shards have changed",)
    if old == new:
        return ()
    before, after = _by_name(old), _by_name(new)
    found = (
        ("new", [name for name in after if name not in before]),
        ("gone", [name for name in before if name not in after]),
        ("of a different size", [name for name in after if name in before and before[name] != after[name]]),
    )
    lines = [f"{some(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in found if names]
    return (f"shards: {', '.join(lines) or 'in a different order'}",)


def _by_name(shards: Shards) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, size in shards:
        found.setdefault(name, []).append(size)
    return found


def some(names: Sequence[str]) -> str:
    """Returns the first of some names, and how many more there are."""
    return f"'{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


@functools.cache
def _text_of_shards(shards: Shards | None) -> str:
    """Caches `_text`: hundreds of stages read the same thousands of shards."""
    return _text(shards)


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
