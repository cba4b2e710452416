"""A finished stacking, read from its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.config import strict_yaml
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards.manifest import Manifest, read_manifest
from yt8m_tf.score_shards.records import DEFAULT_TOP_K
from yt8m_tf.stacking import evaluation
from yt8m_tf.stacking.settings import CONFIG, OUT_OF_FOLD, REPORT, StackConfig


@dataclasses.dataclass(frozen=True)
class Begun:
    """The settings of a stacking directory, from `stack.json`. Files of early releases have no `top_k`."""

    fingerprint: str
    config: Mapping[str, Any]
    models: tuple[str, ...]
    top_k: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Report:
    """The part of `report.json` that is read: GAP@20 by split, then by name."""

    gaps: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Stacking:
    """A finished stacking.

    Attributes:
      output: its directory.
      config: options of candidates, features and trees.
      models: names of the first-level models, in the order of the columns.
      top_k: number of classes per video in the scores of each model.
      fingerprint: a hash of everything that it depends on.
      gaps: GAP@20 by split, then by name; only splits with labels.
      manifests: manifests of the stacked scores, by split; only splits with labels.
    """

    output: Path
    config: StackConfig
    models: Sequence[str]
    top_k: Sequence[int]
    fingerprint: str
    gaps: Mapping[str, Mapping[str, float]]
    manifests: Mapping[str, Manifest]

    @property
    def num_classes(self) -> int:
        """C."""
        return self.manifests[OUT_OF_FOLD].num_classes

    @property
    def folds(self) -> Mapping[str, int]:
        """The fold of each training shard."""
        return self.manifests[OUT_OF_FOLD].folds

    def rows(self, split: str) -> list[Path]:
        """Returns the paths of a split's rows; the files may have been removed."""
        return evaluation.row_paths(self.output / "rows" / split, list(self.manifests[split].shards))

    @property
    def naming(self) -> list[int]:
        """Indices of the models that name candidates."""
        if self.config.candidates != "best_model":
            return list(range(len(self.models)))
        best = evaluation.best({name: self.gaps[OUT_OF_FOLD][name] for name in self.models})
        return [self.models.index(best)]


def read_stacking(directory: Path, source: str) -> Stacking:
    """Reads the results of `stack.stack`.

    Args:
      directory: the output directory of the stacking.
      source: the flag that names the directory, for messages.

    Raises:
      InputError: there is no finished stacking, or a file cannot be read.
    """
    for name in (CONFIG, REPORT):
        if not (directory / name).is_file():
            raise InputError(
                f"{source}={directory}: no finished stacking there ({name} is missing); name the --output of"
                " yt8m-stack; if that command was interrupted, repeat it"
            )
    remedy = "repeat yt8m-stack into the same directory"
    begun = strict_yaml.read_json(directory / CONFIG, Begun, remedy)
    try:
        config = strict_yaml.parse(StackConfig, begun.config, "config")
    except InputError as error:
        raise InputError(f"{directory / CONFIG}: cannot be read ({error}); {remedy}") from error
    report = strict_yaml.read_json(directory / REPORT, Mapping[str, Any], remedy)
    try:
        gaps = strict_yaml.parse(_Report, {"gaps": report.get("gaps")}, "").gaps
        missing = set(begun.models) - set(gaps.get(OUT_OF_FOLD, {}))
        if missing:
            raise ValueError(f"gaps.{OUT_OF_FOLD} has no {min(missing)}")
    except ValueError as error:
        raise InputError(f"{directory / REPORT}: cannot be read ({error}); {remedy}") from error
    manifests = {split: read_manifest(directory / split, source) for split in gaps}
    num_classes = manifests[OUT_OF_FOLD].num_classes
    top_k = list(begun.top_k or [min(DEFAULT_TOP_K, num_classes)] * len(begun.models))
    if len(top_k) != len(begun.models) or min(top_k, default=0) < 1:
        raise InputError(
            f"{directory / CONFIG}: top_k {top_k} does not have a number for each of {len(begun.models)} models;"
            f" {remedy}"
        )
    return Stacking(directory, config, list(begun.models), top_k, begun.fingerprint, gaps, manifests)
