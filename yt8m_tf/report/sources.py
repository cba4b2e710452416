"""What the directory of a pipeline, or of a single run, holds for a report. Nothing is written there."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import run_dir
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.ensembling.packing.report import JSON as FRONTIER_FILE
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import CLASSES_FILE, METRICS_FILE
from yt8m_tf.export.report import REPORT_FILE
from yt8m_tf.stacking.sizes import SIZES
from yt8m_tf.stacking.stack import CONFIG as STACK_FILE
from yt8m_tf.stacking.stack import OUT_OF_FOLD
from yt8m_tf.stacking.stack import REPORT as STACK_REPORT
from yt8m_tf.training import checkpoints

_NAMES = {"mean": "plain mean"}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A model that was trained, once or on folds.

    Attributes:
      name: of its directory.
      directories: the run's, or those of its folds.
      experiment: its configuration, that of the first fold.
      histories: the evaluations of each of `directories`, in order.
      num_weights: of the model, statistics of batch normalisation among them; None where there is no checkpoint yet.
    """

    name: str
    directories: tuple[Path, ...]
    experiment: ExperimentConfig
    histories: tuple[list[dict[str, Any]], ...]
    num_weights: int | None

    @property
    def of_segments(self) -> bool:
        """Whether its examples are rated segments: it has a MAP of these, and no GAP@20."""
        return self.experiment.data.segments is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluation.runs.write_evaluation` wrote.

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


@dataclasses.dataclass(frozen=True, eq=False)
class Workdir:
    """All that a report is made from; what is not there is empty or None.

    Attributes:
      path: the directory.
      pipeline: whether it is that of a pipeline; else of one run.
      stages: of a pipeline, what each stage found, by name.
      choices: of a pipeline, where each was made (`pipelines.choices`).
      runs: by name.
      evaluations: by name of the run, of runs on whole videos.
      segment_evaluations: the same of runs on rated segments.
      models: names of the stacked models, in the order of the stacking's columns.
      gaps: GAP@20 by split, then by name of a stacked model or combination.
      ensembles: what `stacking.sizes.ensemble_sizes` found of the stacked models; empty where it did not run.
      exports: directory of each SavedModel, relative to `path`, to its export report.
      frontiers: directory of each packing, relative to `path`, to its frontier.
    """

    path: Path
    pipeline: bool
    stages: Mapping[str, Mapping[str, Any]]
    choices: Sequence[Mapping[str, str]]
    runs: Mapping[str, Run]
    evaluations: Mapping[str, Evaluation]
    segment_evaluations: Mapping[str, Evaluation]
    models: Sequence[str]
    gaps: Mapping[str, Mapping[str, float]]
    ensembles: Mapping[str, Any]
    exports: Mapping[str, Mapping[str, Any]]
    frontiers: Mapping[str, Mapping[str, Any]]

    @property
    def stacks(self) -> bool:
        """Whether it is a pipeline whose models are stacked, which are trained on folds."""
        return self.pipeline and any(run.directories[0].name.startswith("fold_") for run in self.runs.values())

    @property
    def split(self) -> str | None:
        """The name of the stacked split that models are compared on: not the one that they were trained on."""
        others = [split for split in self.gaps if split != OUT_OF_FOLD]
        return "validation" if "validation" in others else next(iter(others), None)


def read_workdir(path: Path) -> Workdir:
    """Reads what is there.

    Raises:
      InputError: neither a pipeline nor a run, or a file of it is damaged.
    """
    pipeline = (path / "results.json").is_file() or (path / "runs").is_dir()
    if not pipeline and not (path / run_dir.CONFIG).is_file():
        raise InputError(
            f"--workdir={path}: neither a pipeline nor a run is there (no results.json, runs/ or {run_dir.CONFIG});"
            " give the --workdir of yt8m-pipeline or yt8m-train"
        )
    directories = sorted(found for found in (path / "runs").glob("*") if found.is_dir()) if pipeline else [path]
    runs = {run.name: run for run in map(_read_run, directories) if run is not None}
    evaluations: dict[bool, dict[str, Evaluation]] = {False: {}, True: {}}
    for name, run in runs.items():
        places = (
            [path / "evaluation" / name, path / "runs" / name / "evaluation"] if pipeline else [path / "evaluation"]
        )
        if found := [place for place in places if (place / METRICS_FILE).is_file()]:
            evaluations[run.of_segments][name] = _read_evaluation(found[0], run.of_segments)
    stacked = path / "stacked"
    gaps = _read_json(stacked / STACK_REPORT, {}).get("gaps", {})
    return Workdir(
        path,
        pipeline,
        _read_json(path / "results.json", {}).get("stages", {}),
        _read_json(path / "results.json", {}, check=_check_choices).get("choices", []),
        runs,
        evaluations[False],
        evaluations[True],
        _read_json(stacked / STACK_FILE, {}).get("models", []),
        # A pipeline's ensemble of all models in one graph, a run, is named "mean" too.
        {split: {_NAMES.get(name, name): gap for name, gap in own.items()} for split, own in gaps.items()},
        _read_json(stacked / SIZES, {}, ("points",)),
        _below(path, REPORT_FILE, 2, _check_export),
        _below(path, FRONTIER_FILE, 1, _check_frontier),
    )


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


def _read_run(directory: Path) -> Run | None:
    folds = sorted(directory.glob(f"fold_*/{run_dir.CONFIG}"), key=lambda found: (len(str(found)), found))
    own = [directory] if (directory / run_dir.CONFIG).is_file() else [found.parent for found in folds]
    if not own:
        return None
    histories = tuple(
        _checked(path / run_dir.HISTORY, lambda history: run_dir.read_history(history.parent)) for path in own
    )
    return Run(directory.resolve().name, tuple(own), run_dir.read_experiment(own[0]), histories, _num_weights(own[0]))


def _num_weights(directory: Path) -> int | None:
    if checkpoints.latest_state(directory) is None:
        return None
    prefix, _ = checkpoints.find_checkpoint(directory)
    try:
        shapes = tf.train.list_variables(checkpoints.readable(prefix))
    except checkpoints.READ_FAILURES as error:
        raise checkpoints.unreadable(prefix, error) from error
    return sum(math.prod(shape) for name, shape in shapes if name.startswith("model/") and "seed_generator" not in name)


def _read_evaluation(directory: Path, of_segments: bool) -> Evaluation:
    best = "map" if of_segments else "gap_at_20"
    metrics = _read_json(directory / METRICS_FILE, needed=("metrics", best), check=_check_intervals)

    def read(path: Path) -> Evaluation:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return Evaluation(
            metrics,
            [int(row["num_positives"]) for row in rows],
            [float(row["average_precision"] or "nan") for row in rows],
            [row["name"] for row in rows] if rows and "name" in rows[0] else None,
            [int(row["num_rated"]) for row in rows] if of_segments else None,
        )

    return _checked(directory / CLASSES_FILE, read)


def _check_intervals(contents: Any) -> None:
    """A release before `intervals` left it out."""
    for interval in contents.get("intervals", {}).values():
        for key in ("low", "high", "level"):
            _check_number(interval[key])


def _check_choices(contents: Any) -> None:
    for made in contents.get("choices", []):
        _check_texts(made, "of", "choice", "where")


def _check_export(report: Any) -> None:
    _check_bytes(report["size"]["total_bytes"])
    for key in ("gap", "gap_float32"):
        _check_number(report["metrics"][key])
    len(report.get("pack", {}).get("members", []))


def _check_frontier(contents: Any) -> None:
    for points in (contents["options"], contents["frontier"]):
        if not points:
            raise ValueError("it has no options or no points")
        for point in points:
            _check_bytes(point["num_bytes"])
            _check_number(point["gap"])
    for point in contents["frontier"]:
        _check_texts(point, "rule")
        for member in point["members"]:
            _check_texts(member, "name", "precision")
            _check_number(member["weight"])


def _check_texts(values: Any, *keys: str) -> None:
    if wrong := [key for key in keys if not isinstance(values[key], str)]:
        raise TypeError(f"'{wrong[0]}' is no text")


def _check_bytes(value: Any) -> None:
    if type(value) is not int or not 0 < value < 2**63:
        raise ValueError(f"{value!r} is not a number of bytes")


def _check_number(value: Any) -> None:
    """Of a share or a weight: up to 1, or NaN where there were no labels."""
    if type(value) not in (int, float) or value < 0 or value > 1:
        raise ValueError(f"{value!r} is not a number from 0 to 1")


def _below(path: Path, name: str, depth: int, check: Callable[[Any], None]) -> dict[str, Any]:
    """Each file of that name in exported/NAME or exported/NAME/VERSION, by the directory `depth` levels above it."""
    files = sorted([*path.glob(f"exported/*/{name}"), *path.glob(f"exported/*/*/{name}")])
    found = {str(file.parents[depth - 1].relative_to(path)): file for file in files}
    return {name: _read_json(file, check=check) for name, file in found.items()}


def _read_json(
    path: Path, default: Any = None, needed: Sequence[str] = (), check: Callable[[Any], None] | None = None
) -> Any:
    """The contents of a file; `default` where there is none.

    Args:
      path, default: as above.
      needed: keys, each in the value of the one before.
      check: raises LookupError, TypeError, AttributeError or ValueError where the contents are not what is read.
    """
    if default is not None and not path.is_file():
        return default

    def read(path: Path) -> Any:
        contents = json.loads(path.read_text(encoding="utf-8"))
        functools.reduce(lambda value, key: value[key], needed, contents)
        if check is not None:
            check(contents)
        return contents

    return _checked(path, read)


def _checked(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); repeat the command that wrote it") from error
