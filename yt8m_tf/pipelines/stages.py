"""The stages of a pipeline as a plain table: name, what it needs, what it writes, and everything it depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.data.shards import list_shards
from yt8m_tf.pipelines.settings import FinalSettings, ModelSettings, PipelineConfig
from yt8m_tf.stacking.stack import OUT_OF_FOLD, WEIGHTS

Kind = Literal["train", "score", "stack", "mean", "evaluate", "export", "infer"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    Attributes:
      name: such as "train moe fold 2".
      kind: what is to be done.
      inputs: names of the stages whose outputs it reads.
      output: directory or file below the pipeline's directory; it belongs to this stage alone.
      options: all that the result depends on beside the inputs and the data; ready for JSON.
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


def make_stages(settings: PipelineConfig) -> list[Stage]:
    """All stages, each after those that it needs.

    Raises:
      InputError: whatever is wrong with the configuration of a model.
    """
    first_level = {
        # Hard labels, since there are no others yet; and seeds of their own, so that no two models are the same.
        name: settings.experiment(model, {"labels": {"soft": None}, "train": {"seed": number}})
        for number, (name, model) in enumerate(settings.first_level().items())
    }
    stages: list[Stage] = []
    for name, experiment in first_level.items():
        stages += _first_level(name, experiment, settings)
    first = next(iter(first_level.values()))
    # Labels come from video-level shards where there are any: those of the other level hold the same videos.
    labelled = next((model for model in first_level.values() if model.data.level == "video"), first)
    stack = _stack(list(first_level), labelled, settings)
    stages.append(stack)
    students = {
        name: _train(name, model, settings, (stack.name,), {"labels": {"soft": f"{stack.output}/{OUT_OF_FOLD}"}})
        for name, model in settings.students.items()
    }
    hard = [_train(name, model, settings, (), {"labels": {"soft": None}}) for name, model in settings.baselines.items()]
    runs = [*hard, *students.values()]
    stages += runs
    graphs = []
    if settings.final is not None:
        graphs.append(_final(settings.final, settings, stack, students))
    by_name = {stage.name: stage for stage in (*stages, *graphs)}
    if settings.mean:
        members = [by_name[f"train {name} fold 0"] for name in first_level]
        fitted = {"weights": f"{stack.output}/{WEIGHTS}", "names": list(first_level), "average": "probabilities"}
        graphs.append(_mean("mean", members, fitted, stack))
    if settings.ensemble:
        members = [by_name[f"train {name}"] for name in settings.ensemble]
        graphs.append(_mean("ensemble", members, {"weights": list(settings.ensemble.values()), "average": "logits"}))
    stages += graphs
    for run in (*runs, *graphs):
        name, patterns = Path(run.output).name, tuple(_data_of(run)["validation"])
        options = {"run": run.output}
        stages.append(
            Stage(f"evaluate {name}", "evaluate", (run.name,), f"evaluation/{name}", options, patterns, "validation")
        )
    exported = graphs or runs[-1:]
    stages += [_export(run, settings) for run in exported]
    if exported and "test" in settings.splits:
        stages.append(_infer(exported[-1], stages[-1]))
    return stages


def fingerprints(stages: Sequence[Stage], data_dir: str) -> dict[str, str]:
    """For each stage a hash of its options, of its shards' names and sizes, and of the stages before it."""
    found: dict[str, str] = {}
    sizes: dict[str, int] = {}
    listed: dict[tuple[str, ...], list[str]] = {(): []}  # hundreds of stages read the same thousands of shards
    for stage in stages:
        if stage.shards not in listed:
            listed[stage.shards] = list_shards(stage.shards, data_dir, stage.name)
        shards = listed[stage.shards]
        for shard in shards:
            if shard not in sizes:
                sizes[shard] = tf.io.gfile.stat(shard).length
        content = [
            stage.kind,
            strict_yaml.to_dict(dict(stage.options)),
            [found[name] for name in stage.inputs],
            [(os.path.basename(shard), sizes[shard]) for shard in shards],
        ]
        found[stage.name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return found


def _first_level(name: str, experiment: ExperimentConfig, settings: PipelineConfig) -> list[Stage]:
    data, stages = experiment.data, []
    for fold in range(settings.num_folds):
        changed = dataclasses.replace(data, num_folds=settings.num_folds, fold=fold)
        options = {"experiment": strict_yaml.to_dict(dataclasses.replace(experiment, data=changed))}
        stages.append(Stage(f"train {name} fold {fold}", "train", (), f"runs/{name}/fold_{fold}", options, data.train))
    runs = tuple(stage.name for stage in stages)
    directories = [stage.output for stage in stages]
    for split in (OUT_OF_FOLD, *settings.splits):
        patterns = {OUT_OF_FOLD: data.train, "validation": data.validation, "test": data.test}[split]
        options = {"models": directories, "level": data.level}
        output = f"scores/{name}/{split}"
        stages.append(Stage(f"score {name} {split}", "score", runs, output, options, patterns, split))
    return stages


def _stack(names: Sequence[str], labelled: ExperimentConfig, settings: PipelineConfig) -> Stage:
    data = labelled.data
    patterns = {OUT_OF_FOLD: data.train, "validation": data.validation, "test": data.test}
    splits = {split: list(patterns[split]) for split in (OUT_OF_FOLD, *settings.splits)}
    inputs = tuple(f"score {name} {split}" for name in names for split in splits)
    options = {"models": list(names), "splits": splits, "stack": strict_yaml.to_dict(settings.stack)}
    return Stage("stack", "stack", inputs, "stacked", options, tuple(p for own in splits.values() for p in own))


def _train(
    name: str, model: ModelSettings, settings: PipelineConfig, inputs: tuple[str, ...], more: Mapping[str, Any]
) -> Stage:
    experiment = settings.experiment(model, more)
    shards = (*experiment.data.train, *experiment.data.validation)
    options = {"experiment": strict_yaml.to_dict(experiment)}
    return Stage(f"train {name}", "train", inputs, f"runs/{name}", options, shards)


def _final(final: FinalSettings, settings: PipelineConfig, stack: Stage, students: Mapping[str, Stage]) -> Stage:
    trunks = [students[name] for name in final.trunks]
    soft = {"labels": {"soft": f"{stack.output}/{OUT_OF_FOLD}"}}
    stage = _train("final", final, settings, (stack.name, *(trunk.name for trunk in trunks)), soft)
    start = {"init_from": [trunk.output for trunk in trunks], "init_exclude": list(final.exclude) if trunks else []}
    return dataclasses.replace(stage, options={**stage.options, **start})


def _mean(name: str, members: Sequence[Stage], options: Mapping[str, Any], stack: Stage | None = None) -> Stage:
    """The mean of some runs in one graph: of probabilities with the weights that a stacking fitted for them, or of
    logits, which was better on real records."""
    options = {"members": [member.output for member in members], **options}
    options |= {"experiment": {"data": _data_of(members[0])}}
    inputs = (*((stack.name,) if stack else ()), *(member.name for member in members))
    return Stage(name, "mean", inputs, f"runs/{name}", options)


def _export(run: Stage, settings: PipelineConfig) -> Stage:
    name, validation = Path(run.output).name, tuple(_data_of(run)["validation"])
    options = {"run": run.output, "precision": settings.export}
    return Stage(f"export {name}", "export", (run.name,), f"exported/{name}/1", options, validation, "validation")


def _infer(run: Stage, export: Stage) -> Stage:
    """The submission file of an exported run."""
    test = tuple(_data_of(run)["test"])
    options = {"saved_model": export.output}
    return Stage(f"infer {Path(run.output).name}", "infer", (export.name,), "submission.csv", options, test, "test")


def _data_of(run: Stage) -> Mapping[str, Any]:
    return run.options["experiment"]["data"]
