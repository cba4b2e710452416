"""One step of a pipeline. Imports no framework: what a process needs that waits for its first stage is in here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

Kind = Literal["train", "score", "stack", "fit", "mean", "evaluate", "export", "infer", "infer_segments"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    Attributes:
      name: such as "train moe fold 2".
      kind: what is to be done.
      inputs: names of the stages whose outputs it reads.
      output: directory or file below the pipeline's directory; it belongs to this stage alone.
      options: all that the result depends on beside the inputs and the data; ready for JSON. An option that an earlier
        release did not have counts as null in what that release made.
      shards: patterns of the shards that it reads, relative to the data directory.
      split: which of the pipeline's `videos` these are.
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
        """The name without the fold: the folds of a model are shown together."""
        return self.name.partition(" fold ")[0]

    def teachers(self, stages: Iterable[Stage]) -> list[Stage]:
        """Returns the stages whose runs are teachers inside this stage's training step."""
        places = {*self.options.get("labels", {}).values()}  # a run, or a model's runs of all folds
        if not places:
            return []
        return [stage for stage in stages if places & {stage.output, f"{stage.output.rpartition('/')[0]}/fold_*"}]

    @property
    def file_name(self) -> str:
        """The beginning of the names of what is written about it."""
        return self.name.replace(" ", "_")

    @property
    def log(self) -> str:
        """The file below the pipeline's directory with all that it printed, of every attempt."""
        return f"stages/{self.file_name}.log"
