"""A stage of a pipeline. Imports no framework, because processes import this module while they wait for a stage."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError

Kind = Literal["train", "score", "stack", "fit", "mean", "stack_graph", "evaluate", "export", "infer", "infer_segments"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a pipeline.

    Attributes:
      name: a unique name, such as "train moe fold 2".
      kind: the kind of work.
      inputs: names of the stages whose outputs it reads.
      output: directory or file below the pipeline's directory, to which no other stage writes.
      options: all settings that the result depends on, in addition to inputs and data, as plain values for JSON. An
        option that an earlier release did not have counts as null in records of that release.
      shards: patterns of the shards that it reads, relative to the data directory.
      split: the key of these shards in the pipeline's `videos`.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    output: str
    options: Mapping[str, Any]
    shards: tuple[str, ...] = ()
    split: str = "train"

    @property
    def group(self) -> str:
        """The name without the fold; the folds of a model are shown together."""
        return self.name.partition(" fold ")[0]

    def is_named(self, pattern: str) -> bool:
        """Returns whether a pattern is for this stage, or for its model, which stands for all of its folds."""
        return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in (self.name, self.group))

    @functools.cached_property
    def experiment(self) -> ExperimentConfig:
        """The experiment of a training stage, whose model's options were checked when the stage was made."""
        return strict_yaml.parse(ExperimentConfig, self.options["experiment"], "")

    def teachers(self, stages: Iterable[Stage]) -> list[Stage]:
        """Returns the stages whose runs are teachers in the training step of this one."""
        places = {*self.options.get("labels", {}).values()}  # a run, or a pattern for a model's runs of all folds
        if not places:
            return []
        return [stage for stage in stages if places & {stage.output, f"{stage.output.rpartition('/')[0]}/fold_*"}]

    @property
    def file_name(self) -> str:
        """The first part of the names of its records and log."""
        return self.name.replace(" ", "_")

    @property
    def log(self) -> str:
        """The log file, below the pipeline's directory, of all attempts."""
        return f"stages/{self.file_name}.log"


def check_restart(stages: Sequence[Stage], restart: Sequence[str]) -> None:
    """Checks that every pattern of --restart is for a stage.

    Raises:
      InputError: a pattern matches nothing.
    """
    for pattern in restart:
        if not any(stage.is_named(pattern) for stage in stages):
            near = strict_yaml.nearest(pattern, dict.fromkeys(stage.group for stage in stages))
            raise InputError(f"--restart={pattern}: no stage of that name{near}; --plan without it shows them")
