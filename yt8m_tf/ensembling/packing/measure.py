"""Measures a candidate's bytes and scores at a precision, by exporting it as a SavedModel.

All results are kept in a directory, so that an interrupted packing can be resumed.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf import files, models, run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.console.progress import Progress
from yt8m_tf.data.faults import Faults
from yt8m_tf.ensembling.packing.candidates import Candidate
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import Precision, Rule, unused_rules
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.export.stored import stored_bytes
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.score_shards.manifest import MANIFEST, read_manifest
from yt8m_tf.scoring.predictors import saved_model_scores
from yt8m_tf.scoring.score import score
from yt8m_tf.stacking.features import candidates, features
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.stacking.settings import StackConfig
from yt8m_tf.training.checkpoints import open_trained

# If scores of the first shard differ by no more than this, they count as the same, and the other shards need not be
# scored. Half a unit in the last place of float16 near 1 is 0.00024.
_SAME = 2e-3
# Upper bound of the growth of a member's graph within an ensemble, for longer names and the mean.
_GRAPH_GROWTH = 1.25
_RECORD = "option.json"


@dataclasses.dataclass(frozen=True)
class Option:
    """A candidate at a precision.

    Attributes:
      candidate: the candidate.
      precision: precision of its weights.
      num_bytes: the bytes that it adds to a SavedModel, including its graph.
      scores: directory of the score shards that represent it in the selection.
      difference: the largest difference, on one shard, between scores at this precision and the candidate's own scores.
    """

    candidate: Candidate
    precision: Precision
    num_bytes: int
    scores: Path
    difference: float

    @property
    def name(self) -> str:
        """A name such as "moe as cluster"."""
        return f"{self.candidate.name} as {self.precision}"


def measure_options(
    members: Sequence[Candidate],
    precisions: Sequence[Precision],
    shards: Sequence[str],
    cache: Path,
    size_limit: int,
    progress: bool = True,
) -> list[Option]:
    """Measures all candidates at all precisions, except those that are too large by themselves.

    One model is in memory at a time.

    Args:
      members: the candidates.
      precisions: the precisions of the weights.
      shards: labelled shards that no candidate has seen.
      cache: directory for the results.
      size_limit: the most bytes of a SavedModel.
      progress: whether to show a progress bar.

    Raises:
      InputError: nothing fits `size_limit`, or a candidate cannot be stored at a precision; see `score`.
    """
    _check_rules(members, precisions)
    weights = {
        (candidate.name, str(precision)): count
        for candidate in members
        for precision, count in zip(precisions, weight_bytes(candidate, precisions), strict=True)
    }
    check_fits(weights, size_limit)
    pairs = [(c, p) for c in members for p in precisions if weights[c.name, str(p)] <= size_limit]
    options = []
    for candidate, precision in (bar := Progress(pairs, desc="measure", unit=" models", disable=not progress)):
        bar.set_postfix_str(f"{candidate.name} as {precision}")
        options.append(measure(candidate, precision, shards, cache))
    check_fits({(o.candidate.name, str(o.precision)): o.num_bytes for o in options}, size_limit)
    return [option for option in options if option.num_bytes <= size_limit]


def _check_rules(members: Sequence[Candidate], precisions: Sequence[Precision]) -> None:
    variables = [variable for candidate in members for variable in _variables(candidate)]
    for precision in precisions:
        if unused := unused_rules(precision, variables):
            raise InputError(
                f"--precisions={precision}: no variable of any candidate fits '{unused[0].pattern}'; correct the"
                " pattern"
            )


def rules_for(candidate: Candidate, precision: Precision) -> tuple[Rule, ...]:
    """Returns the rules that match variables of a candidate, in order."""
    variables = _variables(candidate)
    return tuple(rule for rule in precision.rules if not unused_rules(Precision((rule,)), variables))


def weight_bytes(candidate: Candidate, precisions: Sequence[Precision]) -> list[int]:
    """Returns the bytes of a candidate's weights at each precision, without loading it."""
    variables = _variables(candidate)
    return [sum(stored_bytes(variable, precision) for variable in variables) for precision in precisions]


def _variables(candidate: Candidate) -> list[keras.Variable]:
    experiment = run_dir.read_experiment(candidate.workdir, parse_experiment)
    return models.build_without_weights(experiment.model, experiment.data.spec).weights


