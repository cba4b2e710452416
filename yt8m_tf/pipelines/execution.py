"""The execution of one stage, in a worker process on this machine or on another one with the same directories."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.segments import SegmentsConfig
from yt8m_tf.pipelines.stage import Stage


@dataclasses.dataclass(frozen=True)
class Where:
    """The environment of a stage: settings that do not change its result.

    Attributes:
      data_dir: directory to which patterns of shards are relative.
      workdir: the pipeline's directory.
      num_threads: threads of LightGBM, and of TensorFlow in every local worker; 0: all cores.
      xla: whether to compile with XLA.
      progress: whether to show progress bars.
    """

    data_dir: str
    workdir: Path
    num_threads: int = 0
    xla: bool = True
    progress: bool = True


def execute(stage: Stage, where: Where) -> dict[str, Any]:
    """Runs or continues a stage, and returns its main results as plain values for JSON.

    Raises:
      InputError: an expected error, in one line.
    """
    start = time.monotonic()
    result = _KINDS[stage.kind](stage, where)
    return {**result, "seconds": round(time.monotonic() - start, 1)}


def _train(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.data.faults import Faults
    from yt8m_tf.models.registry import parse_experiment
    from yt8m_tf.training import distribution, loop

    values = dict(stage.options["experiment"])
    if values["labels"]["soft"] is not None:
        soft = str((where.workdir / values["labels"]["soft"]).resolve())
        values = strict_yaml.merge(values, {"labels": {"soft": soft}})
    for key, place in stage.options.get("labels", {}).items():
        values = strict_yaml.merge(values, {"labels": {key: str(where.workdir.resolve() / place)}})
    options = loop.RunOptions(
        where.data_dir,
        where.workdir / stage.output,
        xla=where.xla,
        init_from=tuple(where.workdir / source for source in stage.options.get("init_from", ())),
        init_exclude=tuple(stage.options.get("init_exclude", ())),
        progress=where.progress,
    )
    result = loop.train(parse_experiment(values), options, distribution.make_strategy(), Faults())
    return {result.metric: result.best_gap, "step": result.step}


def _score(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.scoring.predictors import find_predictor
    from yt8m_tf.scoring.score import score

    predictors = [find_predictor(where.workdir / path, xla=where.xla) for path in stage.options["models"]]
    shards = list_shards(stage.shards, where.data_dir, stage.name)
    summary = score(predictors, shards, where.workdir / stage.output, xla=where.xla, progress=where.progress)
    return {"videos": sum(summary.manifest.shards.values())}


def _stack(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.stacking import report
    from yt8m_tf.stacking.inputs import StackInputs
    from yt8m_tf.stacking.settings import OUT_OF_FOLD, StackConfig
    from yt8m_tf.stacking.stack import stack

    names = stage.options["models"]
    inputs = {
        split: StackInputs(
            [where.workdir / "scores" / name / split for name in names],
            names,
            list_shards(patterns, where.data_dir, f"{stage.name}: {split}"),
        )
        for split, patterns in stage.options["splits"].items()
    }
    settings = strict_yaml.parse(StackConfig, stage.options["stack"], "stack")
    output = where.workdir / stage.output
    training = inputs.pop(OUT_OF_FOLD)
    result = stack(training, inputs, output, settings, num_threads=where.num_threads, progress=where.progress)
    report.write_report(result, output)
    return {"gaps": {split: dict(gaps) for split, gaps in result.gaps.items()}}


def _fit(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf import files
    from yt8m_tf.ensembling.out_of_fold import fit_logit_weights

    runs = {name: [where.workdir / run for run in own] for name, own in stage.options["runs"].items()}
    rows = where.workdir / stage.options["rows"]
    found = fit_logit_weights(runs, rows, where.data_dir, xla=where.xla, progress=where.progress)
    output = where.workdir / stage.output
    output.parent.mkdir(exist_ok=True)
    files.write_json(output, dict(found.weights))
    return {"videos": found.videos, "loss": found.loss, "loss_equal": found.loss_equal}


def _mean(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.ensembling import weighted_mean

    output = where.workdir / stage.output
    if _to_combine(output):
        members = [where.workdir / member for member in stage.options["members"]]
        weights = stage.options["weights"]
        if "names" in stage.options:  # weights are in a file of a stacking or a fit
            weights = weighted_mean.read_weights(where.workdir / weights, stage.options["names"])
            shares = stage.options.get("shares", [1.0] * len(weights))
            weights = [weight * share for weight, share in zip(weights, shares, strict=True)]
        weighted_mean.combine(members, weights, output, average=stage.options["average"])
    return {}


def _stack_graph(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.ensembling import stack

    output, options = where.workdir / stage.output, stage.options
    if _to_combine(output):
        members = [where.workdir / member for member in options["members"]]
        stack.combine_stack(where.workdir / options["stacked"], members, output, names=options["models"])
    return {}


def _to_combine(output: Path) -> bool:
    """Returns whether a graph of runs is still to be made, and removes what an interrupted attempt left."""
    from yt8m_tf import run_dir

    if list(output.glob(f"{run_dir.CHECKPOINTS}/step_*")):
        return False
    (output / run_dir.CONFIG).unlink(missing_ok=True)
    return True


def _evaluate(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.data.faults import Faults
    from yt8m_tf.evaluation import runs
    from yt8m_tf.training.checkpoints import load_trained
    from yt8m_tf.vocabulary import chosen_vocabulary, load_vocabulary

    trained = load_trained(where.workdir / stage.options["run"])
    if stage.options.get("segments"):  # evaluates a model of whole videos on ratings
        segments = strict_yaml.parse(SegmentsConfig, stage.options["segments"], "data.segments")
        data = dataclasses.replace(trained.experiment.data, segments=segments)
        trained = dataclasses.replace(trained, experiment=dataclasses.replace(trained.experiment, data=data))
    metrics = runs.evaluate_trained(
        trained, stage.shards, where.data_dir, faults=Faults(), xla=where.xla, progress=where.progress
    )
    context = {"workdir": stage.options["run"], "step": trained.step, "patterns": list(stage.shards)}
    data = trained.experiment.data
    vocabulary = chosen_vocabulary(None, data.vocabulary, data.num_classes, where.data_dir)
    names = load_vocabulary(vocabulary, data.num_classes) if vocabulary else None
    runs.write_evaluation(metrics, where.workdir / stage.output, vocabulary=names, context=context)
    return {metrics.BEST_BY: metrics.scalars()[metrics.BEST_BY]}


def _export(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.export.precision import parse_precision
    from yt8m_tf.export.trained import export_trained

    report = export_trained(
        where.workdir / stage.options["run"],
        where.workdir / stage.output,
        data_dir=where.data_dir,
        precision=parse_precision(stage.options["precision"]),
        overwrite=True,
        progress=where.progress,
    )
    return {"gap_at_20": report.comparison.gap, "bytes": report.size.total_bytes}


def _infer(stage: Stage, where: Where) -> dict[str, Any]:
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.serving.inference import infer

    shards = list_shards(stage.shards, where.data_dir, stage.name)
    model = str(where.workdir / stage.options["saved_model"])
    summary = infer(model, shards, where.workdir / stage.output, progress=where.progress)
    return {"videos": summary.num_rows}


def _infer_segments(stage: Stage, where: Where) -> dict[str, Any]:
    """Writes the submission, and computes MAP if the shards have ratings."""
    from yt8m_tf import files
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.evaluation.segment_submissions import find_ratings, submission_map
    from yt8m_tf.serving.segment_inference import infer_segments
    from yt8m_tf.serving.segment_submission import read_classes
    from yt8m_tf.serving.windows import Windows

    options, output = stage.options, where.workdir / stage.output
    shards = list_shards(stage.shards, where.data_dir, stage.name)
    first, *others = (str(where.workdir / path) for path in options["saved_models"])
    classes = None if options["classes"] is None else files.below(where.data_dir, options["classes"])
    windows = Windows(options["size"], options["size"])
    output.parent.mkdir(parents=True, exist_ok=True)
    summary = infer_segments(
        *(first, shards, output, windows), classes=classes, mean_with=others, progress=where.progress
    )
    result: dict[str, Any] = {"videos": summary.num_rows}
    if ratings := find_ratings(shards, options["num_classes"]):
        listed = range(options["num_classes"]) if classes is None else frozenset(read_classes(classes))
        result["map"] = submission_map(output, ratings, listed).mean
    return result


_KINDS: Mapping[str, Callable[[Stage, Where], dict[str, Any]]] = {
    "train": _train,
    "score": _score,
    "stack": _stack,
    "fit": _fit,
    "mean": _mean,
    "stack_graph": _stack_graph,
    "evaluate": _evaluate,
    "export": _export,
    "infer": _infer,
    "infer_segments": _infer_segments,
}
