"""Reads the directory of a pipeline or of a single run for a report; nothing is written to it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import run_dir
from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.ensembling.packing.report import JSON as FRONTIER_FILE
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import CLASSES_FILE, METRICS_FILE
from yt8m_tf.export.report import REPORT_FILE
from yt8m_tf.report.stored_json import (
    check_evaluation,
    check_export,
    check_frontier,
    check_results,
    checked,
    read_json,
)
from yt8m_tf.report.workdir import Evaluation, Export, Run, Workdir
from yt8m_tf.serving.metadata import METADATA_FILE
from yt8m_tf.stacking.settings import CONFIG as STACK_FILE
from yt8m_tf.stacking.settings import REPORT as STACK_REPORT
from yt8m_tf.stacking.sizes import SIZES
from yt8m_tf.training import checkpoints

_NAMES = {"mean": "plain mean"}
_NOT_TRAINED = ("moving_mean", "moving_variance")
_EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\..*\.(start|end)\.session")


def read_workdir(path: Path) -> Workdir:
    """Reads the data of a report.

    Raises:
      InputError: the directory is neither a pipeline's nor a run's, or one of its files is damaged.
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
    stacked, results = path / "stacked", read_json(path / "results.json", {}, check=check_results)
    gaps = read_json(stacked / STACK_REPORT, {}).get("gaps", {})
    frontiers = {
        str(directory.relative_to(path)): read_json(file, check=check_frontier)
        for directory, file in _below(path / "exported", FRONTIER_FILE, 1)
    }
    return Workdir(
        path,
        pipeline,
        results.get("stages", {}),
        results.get("reachable_gap_at_20"),
        results.get("choices", []),
        runs,
        evaluations[False],
        evaluations[True],
        read_json(stacked / STACK_FILE, {}).get("models", []),
        # A pipeline's run that joins all models in one graph is named "mean", too.
        {split: {_NAMES.get(name, name): gap for name, gap in own.items()} for split, own in gaps.items()},
        read_json(stacked / SIZES, {}, ("points",)),
        _exports(path, runs),
        frontiers,
    )


def _read_run(directory: Path) -> Run | None:
    folds = sorted(directory.glob(f"fold_*/{run_dir.CONFIG}"), key=lambda found: (len(str(found)), found))
    own = [directory] if (directory / run_dir.CONFIG).is_file() else [found.parent for found in folds]
    if not own:
        return None
    histories = tuple(checked(path / run_dir.HISTORY, lambda file: run_dir.read_history(file.parent)) for path in own)
    sessions = tuple(checked(path / run_dir.SESSIONS, lambda file: run_dir.read_sessions(file.parent)) for path in own)
    state = checkpoints.latest_state(own[0])
    step, count = _checkpoint(own[0]) if state is not None else (None, None)
    inputs = state.inputs if state is not None else None
    shards = {"train": len(inputs.train), "validation": len(inputs.validation)} if inputs else {}
    seconds = [_seconds(path, found) for path, found in zip(own, sessions, strict=True)]
    known = [found for found in seconds if found is not None]
    return Run(
        directory.resolve().name,
        tuple(own),
        run_dir.read_experiment(own[0]),
        histories,
        sessions,
        step,
        count,
        shards,
        sum(known) if len(known) == len(own) else None,
    )


def _checkpoint(directory: Path) -> tuple[int, int]:
    """Returns the step of the best checkpoint and the number of parameters."""
    prefix, step = checkpoints.find_checkpoint(directory)
    try:
        shapes = tf.train.list_variables(checkpoints.readable(prefix))
    except checkpoints.READ_FAILURES as error:
        raise checkpoints.unreadable(prefix, error) from error
    trained = (
        math.prod(shape)
        for name, shape in shapes
        if name.startswith("model/") and "seed_generator" not in name and not name.endswith(_NOT_TRAINED)
    )
    return step, sum(trained)


def _seconds(directory: Path, sessions: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns the training time of a run in seconds, from its sessions or else from the names of its event files."""
    if sessions:
        return checked(directory / run_dir.SESSIONS, lambda _: float(sum(entry["seconds"] for entry in sessions)))
    times: dict[str, list[int]] = {"start": [], "end": []}
    for file in run_dir.event_directory(directory).glob("*.session"):
        if found := _EVENTS.fullmatch(file.name):
            times[found[2]].append(int(found[1]))
    # For a run that was interrupted, only the last session is known, and not the total.
    if len(times["start"]) != 1 or len(times["end"]) != 1:
        return None
    return float(times["end"][0] - times["start"][0])


def _read_evaluation(directory: Path, of_segments: bool) -> Evaluation:
    best = "map" if of_segments else "gap_at_20"
    metrics = read_json(directory / METRICS_FILE, needed=("metrics", best), check=check_evaluation)

    def read(path: Path) -> Evaluation:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(CsvRows(file))
        return Evaluation(
            metrics,
            [int(row["num_positives"]) for row in rows],
            [float(row["average_precision"] or "nan") for row in rows],
            [row["name"] for row in rows] if rows and "name" in rows[0] else None,
            [int(row["num_rated"]) for row in rows] if of_segments else None,
        )

    return checked(directory / CLASSES_FILE, read)


def _exports(path: Path, runs: Mapping[str, Run]) -> list[Export]:
    """Returns the exports in `path`, and those of its runs in other directories.

    The others are in exported/NAME of the current directory, of the parent of `path`, and of that directory's parent.
    """
    found = [
        Export(str(directory.relative_to(path)), directory.relative_to(path).parts[1], _report(file))
        for directory, file in _below(path / "exported", REPORT_FILE, 2)
    ]
    known = {(path / export.path).resolve() for export in found}
    for place in (Path("exported"), path.parent / "exported", path.parent.parent / "exported"):
        for directory, file in _below(place, REPORT_FILE, 2):
            model = directory.relative_to(place).parts[0]
            if directory.resolve() not in known and model in runs and _is_of(directory, runs[model]):
                known.add(directory.resolve())
                found.append(Export(str(directory), model, _report(file)))
    return found


def _report(file: Path) -> Mapping[str, Any]:
    report: Mapping[str, Any] = read_json(file, check=check_export)
    return report


def _is_of(directory: Path, run: Run) -> bool:
    """Returns whether a SavedModel has a run's model options, classes and features; names such as "plain" recur."""
    contents = read_json(directory / "assets" / METADATA_FILE, {})
    data, trained = run.experiment.data, contents.get("experiment", {}) if isinstance(contents, dict) else {}
    return (
        isinstance(trained, dict)
        and trained.get("model") == run.experiment.model
        and contents.get("num_classes") == data.num_classes
        and contents.get("features") == data.sizes
    )


def _below(exported: Path, name: str, depth: int) -> Iterator[tuple[Path, Path]]:
    """Yields files called `name` in NAME or NAME/VERSION, each after the directory `depth` levels above it."""
    for file in sorted([*exported.glob(f"*/{name}"), *exported.glob(f"*/*/{name}")]):
        yield file.parents[depth - 1], file
