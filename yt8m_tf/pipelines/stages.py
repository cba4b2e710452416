"""The stages of a pipeline as a plain table: names, inputs, outputs, and everything that the results depend on."""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf import run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.pipelines.segments import segment_stages
from yt8m_tf.pipelines.settings import FinalSettings, ModelSettings, PipelineConfig, StudentSettings
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.stacking.settings import OUT_OF_FOLD, WEIGHTS


def seed_of(name: str) -> int:
    """Returns the seed of a first-level model, which depends only on its name, not on other models."""
    return zlib.crc32(str(name).encode()) % 2**30


def kept_seeds(settings: PipelineConfig, workdir: Path) -> dict[str, int]:
    """Returns the seeds of the first-level models whose training has begun in a directory.

    In the first release, a seed was the model's position in the configuration; such runs continue with it.
    """
    found: dict[str, int] = {}
    for name in settings.first_level():
        for path in sorted((workdir / "runs" / str(name)).glob(f"fold_*/{run_dir.CONFIG}")):
            with contextlib.suppress(InputError):  # the stage reports a damaged one
                found[name] = run_dir.read_experiment(path.parent).train.seed
                break  # all folds have the same seed
    return found


def make_stages(settings: PipelineConfig, seeds: Mapping[str, int] | None = None) -> list[Stage]:
    """Returns all stages, each after those that it needs.

    Args:
      settings: the pipeline.
      seeds: seeds of first-level models by name, if they differ from `seed_of` (`kept_seeds`).

    Raises:
      InputError: the configuration or the name of a model is wrong.
    """
    models = settings.first_level()
    for name in map(str, (*models, *settings.students, *settings.baselines, *settings.segments)):
        if name in ("", ".", "..") or "/" in name:
            raise InputError(
                f"the pipeline has a model '{name}'; names become names of directories: give another, without '/'"
            )
    seeds = {name: seed_of(name) for name in models} | dict(seeds or {})
    first_level = {
        # Hard labels, because there are no soft ones yet; and different seeds, so that no two models are equal.
        name: settings.experiment(model, {"labels": {"soft": None}, "train": {"seed": seeds[name]}})
        for name, model in models.items()
    }
    stages: list[Stage] = []
    for name, experiment in first_level.items():
        stages += _first_level(name, experiment, settings)
    stack = _stack(first_level, settings) if first_level else None
    stages += [stack] if stack else []
    students = {
        name: _student(name, model, settings, stack)
        for name, model in settings.students.items()
        if stack  # students need it
    }
    hard = [_train(name, model, settings, (), {"labels": {"soft": None}}) for name, model in settings.baselines.items()]
    runs = [*hard, *students.values()]
    stages += runs
    fits, graphs = _graphs(settings, first_level, stack, students, {stage.name: stage for stage in stages})
    stages += [*fits, *graphs]
    for run in (*runs, *graphs):
        name, patterns = Path(run.output).name, tuple(_data_of(run)["validation"])
        options = {"run": run.output}
        stages.append(
            Stage(f"evaluate {name}", "evaluate", (run.name,), f"evaluation/{name}", options, patterns, "validation")
        )
    exported = graphs or ([] if settings.segments else runs[-1:])
    stages += [_export(run, settings) for run in exported]
    if exported and "test" in settings.splits:
        stages.append(_infer(exported[-1], stages[-1]))
    tuned = {
        name: _train(name, own, settings, (f"train {own.start}",) if own.start else (), {"labels": {"soft": None}})
        for name, own in settings.segments.items()
    }
    return _in_order(stages + segment_stages(settings, tuned, [_export(run, settings) for run in tuned.values()]))


