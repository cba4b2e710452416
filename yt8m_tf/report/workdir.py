"""The data of a report: the models of a directory, with their results. `sources` reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.stacking.finished import OUT_OF_FOLD

# Kinds of models, in the order in which one comes out of the other.
FIRST_LEVEL, COMBINATION, STUDENT, HARD, FINAL = (
    "first level",
    "combination",
    "student",
    "trained once, on hard labels",
    "final",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A model that was trained, once or on folds.

    Attributes:
      name: of its directory.
      directories: the run's, or those of its folds.
      experiment: its configuration, that of the first fold.
      histories: the evaluations of each of `directories`, in order.
      sessions: the sessions of each of `directories` (`training.sessions`); empty of a release that wrote none.
      best_step: of the checkpoint that is judged, that of the first fold; None where there is no checkpoint yet.
      num_parameters: trained ones, without statistics of batch normalisation; None likewise.
      num_shards: "train" and "validation": how many; empty where that was not kept.
      seconds: that training took, in all directories; None where that was not kept.
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
        """Of what kind a model is, by how it was trained."""
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
      metrics: of `metrics.json`: "metrics", "calibration", "num_videos", ...
      num_positives: labels of each class, by id; of segments those that the class was rated present in.
      average_precision: of each class; NaN where there are no labels.
      names: of the classes, where the file has them.
      num_rated: of segments, those that each class was rated in.
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
        """On disk."""
        return int(self.report["size"]["total_bytes"])

    @property
    def gap(self) -> float:
        """GAP@20 of the exported graph on the validation videos."""
        return float(self.report["metrics"]["gap"])

    @property
    def rate(self) -> tuple[str, float] | None:
        """The batch size of the highest rate that was measured, and that rate in videos/s."""
        rates = {size: found["saved_model"] for size, found in self.report.get("videos_per_second", {}).items()}
        return max(rates.items(), key=lambda item: item[1]) if rates else None


@dataclasses.dataclass(frozen=True, eq=False)
class Workdir:
    """All that a report is made from; what is not there is empty or None.

    Attributes:
      path: the directory.
      pipeline: whether it is that of a pipeline; else of one run.
      stages: of a pipeline, what each stage found, by name.
      reachable: GAP@20 that no model can exceed on the validation videos; known of sample data alone.
      choices: of a pipeline, where each was made (`pipelines.choices`).
      runs: by name.
      evaluations: by name of the run, of runs on whole videos.
      segment_evaluations: the same of runs on rated segments.
      models: names of the stacked models, in the order of the stacking's columns.
      gaps: GAP@20 by split, then by name of a stacked model or combination.
      ensembles: what `stacking.sizes.ensemble_sizes` found of the stacked models; empty where it did not run.
      exports: the SavedModels, those in `path` and those of its runs that lie where `yt8m-evaluate` proposes it.
      frontiers: directory of each packing, relative to `path`, to its frontier.
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
        """The name of the stacked split that models are compared on: not the one that they were trained on."""
        others = [split for split in self.gaps if split != OUT_OF_FOLD]
        return "validation" if "validation" in others else next(iter(others), None)

    @property
    def validation_gaps(self) -> dict[str, float]:
        """GAP@20 on the validation videos of evaluated runs, stacked models and combinations, the highest first."""
        stacked = dict(self.gaps[self.split]) if self.split else {}
        found = stacked | {name: own.metrics["metrics"]["gap_at_20"] for name, own in self.evaluations.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def kind(self, name: str) -> str:
        """Of a run, or of what stacking combined."""
        return self.runs[name].kind if name in self.runs else COMBINATION

    def exports_of(self, model: str) -> list[Export]:
        """The SavedModels of a run."""
        return [export for export in self.exports if export.model == model]


def main_model(workdir: Workdir, name: str | None = None) -> str:
    """The model that a report looks at closely: `name`, else the final network, else the best that was evaluated.

    Raises:
      InputError: there is no run of that name.
    """
    if name is not None:
        if name not in workdir.runs:
            raise InputError(f"--model={name}: no such run in {workdir.path}; choose from {', '.join(workdir.runs)}")
        return name
    if not workdir.runs:
        raise InputError(f"--workdir={workdir.path}: no run there yet; let yt8m-pipeline run to its first training")
    if "final" in workdir.runs:
        return "final"
    found = workdir.evaluations or workdir.segment_evaluations
    best = {name: own.metrics["metrics"]["gap_at_20" if workdir.evaluations else "map"] for name, own in found.items()}
    return max(best or workdir.runs, key=lambda name: best.get(name, 0.0))
