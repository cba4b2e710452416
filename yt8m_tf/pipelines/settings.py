"""The configuration of a pipeline: its models, folds, students and final network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from yt8m_tf.config import configurations, strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.pipelines.known_models import parse_experiment
from yt8m_tf.stacking.settings import COMBINATIONS, StackConfig


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A model of a pipeline.

    Attributes:
      config: `PATH.yaml[:NAME]`, as for `yt8m-train --config`.
      changes: values that override that configuration.
    """

    config: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StudentSettings(ModelSettings):
    """A model of a pipeline that learns from other models.

    Attributes:
      teacher: a model that is run in every training step, instead of the stacked scores: a baseline, another student,
        "mean" or "ensemble" (`labels.teacher`); or a first-level model, whose models of all folds teach out of fold
        (`labels.teacher_folds`). Set a large `train.mixup_alpha` in `changes`, such as 1.0, and many epochs. null: the
        stacked scores.
    """

    teacher: str | None = None


@dataclasses.dataclass(frozen=True)
class FinalSettings(StudentSettings):
    """The final network of a pipeline, which reads the trunks of students.

    Attributes:
      trunks: names of the students whose weights it starts from.
      exclude: patterns of the weights that do not start from those of students.
    """

    config: str = "second_level/final_network.yaml"
    trunks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ("hidden*", "logits/*")


