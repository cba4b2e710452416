"""Benchmark of scoring from shards to score shards, against the forward pass alone."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import tensorflow as tf

from benchmarks import workload
from benchmarks.harness import Options, Variant
from benchmarks.infer import measure_against_forward
from benchmarks.report import Result
from yt8m_tf import models
from yt8m_tf.data.records import parse_records
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.scoring.score import score
from yt8m_tf.training import checkpoints

_BATCH_SIZE = 1024  # the default of yt8m-score at video level


def run(options: Options) -> Result:
    """Measures videos per second of a run directory with random weights."""
    size = 16 if options.quick else _BATCH_SIZE
    shards = workload.video_shards(options)
    num_records = workload.count_records(shards)
    experiment = workload.experiment(options.quick, size)
    model = models.build_model(experiment.model, experiment.data.spec)
    workdir = Path(options.directory, "run")
    checkpoints.save_run(workdir, experiment, {variable.path: variable for variable in model.weights})
    predictor = find_predictor(workdir)
    probabilities = predictor.load()
    loaded, turns = dataclasses.replace(predictor, load=lambda: probabilities), itertools.count()

    def score_shards(passes: int) -> tuple[float, float]:
        turn = Path(options.directory, f"turn_{next(turns)}")
        copies = _links(shards, passes, turn / "shards")
        summary = score([loaded], copies, turn / "scores", batch_size=size, progress=False)
        shutil.rmtree(turn)
        return summary.num_scored, summary.seconds

    serialized = next(iter(tf.data.TFRecordDataset(shards).repeat().batch(size)))
    batch = parse_records(serialized, experiment.data.records)

    def forward() -> None:
        probabilities(batch).numpy()

    ours = Variant("score, shards to score shards", f"scoring.score.score in batches of {size}, from the first record"
        " read to scores.json; loading and compiling the model are not included", score_shards)  # fmt: skip
    counted = f"the same model, compiled with XLA as yt8m-score does, on one parsed batch of {size} in memory, fetched"
    measurement = measure_against_forward("scoring", ours, counted, forward, size, options)
    facts = {
        "model": " ".join(f"{key}={value}" for key, value in experiment.model.items()),
        "records": f"{num_records:,} in {len(shards)} shards, under new names until a run lasts long enough",
    }
    return Result([measurement], workload=facts)


def _links(shards: list[str], passes: int, directory: Path) -> list[str]:
    """Returns links to the shards, `passes` times, each with a unique name, as score shards need it."""
    directory.mkdir(parents=True)
    links = []
    for number, shard in itertools.product(range(passes), shards):
        links.append(str(directory / f"pass{number}_{os.path.basename(shard)}"))
        os.symlink(os.path.abspath(shard), links[-1])
    return links
