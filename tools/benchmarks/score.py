"""Scoring from shards to score shards, against the forward pass alone."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import tensorflow as tf

from benchmarks import workload
from benchmarks.harness import Options, Target, Way, measure
from benchmarks.infer import UNDER_WAY, forwarding
from benchmarks.report import Result
from yt8m_tf import models, run_dir, scoring
from yt8m_tf.data.records import parse_records
from yt8m_tf.predictors import find_predictor
from yt8m_tf.training import checkpoints

_BATCH_SIZE = 1024  # the default of yt8m-score at video level
_OURS, _FORWARD, _FORWARD_TWO = "score, shards to score shards", "forward pass", "forward pass, 2 at a time"
_AT_LEAST = 0.85
_MIN_SECONDS = 10.0


def run(options: Options) -> Result:
    """Videos a second of one run directory with random weights."""
    size = 16 if options.quick else _BATCH_SIZE
    shards = workload.video_shards(options)
    num_records = workload.count_records(shards)
    experiment = workload.experiment(options.quick, size)
    model = models.build_model(experiment.model, experiment.data.spec)
    workdir = Path(options.directory, "run")
    run_dir.prepare(workdir, experiment)
    variables = {f"model/{variable.path}": variable.value for variable in model.weights}
    checkpoints.save(workdir, 0, variables, {"best_step": 0, "positions": [0], "plateau": {}})
    predictor = find_predictor(workdir)
    probabilities = predictor.load()
    loaded, turns = dataclasses.replace(predictor, load=lambda: probabilities), itertools.count()

    def score(passes: int) -> tuple[float, float]:
        turn = Path(options.directory, f"turn_{next(turns)}")
        copies = _links(shards, passes, turn / "shards")
        summary = scoring.score([loaded], copies, turn / "scores", batch_size=size, progress=False)
        shutil.rmtree(turn)
        return summary.num_scored, summary.seconds

    serialized = next(iter(tf.data.TFRecordDataset(shards).repeat().batch(size)))
    batch = parse_records(serialized, experiment.data, with_labels=False)

    def forward() -> None:
        probabilities(batch).numpy()

    counted = f"the same model, compiled with XLA as yt8m-score does, on one parsed batch of {size} in memory, fetched"
    ways = [
        Way(_OURS, f"yt8m_tf.scoring.score in batches of {size}, from the first record read to scores.json; loading and"
            " compiling the model are not in it", score),
        Way(_FORWARD, counted, forwarding(forward, size, 1)),
        Way(_FORWARD_TWO, f"the same from {UNDER_WAY} threads, as score does on a GPU",
            forwarding(forward, size, UNDER_WAY)),
    ]  # fmt: skip
    targets = [Target(_OURS, name, _AT_LEAST) for name in (_FORWARD, _FORWARD_TWO)]
    measurement = measure("scoring", "videos/s", ways, targets, options, _MIN_SECONDS)
    facts = {
        "model": " ".join(f"{key}={value}" for key, value in experiment.model.items()),
        "records": f"{num_records:,} in {len(shards)} shards, under new names until a run lasts long enough",
    }
    return Result([measurement], workload=facts)


def _links(shards: list[str], passes: int, directory: Path) -> list[str]:
    """The same shards so many times over, each with a name of its own, as score shards need it."""
    directory.mkdir(parents=True)
    links = []
    for number, shard in itertools.product(range(passes), shards):
        links.append(str(directory / f"pass{number}_{os.path.basename(shard)}"))
        os.symlink(os.path.abspath(shard), links[-1])
    return links