def _graphs(
    settings: PipelineConfig,
    first_level: Mapping[str, ExperimentConfig],
    stack: Stage | None,
    students: Mapping[str, Stage],
    runs: Mapping[str, Stage],
) -> tuple[list[Stage], list[Stage]]:
    """Returns stages that fit weights of means, and stages of the final network and of means, in order of export."""
    fits: list[Stage] = []
    graphs: dict[str, Stage] = {}
    if settings.final is not None and stack:
        graphs["train final"] = _final(settings.final, settings, stack, students)
    if settings.mean and stack:
        members = [runs[f"train {name} fold 0"] for name in first_level]
        source, path = stack, f"{stack.output}/{WEIGHTS}"
        if settings.mean_of == "logits":
            fits.append(_fit("mean", first_level, settings, stack))
            source, path = fits[-1], fits[-1].output
        fitted = {"weights": path, "names": list(first_level), "average": settings.mean_of}
        graphs["mean"] = _mean("mean", members, fitted, source)
    if settings.ensemble:
        members = [{**runs, **graphs}[f"train {name}"] for name in settings.ensemble]
        options: dict[str, Any] = {"weights": list(settings.ensemble.values())}
        fit: Stage | None = None
        if settings.ensemble_recipes and stack:
            fit = _fit("ensemble", _recipes(settings, first_level), settings, stack)
            fits.append(fit)
            recipes = [settings.ensemble_recipes[name] for name in settings.ensemble]
            options = {"weights": fit.output, "names": recipes, "shares": _shares(settings)}
        graphs["ensemble"] = _mean("ensemble", members, {**options, "average": "logits"}, fit)
    if settings.stack_members and stack:
        graphs["stacking"] = _stack_graph(settings, stack, runs)
    return fits, list(graphs.values())


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Sorts stages so that each comes after those that it needs; otherwise keeps their order.

    Only teachers need sorting, because a teacher may be a graph of other models.

    Raises:
      InputError: stages need each other.
    """
    waiting, placed, names = list(stages), list[Stage](), set[str]()
    while waiting:
        ready = next((stage for stage in waiting if names >= {*stage.inputs}), None)
        if ready is None:
            first = next(stage for stage in waiting if "labels" in stage.options)  # only these can need a later stage
            name, teacher = (Path(place).name for place in (first.output, *first.options["labels"].values()))
            raise InputError(
                f"the pipeline's configuration: the teacher of '{name}', '{teacher}', needs '{name}' to be trained;"
                " name another teacher"
            )
        placed.append(ready)
        names.add(ready.name)
        waiting.remove(ready)
    return placed


def check_outputs(stages: Sequence[Stage], workdir: Path) -> None:
    """Checks that no two stages write to the same place: a stage that starts over would move the other's output.

    Raises:
      InputError: two outputs are the same, or one contains the other, by their names or through links in `workdir`; or
        two stages have the same record.
    """
    owners: dict[Path, Stage] = {}
    for stage in stages:
        for path in ((workdir / stage.output).resolve(), workdir / "stages" / stage.file_name):
            if path in owners:
                raise InputError(_clash(owners[path], stage, path))
            owners[path] = stage
    for path, stage in owners.items():
        for parent in path.parents:
            if parent in owners:
                raise InputError(_clash(owners[parent], stage, parent))


def _clash(one: Stage, other: Stage, path: Path) -> str:
    both = f"'{one.name}' and '{other.name}'" if one.name != other.name else f"two stages '{one.name}'"
    return f"the pipeline's configuration: {both} would both write to {path}; give one of the models another name"


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


def _stack(first_level: Mapping[str, ExperimentConfig], settings: PipelineConfig) -> Stage:
    # Labels come from video-level shards if there are any; frame-level shards have the same videos.
    first, names = next(iter(first_level.values())), list(first_level)
    data = next((model for model in first_level.values() if model.data.level == "video"), first).data
    patterns = {OUT_OF_FOLD: data.train, "validation": data.validation, "test": data.test}
    splits = {split: list(patterns[split]) for split in (OUT_OF_FOLD, *settings.splits)}
    inputs = tuple(f"score {name} {split}" for name in names for split in splits)
    options = {"models": names, "splits": splits, "stack": strict_yaml.to_dict(settings.stack)}
    return Stage("stack", "stack", inputs, "stacked", options, tuple(p for own in splits.values() for p in own))


def _train(
    name: str, model: ModelSettings, settings: PipelineConfig, inputs: tuple[str, ...], more: Mapping[str, Any]
) -> Stage:
    experiment = settings.experiment(model, more)
    shards = (*experiment.data.train, *experiment.data.validation)
    options = {"experiment": strict_yaml.to_dict(experiment)}
    return Stage(f"train {name}", "train", inputs, f"runs/{name}", options, shards)


def _student(name: str, model: StudentSettings, settings: PipelineConfig, stack: Stage) -> Stage:
    """Returns a run that learns from the stacked scores or a teacher.

    The option "labels" is the path of the teacher, relative to the pipeline's directory.
    """
    if model.teacher is None:
        return _train(name, model, settings, (stack.name,), {"labels": {"soft": f"{stack.output}/{OUT_OF_FOLD}"}})
    graphs = {"mean": settings.mean, "ensemble": bool(settings.ensemble)}
    if model.teacher in settings.first_level():
        inputs = tuple(f"train {model.teacher} fold {fold}" for fold in range(settings.num_folds))
        labels = {"teacher_folds": f"runs/{model.teacher}/fold_*"}
    elif model.teacher in (*settings.students, *settings.baselines) or graphs.get(model.teacher):
        inputs = (model.teacher if model.teacher in graphs else f"train {model.teacher}",)
        labels = {"teacher": f"runs/{model.teacher}"}
    else:
        raise InputError(
            f"the pipeline's configuration: the teacher of '{name}' is '{model.teacher}', which is not one of its"
            " models, students, baselines, mean or ensemble; name one of these"
        )
    stage = _train(name, model, settings, inputs, {"labels": {"soft": None}})
    return dataclasses.replace(stage, options={**stage.options, "labels": labels})


def _final(final: FinalSettings, settings: PipelineConfig, stack: Stage, students: Mapping[str, Stage]) -> Stage:
    trunks = [students[name] for name in final.trunks]
    stage = _student("final", final, settings, stack)
    start = {"init_from": [trunk.output for trunk in trunks], "init_exclude": list(final.exclude) if trunks else []}
    inputs = (*stage.inputs, *(trunk.name for trunk in trunks if trunk.name not in stage.inputs))
    return dataclasses.replace(stage, inputs=inputs, options={**stage.options, **start})


def _recipes(settings: PipelineConfig, first_level: Mapping[str, ExperimentConfig]) -> dict[str, ExperimentConfig]:
    """Returns the first-level models that represent the ensemble's members by their models of folds."""
    if unknown := [name for name in settings.ensemble_recipes.values() if name not in first_level]:
        raise InputError(
            f"the pipeline's configuration: ensemble_recipes names '{unknown[0]}', which is not a first-level model;"
            f" name one of {', '.join(first_level)}"
        )
    return {name: first_level[name] for name in settings.ensemble_recipes.values()}


