"""The data of a report: the models of a directory, with their results. `sources` reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.stacking.settings import OUT_OF_FOLD

# Kinds of models, in the order in which a pipeline creates them.
FIRST_LEVEL, COMBINATION, STUDENT, HARD, FINAL = (
    "first level",
    "combination",
    "student",
    "trained once, on hard labels",
    "final",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A model that was trained once or on folds.

    Attributes:
      name: the name of its directory.
      directories: the run's, or those of its folds.
      experiment: its configuration, that of the first fold.
      histories: the evaluations of each of `directories`, in order.
      sessions: the sessions of each of `directories` (`training.sessions`); empty if the release wrote none.
      best_step: step of the best checkpoint, of the first fold; None if there is no checkpoint yet.
      num_parameters: trained parameters, without statistics of batch normalisation; None if there is no checkpoint.
      num_shards: number of shards of "train" and "validation"; empty if it was not recorded.
      seconds: training time over all directories; None if it was not recorded.
    """

    name: str
    directories: tuple[Path, ...]
    experiment: ExperimentConfig
    histories: tuple[list[dict[str, Any]], ...]
    sessions: tuple[list[dict[str, Any]], ...]
    best_step: int | None
    num_parameters: int | None
    num_shards: Mapping[str, int]
    seconds: float | None

    @property
    def of_segments(self) -> bool:
        """Returns whether the examples are rated segments, so that the run has a MAP instead of GAP@20."""
        return self.experiment.data.segments is not None

    @property
    def kind(self) -> str:
        """Returns the kind of the model, by how it was trained."""
        model = self.experiment.model["name"]
        if self.directories[0].name.startswith("fold_"):
            return FIRST_LEVEL
        if model == "weighted_mean":
            return COMBINATION
        if self.name == "final" or model == "final_network":
            return FINAL
        return STUDENT if self.experiment.labels.source else HARD


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """An evaluation, as `evaluation.runs.write_evaluation` writes it.

    Attributes:
      metrics: contents of `metrics.json`: "metrics", "calibration", "num_videos", ...
      num_positives: number of labels of each class, by id; for segments, of those in which it was rated present.
      average_precision: AP of each class; NaN for classes without labels.
      names: names of the classes; None if the file lacks them.
      num_rated: number of segments in which each class was rated; None for whole videos.
    """

    metrics: Mapping[str, Any]
    num_positives: Sequence[int]
    average_precision: Sequence[float]
    names: Sequence[str] | None
    num_rated: Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class Export:
    """A SavedModel.

    Attributes:
      path: its directory, as messages name it.
      model: the name of its run, or of a packing.
      report: the contents of its export report.
    """

    path: str
    model: str
    report: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        """Returns the size on disk."""
        return int(self.report["size"]["total_bytes"])

    @property
    def gap(self) -> float:
        """Returns GAP@20 of the exported graph on the validation videos."""
        return float(self.report["metrics"]["gap"])

    @property
    def rate(self) -> tuple[str, float] | None:
        """Returns the batch size with the highest measured rate, and the rate in videos/s; None if not measured."""
        rates = {size: found["saved_model"] for size, found in self.report.get("videos_per_second", {}).items()}
        return max(rates.items(), key=lambda item: item[1]) if rates else None


@dataclasses.dataclass(frozen=True, eq=False)
class Workdir:
    """All data of a report; what is missing is empty or None.

    Attributes:
      path: the directory.
      pipeline: whether the directory is that of a pipeline, not of a single run.
      stages: the result of each stage of a pipeline, by name.
      reachable: GAP@20 that no model can exceed on the validation videos; known only for sample data.
      choices: a pipeline's choices, and on which data each was made (`pipelines.choices`).
      runs: runs by name.
      evaluations: evaluations of runs on whole videos, by name of the run.
      segment_evaluations: the same for runs on rated segments.
      models: names of the stacked models, in the order of the stacking's columns.
      gaps: GAP@20 by split, then by name of a stacked model or combination.
      ensembles: the result of `stacking.sizes.ensemble_sizes` for the stacked models; empty if it did not run.
      exports: the SavedModels in `path`, and those of its runs in the directory that `yt8m-evaluate` proposes.
      frontiers: maps the directory of each packing, relative to `path`, to its frontier.
    """

    path: Path
    pipeline: bool
    stages: Mapping[str, Mapping[str, Any]]
    reachable: float | None
    choices: Sequence[Mapping[str, str]]
    runs: Mapping[str, Run]
    evaluations: Mapping[str, Evaluation]
    segment_evaluations: Mapping[str, Evaluation]
    models: Sequence[str]
    gaps: Mapping[str, Mapping[str, float]]
    ensembles: Mapping[str, Any]
    exports: Sequence[Export]
    frontiers: Mapping[str, Mapping[str, Any]]

    @property
    def stacks(self) -> bool:
        """Returns whether a pipeline with first-level models, trained on folds, wrote the directory."""
        return self.pipeline and any(run.kind == FIRST_LEVEL for run in self.runs.values())

    @property
    def split(self) -> str | None:
        """Returns the stacked split on which models are compared, which is not their training split."""
        others = [split for split in self.gaps if split != OUT_OF_FOLD]
        return "validation" if "validation" in others else next(iter(others), None)

    @property
    def validation_gaps(self) -> dict[str, float]:
        """Returns GAP@20 on the validation videos of evaluated runs, stacked models and combinations, highest first."""
        stacked = dict(self.gaps[self.split]) if self.split else {}
        found = stacked | {name: own.metrics["metrics"]["gap_at_20"] for name, own in self.evaluations.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def kind(self, name: str) -> str:
        """Returns the kind of a run, or of a combination by stacking."""
        return self.runs[name].kind if name in self.runs else COMBINATION

    def exports_of(self, model: str) -> list[Export]:
        """Returns the SavedModels of a run."""
        return [export for export in self.exports if export.model == model]


def main_model(workdir: Workdir, name: str | None = None) -> str:
    """Returns the model to analyse in detail: `name`, or else the final network, or else the best one evaluated.

    Raises:
      InputError: there is no run of that name.
    """
    if name is not None:
        if name not in workdir.runs:
            raise InputError(f"--model={name}: no such run in {workdir.path}; choose from {', '.join(workdir.runs)}")
        return name
    if not workdir.runs:
        raise InputError(f"--workdir={workdir.path}: no run there yet; run yt8m-pipeline up to its first training")
    if "final" in workdir.runs:
        return "final"
    found = workdir.evaluations or workdir.segment_evaluations
    best = {name: own.metrics["metrics"]["gap_at_20" if workdir.evaluations else "map"] for name, own in found.items()}
    return max(best or workdir.runs, key=lambda name: best.get(name, 0.0))
