"""Checks before a run resumes from a checkpoint, or starts from the weights of others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from yt8m_tf import locks, run_dir
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import Metrics
from yt8m_tf.metrics.rated_pairs import RatedMetrics
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.serving.metadata import read_metadata
from yt8m_tf.training import checkpoints, distribution
from yt8m_tf.training.inputs import Inputs
from yt8m_tf.training.schedule import Plateau

# How long a new file on shared storage may take to become visible on another machine.
_SHARED_SECONDS = 60.0


def check_same_inputs(experiment: ExperimentConfig, sources: Sequence[Path]) -> None:
    """Refuses initial weights that were trained with another `unit_inputs`.

    With `unit_inputs`, features are divided by their norm. The weights have the same shapes either way, but are useless
    for the other kind of input.

    Raises:
      InputError: names the first such source.
    """
    own = experiment.model.get("unit_inputs")
    if own is None:
        return
    for source in sources:
        if (source / run_dir.CONFIG).is_file():
            model = run_dir.read_experiment(source, parse_experiment).model
        else:
            model = (read_metadata(source) or {}).get("model", {})  # a checkpoint's directory does not tell
        theirs = model.get("unit_inputs", own)
        if theirs != own:
            raise InputError(
                f"--init_from={source}: was trained with model.unit_inputs {theirs}, this run has {own}; set"
                f" model.unit_inputs={str(theirs).lower()}"
            )


def check_shared(strategy: tf.distribute.Strategy, workdir: Path) -> None:
    """Refuses a run directory that the workers do not share: all must see the lock that the chief holds there."""
    if distribution.num_workers(strategy) == 1:
        return
    chiefs = distribution.gather_texts(strategy, locks.holder(workdir))[0]
    deadline = time.monotonic() + _SHARED_SECONDS
    while locks.holder(workdir) != chiefs:
        if time.monotonic() > deadline:
            raise InputError(
                f"--workdir={workdir}: this worker does not see there what the chief ({chiefs}) writes; name a"
                " directory on storage that all workers share"
            )
        time.sleep(0.2)


def saved_state(
    workdir: Path, experiment: ExperimentConfig, strategy: tf.distribute.Strategy, show: bool
) -> checkpoints.State | None:
    """Reads the state of the last checkpoint; None if there is none yet.

    If the best checkpoint is missing or incomplete, the best of the others takes its place, also in the stored state.

    Args:
      workdir: the run directory.
      experiment: the run's configuration.
      strategy: the strategy; all its workers call this together.
      show: print a message if the best checkpoint is missing.

    Raises:
      InputError: the workers do not all see the same last checkpoint.
    """
    saved = checkpoints.latest_state(workdir)
    own = "none" if saved is None else f"that of step {saved.step:,}"
    chiefs = distribution.gather_texts(strategy, own)[0]
    if own != chiefs:
        raise InputError(
            f"--workdir={workdir}: the last checkpoint is {chiefs} for the chief, {own} for this worker;"
            " wait until the storage shows every worker the same files, and start again"
        )
    if saved is None or not saved.best_step or checkpoints.is_complete(workdir, saved.best_step):
        return saved
    repaired = _with_another_best(workdir, saved, experiment)
    if distribution.worker_index(strategy) == 0:
        checkpoints.write_state(workdir, repaired)
    if show:
        other = f"that of step {repaired.best_step:,}" if repaired.best_step else "that of the next evaluation"
        Progress.write(
            f"the best checkpoint, that of step {saved.best_step:,}, is missing or incomplete in {workdir}; {other}"
            " takes its place"
        )
    return repaired


def _with_another_best(workdir: Path, saved: checkpoints.State, experiment: ExperimentConfig) -> checkpoints.State:
    """Returns a state whose best checkpoint is the best of those that exist, by the run's history."""
    metric = (RatedMetrics if experiment.data.segments else Metrics).BEST_BY
    history = run_dir.read_history(workdir)
    gaps = {entry["step"]: entry[metric] for entry in history if isinstance(entry.get(metric), float)}
    left = [
        step for step in checkpoints.saved_steps(workdir) if step in gaps and checkpoints.is_complete(workdir, step)
    ]
    if left:
        best = max(left, key=lambda step: gaps[step])
        plateau = dataclasses.replace(saved.plateau, best_gap=gaps[best])
        return dataclasses.replace(saved, best_step=best, plateau=plateau)
    # Without a history, an evaluation must tell how good the last checkpoint is.
    due = saved.evaluation_due or saved.step % experiment.train.steps_per_epoch == 0
    plateau = dataclasses.replace(saved.plateau, best_gap=Plateau.best_gap)
    return dataclasses.replace(saved, best_step=0, plateau=plateau, evaluation_due=due)


def check_inputs(workdir: Path, saved: checkpoints.State | None, now: Inputs) -> None:
    """Refuses to resume a run on data that differs from that with which it was started.

    Raises:
      InputError: the data differs; the message names the differences.
    """
    known = saved.inputs if saved is not None else None
    if known is not None and (changes := known.differences(now)):
        raise InputError(
            f"--workdir={workdir}: the run was started with other data ({'; '.join(changes)}); restore"
            " it, or continue with the current data with --on_changed_inputs=accept (the result then differs from that"
            " of an uninterrupted run)"
        )


def positions_of(workdir: Path, positions: Sequence[int], workers: int, by_shard: bool) -> list[int]:
    """Returns the position in the data of each of `workers` workers, from the positions that were saved.

    Raises:
      InputError: the number of workers has changed, and each reads its own shards (`by_shard`).
    """
    if len(positions) == workers:
        return list(positions)
    if by_shard:
        raise InputError(
            f"--workdir={workdir}: the run was started by {len(positions)} workers that split the"
            f" shards; continue with as many, not {workers} (data.split=record allows any number)"
        )
    return list(positions[:1]) * workers