def _shares(settings: PipelineConfig) -> list[float]:
    """Returns, for each member of the ensemble, its share of the weight of its recipe."""
    recipes, weights = settings.ensemble_recipes, settings.ensemble
    totals = {recipe: sum(weights[name] for name in weights if recipes[name] == recipe) for recipe in recipes.values()}
    return [weight / totals[recipes[name]] for name, weight in weights.items()]


def _fit(name: str, models: Mapping[str, ExperimentConfig], settings: PipelineConfig, stack: Stage) -> Stage:
    """Returns the stage that fits weights of a mean of logits on out-of-fold predictions for the stacking's rows."""
    folds = range(settings.num_folds)
    runs = {model: [f"runs/{model}/fold_{fold}" for fold in folds] for model in models}
    inputs = (stack.name, *(f"train {model} fold {fold}" for model in models for fold in folds))
    shards = tuple(dict.fromkeys(pattern for model in models.values() for pattern in model.data.train))
    options = {"runs": runs, "rows": f"{stack.output}/rows/{OUT_OF_FOLD}"}
    return Stage(f"fit {name}", "fit", inputs, f"fitted/{name}.json", options, shards)


def _mean(name: str, members: Sequence[Stage], options: Mapping[str, Any], fitted: Stage | None = None) -> Stage:
    """Returns the mean of runs in one graph, of probabilities or logits; weights are given or fitted by a stage."""
    options = {"members": [member.output for member in members], **options, "experiment": _common(members)}
    inputs = (*((fitted.name,) if fitted else ()), *(member.name for member in members))
    return Stage(name, "mean", inputs, f"runs/{name}", options)


def _stack_graph(settings: PipelineConfig, stack: Stage, runs: Mapping[str, Stage]) -> Stage:
    """Returns the stacking in one graph: one run for each first-level model, candidates, and LightGBM's trees."""
    members = [runs[f"train {name}"] for name in settings.stack_members.values()]
    options = {
        "stacked": stack.output,
        "models": list(settings.stack_members),
        "members": [member.output for member in members],
        "experiment": _common(members),
    }
    return Stage("stacking", "stack_graph", (stack.name, *(run.name for run in members)), "runs/stacking", options)


def _common(members: Sequence[Stage]) -> dict[str, Any]:
    """Returns what a graph of several runs reads; one with models of both levels reads frame-level records."""
    data = [_data_of(member) for member in members]
    return {"data": next((own for own in data if own["level"] == "frame"), data[0])}


def _export(run: Stage, settings: PipelineConfig) -> Stage:
    name, validation = Path(run.output).name, tuple(_data_of(run)["validation"])
    options = {"run": run.output, "precision": settings.export}
    return Stage(f"export {name}", "export", (run.name,), f"exported/{name}/1", options, validation, "validation")


def _infer(run: Stage, export: Stage) -> Stage:
    """Returns the stage that writes the submission file of an exported run."""
    test = tuple(_data_of(run)["test"])
    options = {"saved_model": export.output}
    return Stage(f"infer {Path(run.output).name}", "infer", (export.name,), "submission.csv", options, test, "test")


def _data_of(run: Stage) -> Mapping[str, Any]:
    return run.options["experiment"]["data"]