def check_fits(sizes: dict[tuple[str, str], int], size_limit: int) -> None:
    """Raises InputError, which names the smallest size, if no size is within the limit."""
    (name, precision), smallest = min(sizes.items(), key=lambda item: item[1])
    if smallest > size_limit:
        raise InputError(
            f"--size_limit={size_limit}: no candidate fits; the smallest, {name} as {precision}, takes {smallest:,}"
            " bytes; allow more, or give smaller candidates"
        )


def measure(candidate: Candidate, precision: Precision, shards: Sequence[str], cache: Path) -> Option:
    """Measures the bytes of a candidate at a precision, and its scores for `shards`, with its SavedModel.

    The SavedModel scores the first shard. If the scores are those that the candidate already has, as in float16, the
    candidate's scores are used. Otherwise, as with clusters, the SavedModel scores all shards.

    Args:
      candidate, precision, shards, cache: see `measure_options`.
    """
    parts = (candidate.predictor.fingerprint, candidate.manifest.fingerprint, str(precision))
    identity = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    readable = re.sub(r"[^\w@.-]", "_", str(precision))[:40]
    directory = cache / candidate.name / f"{readable}_{identity[:12]}"
    record = _read_record(directory, shards)
    if record is None:
        try:
            record = _measure(candidate, precision, shards, directory, identity)
        except InputError as error:
            raise InputError(f"{candidate.workdir} as {precision}: {error}") from error
        finally:
            shutil.rmtree(directory / "model", ignore_errors=True)
            gc.collect()  # models contain reference cycles
    scores = directory / "scores" if record["own_scores"] else candidate.scores
    return Option(candidate, precision, record["num_bytes"], scores, record["difference"])


def _read_record(directory: Path, shards: Sequence[str]) -> dict[str, Any] | None:
    path = directory / _RECORD
    if not path.is_file():
        return None
    remedy = f"remove {directory}, and run the same command again to measure the candidate"
    record = dict(strict_yaml.read_json(path, Mapping[str, Any], remedy))
    if missing := {"num_bytes", "compared", "difference", "own_scores"} - record.keys():
        raise InputError(f"{path}: has no '{min(missing)}'; {remedy}")
    scored = read_manifest(directory / "scores", "--output").shards if record["own_scores"] else None
    first = os.path.basename(shards[0])
    names = {os.path.basename(shard) for shard in shards}
    return record if (names <= set(scored) if scored is not None else record["compared"] == first) else None


def _measure(
    candidate: Candidate, precision: Precision, shards: Sequence[str], directory: Path, identity: str
) -> dict[str, Any]:
    model, scores = directory / "model", directory / "scores"
    shutil.rmtree(model, ignore_errors=True)
    trained, read = open_trained(candidate.workdir, candidate.which)
    size = export_saved_model(
        trained.model, trained.experiment.data, model, precision=precision, size_limit=sys.maxsize, read=read
    )
    del trained
    loaded = tf.saved_model.load(files.plain(model))
    # The folds of the shards are still those of the run, which has not seen these shards.
    predictor = dataclasses.replace(candidate.predictor, fingerprint=identity, load=lambda: saved_model_scores(loaded))
    if (scores / MANIFEST).is_file() and read_manifest(scores, "--output").fingerprint != identity:
        shutil.rmtree(scores)

    def make_scores(some: Sequence[str]) -> None:
        # XLA would compile the ranking again for every option.
        score([predictor], some, scores, faults=Faults(on_empty="skip"), xla=False, progress=False)

    make_scores(shards[:1])
    difference = _largest_difference(candidate.scores, scores, shards[0])
    if difference > _SAME:
        make_scores(shards)
    graph = size.total_bytes - sum(size.layer_bytes.values())
    record = {
        "num_bytes": sum(size.layer_bytes.values()) + int(_GRAPH_GROWTH * graph),
        "compared": os.path.basename(shards[0]),
        "difference": difference,
        "own_scores": difference > _SAME,
    }
    files.write_json(directory / _RECORD, record)
    return record


def _largest_difference(given: Path, found: Path, shard: str) -> float:
    """Returns the largest difference between two models' scores of a shard, over the 20 highest of either.

    A score that is not listed counts as 0.
    """
    inputs = StackInputs([given, found], ["given", "found"], [shard])
    read = inputs.read(shard)
    videos, classes = candidates(read.scores, TOP_K, inputs.num_classes)
    config = StackConfig(aggregates=False)
    pairs = np.nan_to_num(features(read.scores, videos, classes, inputs.num_classes, config).astype(np.float32))
    return float(np.abs(pairs[:, 0] - pairs[:, 1]).max(initial=0))
