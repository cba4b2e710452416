"""Benchmark of stacking: feature rows against the published code's way, and memory at 1, 2 and 4 times the videos."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Measurement, Options, Target, Variant, measure
from benchmarks.models import peak_bytes
from benchmarks.report import Result, Table
from benchmarks.stack_data import CLASSES, make_scores, write_world
from yt8m_tf.score_shards.reading import ShardScores
from yt8m_tf.stacking.features import candidates, features
from yt8m_tf.stacking.settings import StackConfig

_TOP = 20
_OURS, _PUBLISHED = "candidates + features", "video by video, as published"
_AT_LEAST = 10.0
_SHARDS = 120  # enough for samples of full size (a million rows for the weights of the mean)
_CONFIG = StackConfig(aggregates=False)


def run(options: Options) -> Result:
    """Measures the speed of making rows, for a few models and for all 115, and the memory of the whole stacking."""
    videos, numbers = (20, (3,)) if options.quick else (290, (7, 115))
    rng = np.random.default_rng(0)
    measurements = [measure_rows(make_scores(videos, number, rng), options) for number in numbers]
    remarks = [
        "The published code keeps the scores of all classes of all models in memory, [models, classes] for each video,"
        " takes the 20 highest of each by argpartition, and joins class, scores and target to one row after the other."
        " Ours starts from score shards as they are read: lists of 100 classes.",
        "Memory: the peak (VmHWM) of a process that stacks synthetic scores of seven models in two folds of"
        " two trees: first with boosters that see only two shards, then with real ones. The difference is LightGBM's:"
        " a byte for each of a row's 7 scores, two for its class, the rest for label, weight, gradients and score.",
    ]
    return Result(measurements, [_memory_table(options)], {"videos of a shard": str(videos)}, remarks)


def measure_rows(scores: Sequence[ShardScores], options: Options) -> Measurement:
    """Times the making of the rows of one shard."""
    dense = _dense(scores)
    num_videos = len(scores[0].ids)

    def ours(passes: int) -> int:
        for _ in range(passes):
            videos, classes = candidates(scores, _TOP, CLASSES)
            features(scores, videos, classes, CLASSES, _CONFIG)
        return num_videos * passes

    def published(passes: int) -> int:
        for _ in range(passes):
            published_rows(dense)
        return num_videos * passes

    ways = [
        Variant(_OURS, "from score lists in memory to the matrix of rows", ours),
        Variant(_PUBLISHED, "from dense scores in memory to the same rows", published),
    ]
    title = f"rows of {len(scores)} models"
    return measure(title, "videos/s", ways, [Target(_OURS, _PUBLISHED, _AT_LEAST)], options)


def published_rows(dense: np.ndarray) -> np.ndarray:
    """Makes rows of (class, each model's score), [R, 1 + M], from scores [N, M, C], one video and row at a time."""
    rows = []
    for video in dense:
        chosen = np.unique(np.argpartition(video, -_TOP, axis=1)[:, -_TOP:])
        for c in chosen:
            rows.append(np.concatenate([[c], video[:, c]]))
    return np.array(rows, np.float32)


def _dense(scores: Sequence[ShardScores]) -> np.ndarray:
    """Returns dense scores, [N, M, C] float32, 0 for classes that are not listed."""
    dense = np.zeros((len(scores[0].ids), len(scores), CLASSES), np.float32)
    for model, given in enumerate(scores):
        np.put_along_axis(dense[:, model], given.classes, given.scores.astype(np.float32), axis=1)
    return dense


def _memory_table(options: Options) -> Table:
    rows = []
    for factor in (1, 2, 4):
        job = {"shards": factor * (2 if options.quick else _SHARDS), "videos": 20 if options.quick else 290}
        job["directory"] = f"{options.directory}/{factor}"
        command = [sys.executable, "-m", "benchmarks.stack", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
        shutil.rmtree(job["directory"], ignore_errors=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        found = json.loads(done.stdout.splitlines()[-1])
        megabytes = [found[name] / 1e6 for name in ("before", "all_but_lightgbm", "all")]
        a_row = (found["all"] - found["all_but_lightgbm"]) / found["rows"]
        rows.append(
            [f"{found[n]:,}" for n in ("videos", "rows")] + [f"{mb:,.0f}" for mb in megabytes] + [f"{a_row:.0f}"]
        )
    header = ("videos", "rows", "MB at the start", "peak MB without LightGBM", "peak MB", "bytes a row of LightGBM")
    return Table("Memory of stacking", header, rows)


def measure_memory(job: dict[str, Any]) -> dict[str, Any]:
    """Stacks random scores in this process, and returns the figures of `_memory_table`."""
    from yt8m_tf.stacking import boosting, evaluation, rows
    from yt8m_tf.stacking.stack import stack

    def small_fold(training: Sequence[Path], held_out: Sequence[Path], names: Sequence[str], *_: Any) -> Any:
        """Trains a booster on two shards, which takes hardly any memory."""
        return boosting.train(training[:1], held_out[:1], names, config, 1)

    inputs = write_world(Path(job["directory"]), job["shards"], job["videos"])
    config, before = dataclasses.replace(_CONFIG, num_trees=2, early_stopping=0), peak_bytes()
    stack(inputs, {}, Path(job["directory"], "small"), config, train_fold=small_fold, progress=False)
    all_but_lightgbm = peak_bytes()
    output = Path(job["directory"], "out")
    stack(inputs, {}, output, config, progress=False)
    paths = evaluation.row_paths(output / "rows" / "train", inputs.shards)
    return {
        "videos": job["shards"] * job["videos"],
        "rows": sum(len(rows.load_rows(path).classes) for path in paths),
        "before": before,
        "all_but_lightgbm": all_but_lightgbm,
        "all": peak_bytes(),
    }


if __name__ == "__main__":
    from yt8m_tf.console.quiet import import_quietly

    import_quietly()
    print(json.dumps(measure_memory(json.loads(sys.argv[1]))))