@dataclasses.dataclass(frozen=True)
class SegmentSettings(ModelSettings):
    """A model that is trained on rated segments.

    Attributes:
      start: the baseline whose weights it starts from; null: none.
      exclude: patterns of variables that are not read from `start`, but initialised as in a new model.
    """

    start: str | None = None
    exclude: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """A pipeline.

    Attributes:
      models: maps names to first-level models; each is trained once for every fold. Empty is possible with `segments`;
        then nothing is stacked.
      all_of: files of configurations, all of which are first-level models, too, under their own names.
      num_folds: number of folds of the training shards.
      video, frame: values that override the configuration of every model of that level, such as patterns of shards and
        the contents of the data; the model's own `changes` take precedence.
      train: values that override the section `train` of every model of both levels, such as the number of steps.
      splits: splits that are scored in addition to the training shards; shards are those of `data.<split>`.
      stack: LightGBM over the scores.
      students: maps names to models that are trained on the stacked scores (`labels.soft` is set here), or by a teacher
        in the training step, and evaluated on the validation shards.
      baselines: maps names to models that are trained like students, but on hard labels, for comparison.
      final: the final network, over trunks of students; null: none.
      mean: whether to make the weighted mean of the models of fold 0, with the weights that the stacking fitted, in one
        graph.
      mean_of: whether `mean` averages "probabilities" or "logits". Weights for logits are fitted out of fold, too, on
        float32 logits: the models of the folds score some of their held-out shards again.
      ensemble: names of students and baselines, and "final", with their weights in a mean of logits, which is another
        graph. All of them have seen every training shard, so there are no out-of-fold scores to fit weights on.
      ensemble_recipes: for every name of `ensemble`, the first-level model of the same recipe. Weights are then fitted
        out of fold, as for `mean_of: logits`, on the predictions of the fold models of these recipes. Names of the same
        recipe share its weight in proportion to `ensemble`. Empty: the weights of `ensemble` are used.
      stack_members: for every first-level model, the baseline or student that stands for it in a graph of the whole
        stacking, "stacking": members, candidates and LightGBM's trees (`yt8m-ensemble --stack`). Empty: no such graph.
      segments: maps names to models that are trained on rated segments (`data.segments`). All of them score
        the windows of each split; `segments/SPLIT.csv` is the submission of the mean of their scores.
      segment_classes: a file with the classes of that submission, relative to the data directory; null: all.
      videos: numbers of videos of "train", "validation" and "test", for a plan without the data.
      export: precision, as for `yt8m-export --precision`, of the exported graphs: the final network, the mean, the
        ensemble and the stacking; without these, the last student or baseline. The submission is that of the last
        exported graph.
    """

    models: Mapping[str, ModelSettings] = dataclasses.field(default_factory=dict)
    all_of: tuple[str, ...] = ()
    num_folds: int = 5
    video: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frame: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    splits: tuple[Literal["validation", "test"], ...] = ("validation", "test")
    stack: StackConfig = dataclasses.field(default_factory=StackConfig)
    students: Mapping[str, StudentSettings] = dataclasses.field(default_factory=dict)
    baselines: Mapping[str, ModelSettings] = dataclasses.field(default_factory=dict)
    final: FinalSettings | None = None
    mean: bool = False
    mean_of: Literal["probabilities", "logits"] = "probabilities"
    ensemble: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ensemble_recipes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stack_members: Mapping[str, str] = dataclasses.field(default_factory=dict)
    segments: Mapping[str, SegmentSettings] = dataclasses.field(default_factory=dict)
    segment_classes: str | None = None
    videos: Mapping[str, int] = dataclasses.field(default_factory=dict)
    export: str = "float16"

    def __post_init__(self) -> None:
        if not self.models and not self.all_of:
            if not self.segments:
                raise ValueError("models must name at least one model, or all_of a file of them")
            if self.students or self.final or self.mean:
                raise ValueError(
                    "students, final and mean need the scores of models; give models, or leave these keys out"
                )
        if taken := sorted(set(self.models) & set(COMBINATIONS)):
            raise ValueError(f"models has '{taken[0]}', a name that stacking uses for its own combinations; rename it")
        if self.num_folds < 2:
            raise ValueError(f"num_folds must be 2 or more, got {self.num_folds}")
        if self.final and (unknown := sorted(set(self.final.trunks) - set(self.students))):
            raise ValueError(f"final.trunks names '{unknown[0]}', which is not in students")
        for name, own in self.segments.items():
            if own.start is not None and own.start not in self.baselines:
                raise ValueError(f"segments.{name}.start names '{own.start}', which is not in baselines")
        runs = {*self.students, *self.baselines, *(("final",) if self.final else ())}
        if unknown := [name for name in self.ensemble if name not in runs]:
            raise ValueError(f"ensemble names '{unknown[0]}', which is not a student, a baseline or the final network")
        if min(self.ensemble.values(), default=1) <= 0:
            raise ValueError(f"ensemble needs weights above 0, got {', '.join(map(str, self.ensemble.values()))}")
        self._check_stack_members()
        if self.ensemble_recipes and not self.models and not self.all_of:
            raise ValueError("ensemble_recipes needs first-level models; give models, or leave it out")
        if self.ensemble_recipes and (odd := sorted(set(self.ensemble) ^ set(self.ensemble_recipes))):
            raise ValueError(
                f"ensemble and ensemble_recipes must have the same names; '{odd[0]}' is in only one of them"
            )

    def _check_stack_members(self) -> None:
        """Checks that a stacking in one graph has a run for every first-level model.

        Raises:
          ValueError: a name is unknown, or a model is missing.
        """
        if not self.stack_members:
            return
        if unknown := [name for name in self.stack_members.values() if name not in {*self.students, *self.baselines}]:
            raise ValueError(f"stack_members names '{unknown[0]}', which is not a student or a baseline")
        models = {*self.first_level()}
        if odd := sorted(models ^ {*self.stack_members}):
            problem = "lacks" if odd[0] in models else "has"
            names = ", ".join(sorted(models))
            raise ValueError(f"stack_members {problem} '{odd[0]}'; it must name every first-level model ({names})")

    def first_level(self) -> dict[str, ModelSettings]:
        """Returns all first-level models by name: those of `all_of`, then `models`."""
        found = {
            name: ModelSettings(f"{path}:{name}")
            for path in self.all_of
            for name in configurations.configuration_names(path)
        }
        return found | dict(self.models)

    def experiment(self, settings: ModelSettings, more: Mapping[str, Any]) -> ExperimentConfig:
        """Returns the configuration of a run: that of a model, with the pipeline's changes, then `more` on top.

        Raises:
          InputError: the configuration is wrong; the message names the model's file.
        """
        values = self.values(settings, more)
        try:
            return parse_experiment(values)
        except InputError as error:
            raise InputError(f"{settings.config}, as the pipeline changes it: {error}") from error

    def values(self, settings: ModelSettings, more: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of `experiment` as they are given: not checked, and without defaults."""
        own = configurations.load_yaml(settings.config)
        data = strict_yaml.merge(own, settings.changes).get("data")  # of any type: not checked yet
        level = data.get("level", "video") if isinstance(data, Mapping) else "video"
        values = own
        for changes in ({"train": self.train}, self.video if level == "video" else self.frame, settings.changes, more):
            values = strict_yaml.merge(values, changes)
        return values


def load_pipeline(selector: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads `PATH.yaml[:NAME]` and applies `--set` overrides.

    Raises:
      InputError: see `configurations.load_yaml`, `strict_yaml.apply_overrides` and `.parse`, and `parse_precision`.
    """
    settings = strict_yaml.parse(
        PipelineConfig, strict_yaml.apply_overrides(PipelineConfig, configurations.load_yaml(selector), overrides), ""
    )
    try:
        parse_precision(settings.export)  # fails now rather than hours later
    except InputError as error:
        raise InputError(f"configuration key 'export': {error}") from error
    return settings
