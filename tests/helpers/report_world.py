"""Writes the directory of a pipeline: numbers that a report must show, names and ids that it must escape."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yt8m_tf import run_dir
from yt8m_tf.report.predictions import Predictions
from yt8m_tf.score_shards import records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.stacking.inputs import save_arrays
from yt8m_tf.stacking.rows import Rows, save_rows

NUM_CLASSES = 6
NAMES = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "Fish & chips", "Ōkami", "", "plain"]
MODELS = ("first", "second")
# Three videos in two shards; all classes of each video are listed, highest first.
VIDEOS = [b"<b>&a", b"bbbb", b"cccc"]
LABELS = [[0, 1], [2], [3, 0]]
SCORES = [[0.9, 0.2, 0.5, 0.1, 0.0, 0.0], [0.7, 0.1, 0.6, 0.0, 0.0, 0.3], [0.8, 0.0, 0.1, 0.75, 0.0, 0.4]]


def write_json(path: Path, contents: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(contents))


def write_run(directory: Path, gaps: list[float]) -> None:
    """Writes the configuration and history of a run, without checkpoints."""
    directory.mkdir(parents=True)
    data = {"num_classes": NUM_CLASSES, "features": {"rgb": 8, "audio": 4}}
    (directory / "config.yaml").write_text(yaml.safe_dump({"model": {"name": "logistic"}, "data": data}))
    lines = [{"step": 10 * (n + 1), "gap_at_20": gap, "bce": 0.1 / (n + 1)} for n, gap in enumerate(gaps)]
    (directory / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_scores(directory: Path, scores: list[list[float]]) -> None:
    """Writes score shards of the three videos, two of them in the first shard."""
    manifest = Manifest((directory.parent.name,), directory.parent.name, NUM_CLASSES, NUM_CLASSES, "video")
    start(directory, manifest)
    counts = {}
    for name, rows in (("a.tfrecord", range(2)), ("b.tfrecord", range(2, 3))):
        lists = []
        for row in rows:
            values = np.array(scores[row], np.float16)
            order = np.argsort(-values, kind="stable")
            lists.append((VIDEOS[row], order, values[order]))
        counts[name] = records.write_shard(directory / name, lists)
    finish(directory, dataclasses.replace(manifest, shards=counts))


def write_evaluation(directory: Path) -> None:
    """Writes the files of an evaluation; class 4 has no labels."""
    bins = [{"from": 0.0, "to": 0.5, "pairs": 12, "mean_score": 0.15, "share_positive": 0.125}]
    bins.append({"from": 0.5, "to": 1.0, "pairs": 6, "mean_score": 0.71, "share_positive": 0.5})
    metrics = {
        "gap_at_20": 0.4321,
        "hit_at_1": 0.6667,
        "perr": 0.5,
        "map": 0.61,
        "bce": 0.3,
        "calibration_error": 0.0625,
    }
    interval = {"low": 0.4011, "high": 0.4599, "level": 0.95, "resamples": 200, "seed": 0}
    found = {"metrics": metrics, "intervals": {"gap_at_20": interval}, "num_videos": 20, "calibration": bins}
    write_json(directory / "metrics.json", found)
    with open(directory / "classes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "name", "num_positives", "average_precision"])
        for number, (count, precision) in enumerate(
            zip([2, 1, 1, 1, 0, 12], [0.75, 0.111, 1.0, 0.5, "", 0.25], strict=True)
        ):
            writer.writerow([number, NAMES[number], count, precision])


def write_export(directory: Path, run: Path) -> None:
    """Writes the report and the metadata of a SavedModel of a run, without its graph."""
    rates = {"64": {"float32": 900.0, "saved_model": 1000.0}, "1024": {"float32": 1900.0, "saved_model": 2345.6}}
    report = {"size": {"total_bytes": 2_500_000}, "metrics": {"gap": 0.43209, "gap_float32": 0.4321}}
    write_json(directory / "assets.extra" / "export_report.json", report | {"videos_per_second": rates})
    experiment = run_dir.read_experiment(run)
    known = {"experiment": {"model": experiment.model}, "num_classes": NUM_CLASSES, "features": experiment.data.sizes}
    write_json(directory / "assets" / "metadata.json", known)


def write_segment_run(workdir: Path, name: str, maps: list[float], evaluated: bool) -> None:
    """Writes a pipeline's run on rated segments: class 1 is only rated absent, class 4 is never rated."""
    directory = workdir / "runs" / name
    directory.mkdir(parents=True)
    data = {"level": "frame", "num_classes": NUM_CLASSES, "features": {"rgb": 8}, "segments": {"size": 5, "context": 2}}
    (directory / "config.yaml").write_text(yaml.safe_dump({"model": {"name": "logistic"}, "data": data}))
    lines = [{"step": 10 * (n + 1), "map": value, "bce": 0.5} for n, value in enumerate(maps)]
    (directory / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not evaluated:
        return
    counts = {"num_segments": 21, "num_ratings": 34}
    write_json(directory / "evaluation" / "metrics.json", {"metrics": {"map": maps[-1], "bce": 0.25}, **counts})
    with open(directory / "evaluation" / "classes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "name", "num_rated", "num_positives", "average_precision"])
        rated, present, precision = [8, 3, 9, 4, 0, 10], [2, 0, 3, 4, 0, 8], [0.5, "", 0.125, 1.0, "", 0.75]
        writer.writerows(zip(range(NUM_CLASSES), NAMES, rated, present, precision, strict=True))


def write_pipeline(root: Path) -> Path:
    """Writes a finished pipeline, with everything that a report shows."""
    _write_stacked(root / "stacked")
    for name, gaps in zip(MODELS, ([0.2, 0.5], [0.1, 0.3]), strict=True):
        for fold in range(2):
            write_run(root / "runs" / name / f"fold_{fold}", [gap + 0.1 * fold for gap in gaps])
    write_run(root / "runs" / "final", [0.3, 0.4321])
    facts = {"device": "CPU, 2 cores", "training": "4 shards", "validation": "2 shards", "system": "Linux"}
    facts |= {"started": "2026-11-28T21:00:00+00:00", "versions": {"tensorflow": "2.21.0"}}
    times = ({"first_step": 0, "step": 10, "seconds": 60.0}, {"first_step": 10, "step": 20, "seconds": 90.5})
    run_dir.write_sessions(root / "runs" / "final", [facts | session for session in times])
    write_scores(root / "scores" / "final" / "validation", SCORES)
    write_evaluation(root / "evaluation" / "final")
    stages = {
        "train final": {"gap_at_20": 0.4321, "seconds": 12.0},
        "export final": {"bytes": 2_500_000, "seconds": 3.0},
    }
    stages |= {f"train first fold {fold}": {"gap_at_20": 0.5 + 0.1 * fold, "seconds": 60.0} for fold in range(2)}
    made = {"of": "final", "choice": "stopping", "where": "validation shards (also used to evaluate it)"}
    write_json(root / "results.json", {"stages": stages, "choices": [made], "reachable_gap_at_20": 0.66})
    gaps = {"first": 0.55, "second": 0.35, "mean": 0.56, "weighted mean": 0.57, "LightGBM": 0.58}
    write_json(root / "stacked" / "stack.json", {"models": list(MODELS)})
    write_json(
        root / "stacked" / "report.json",
        {"gaps": {"train": gaps, "validation": {k: v - 0.01 for k, v in gaps.items()}}},
    )
    write_json(root / "stacked" / "ensemble_sizes.json", _ensemble_sizes())
    write_export(root / "exported" / "final" / "1", root / "runs" / "final")
    point = {
        "rule": "single",
        "num_bytes": 1_000_000,
        "gap": 0.41,
        "members": [{"name": "first", "precision": "cluster", "weight": 1.0}],
    }
    options = [{"num_bytes": 1_000_000, "gap": 0.41}, {"num_bytes": 3_000_000, "gap": 0.4}]
    write_json(root / "exported" / "pack" / "1.pack" / "frontier.json", {"options": options, "frontier": [point]})
    return root


def _ensemble_sizes() -> dict[str, Any]:
    """Returns the results of `yt8m-stack --sizes` for two models, the second one weak."""
    points = []
    for order, models, strong, best in (
        ("best first", ["first"], None, 0.5),
        ("best first", [*MODELS], None, 0.6),
        ("worst first", ["second"], None, 0.3),
        ("worst first", [*MODELS], None, 0.6),
        ("best, and all weak ones", [*MODELS], 1, 0.6),
    ):
        gaps = {"best single model": best - 0.03, "mean": best, "weighted mean": best + 0.01, "LightGBM": best + 0.02}
        of_splits = {"train": gaps, "validation": {name: gap - 0.001 for name, gap in gaps.items()}}
        points.append({"order": order, "size": len(models), "strong": strong, "models": models, "gaps": of_splits})
    config = {"num_trees": 1200, "learning_rate": 0.25}
    return {"config": config, "models": {"first": 0.55, "second": 0.35}, "weak": ["second"], "points": points}


def _write_stacked(root: Path) -> None:
    """Writes the scores of the stacked models, with the labels and rows from which they were made."""
    write_scores(root / "validation", SCORES)
    for folder in ("labels", "rows"):
        (root / folder / "validation").mkdir(parents=True)
    for name, rows in (("a.tfrecord", range(2)), ("b.tfrecord", range(2, 3))):
        labels = np.full((len(rows), 2), -1, np.int32)
        for number, row in enumerate(rows):
            labels[number, : len(LABELS[row])] = LABELS[row]
        ids = np.array([VIDEOS[row] for row in rows], np.bytes_)
        kept = {"ids": ids, "labels": labels, "num_videos": np.int64(len(ids)), "num_bytes": np.int64(1)}
        save_arrays(root / "labels" / "validation" / f"{name}.npz", kept)
        values = np.array([SCORES[row] for row in rows], np.float16)
        features = np.stack([values.ravel(), values[:, ::-1].ravel()], axis=1)
        videos, classes = (part.ravel().astype(np.int32) for part in np.indices(values.shape))
        hits = (labels[videos] == classes[:, None]).any(axis=1)
        table = Rows(ids, int((labels >= 0).sum()), videos, classes, features, hits)
        save_rows(root / "rows" / "validation" / f"{name}.npz", table)


def random_predictions(rng: np.random.Generator, videos: int = 60, classes: int = 30) -> Predictions:
    """Draws predictions with many ties, videos without labels, labels outside of lists, and short lists."""
    listed = np.stack([rng.permutation(classes)[:25] for _ in range(videos)]).astype(np.int32)
    scores = np.sort(rng.integers(0, 12, listed.shape) / 12, axis=1)[:, ::-1].astype(np.float16)
    short = rng.random(videos) < 0.2
    listed[short, 4:], scores[short, 4:] = -1, 0
    labels = np.full((videos, 5), -1, np.int32)
    for row in labels:
        count = rng.integers(0, 6)
        row[:count] = rng.permutation(classes)[:count]
    ids = np.array([f"v{number}".encode() for number in range(videos)], object)
    return Predictions(ids, labels, listed, scores, classes, (1, 1))
