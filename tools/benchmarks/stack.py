"""Stacking: feature rows of candidates against the published way, and memory at one, two and four times the videos."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Measurement, Options, Target, Way, measure
from benchmarks.models import peak_bytes
from benchmarks.report import Result, Table
from yt8m_tf.scores.reading import ShardScores
from yt8m_tf.stacking.features import candidates, features
from yt8m_tf.stacking.settings import StackConfig

_CLASSES, _TOP_K, _TOP = 3862, 100, 20
_OURS, _PUBLISHED = "candidates + features", "video by video, as published"
_AT_LEAST = 10.0
_CONFIG = StackConfig(aggregates=False)


def run(options: Options) -> Result:
    """Speed of the rows, for a few models and for all 115, and memory of the whole stacking."""
    videos, numbers = (20, (3,)) if options.quick else (290, (7, 115))
    rng = np.random.default_rng(0)
    measurements = [measure_rows(make_scores(videos, number, rng), options) for number in numbers]
    remarks = [
        "The published way keeps the scores of all classes of all models in memory, [models, classes] for each video,"
        " takes the 20 highest of each by argpartition, and joins class, scores and target to one row after the other."
        " Ours starts from score shards as they are read: lists of 100 classes.",
        "Memory: the highest that a process held (VmHWM) which makes the rows, fits the weights and trains two folds of"
        " two trees on made-up scores of seven models; LightGBM's binned rows, one byte a value, are part of it.",
    ]
    return Result(measurements, [_memory_table(options)], {"videos of a shard": str(videos)}, remarks)


def measure_rows(scores: Sequence[ShardScores], options: Options) -> Measurement:
    """Times rows of one shard."""
    dense = _dense(scores)
    num_videos = len(scores[0].ids)

    def ours(passes: int) -> int:
        for _ in range(passes):
            videos, classes = candidates(scores, _TOP, _CLASSES)
            features(scores, videos, classes, _CLASSES, _CONFIG)
        return num_videos * passes

    def published(passes: int) -> int:
        for _ in range(passes):
            published_rows(dense)
        return num_videos * passes

    ways = [
        Way(_OURS, "from score lists in memory to the matrix of rows", ours),
        Way(_PUBLISHED, "from dense scores in memory to the same rows", published),
    ]
    title = f"rows of {len(scores)} models"
    return measure(title, "videos/s", ways, [Target(_OURS, _PUBLISHED, _AT_LEAST)], options)


def published_rows(dense: np.ndarray) -> np.ndarray:
    """Rows of (class, each model's score), [R, 1 + M], from [N, M, C] scores, one video and one row at a time."""
    rows = []
    for video in dense:
        chosen = np.unique(np.argpartition(video, -_TOP, axis=1)[:, -_TOP:])
        for c in chosen:
            rows.append(np.concatenate([[c], video[:, c]]))
    return np.array(rows, np.float32)


def make_scores(num_videos: int, num_models: int, rng: np.random.Generator) -> list[ShardScores]:
    """Models that agree in part: the logits of a video, common to all, and noise of each."""
    ids = np.array([f"{number:04x}".encode() for number in range(num_videos)], object)
    common = rng.normal(-7.0, 2.0, (num_videos, _CLASSES)).astype(np.float32)
    scores = []
    for _ in range(num_models):
        logits = common + rng.normal(0.0, 0.5, common.shape).astype(np.float32)
        classes = np.argsort(-logits, axis=1)[:, :_TOP_K].astype(np.int32)
        values = 1 / (1 + np.exp(-np.take_along_axis(logits, classes, axis=1)))
        scores.append(ShardScores(ids, classes, values.astype(np.float16)))
    return scores


def _dense(scores: Sequence[ShardScores]) -> np.ndarray:
    """[N, M, C] float32, 0 for what is not listed."""
    dense = np.zeros((len(scores[0].ids), len(scores), _CLASSES), np.float32)
    for model, given in enumerate(scores):
        np.put_along_axis(dense[:, model], given.classes, given.scores.astype(np.float32), axis=1)
    return dense


def _memory_table(options: Options) -> Table:
    rows = []
    for factor in (1, 2, 4):
        job = {"shards": factor * (2 if options.quick else 30), "videos": 20 if options.quick else 290}
        job["directory"] = f"{options.directory}/{factor}"
        command = [sys.executable, "-m", "benchmarks.stack", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        found = json.loads(done.stdout.splitlines()[-1])
        values = found["rows"] * found["columns"]
        cells = (found["videos"], found["rows"], values, found["before"], found["rows_peak"], found["peak"])
        rows.append([f"{cell:,}" if n < 2 else f"{cell / 1e6:,.0f}" for n, cell in enumerate(cells)])
    header = ("videos", "rows", "binned MB", "MB at the start", "peak MB of the rows", "peak MB of all")
    return Table("Memory of stacking", header, rows)


def measure_memory(job: dict[str, Any]) -> dict[str, Any]:
    """Stacks made-up scores in this process; what `_memory_table` shows of it."""
    from benchmarks.stack_data import write_world
    from yt8m_tf.stacking import evaluation, rows
    from yt8m_tf.stacking.stack import stack

    inputs = write_world(Path(job["directory"]), job["shards"], job["videos"])
    output, before = Path(job["directory"]) / "out", peak_bytes()
    paths = evaluation.row_paths(output / "rows" / "train", inputs.shards)
    (output / "rows" / "train").mkdir(parents=True)
    config = dataclasses.replace(_CONFIG, num_trees=2, early_stopping=0)
    for shard, path in zip(inputs.shards, paths, strict=True):
        rows.save_rows(path, rows.make_rows(inputs.read(shard), inputs.num_classes, config, None))
    rows_peak = peak_bytes()
    stack(inputs, {}, output, config, progress=False)
    counts = [len(rows.load_rows(path).classes) for path in paths]
    return {
        "videos": job["shards"] * job["videos"],
        "rows": sum(counts),
        "columns": 1 + len(inputs.names),
        "before": before,
        "rows_peak": rows_peak,
        "peak": peak_bytes(),
    }


if __name__ == "__main__":
    from yt8m_tf.bin.launch import import_quietly

    import_quietly()
    print(json.dumps(measure_memory(json.loads(sys.argv[1]))))
