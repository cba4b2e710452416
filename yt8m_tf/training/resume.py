"""Checks before a run goes on from a checkpoint, or starts with the weights of others."""

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
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.serving.metadata import read_metadata
from yt8m_tf.training import checkpoints, distribution
from yt8m_tf.training.inputs import Inputs

# So long another machine may take to show a new file on shared storage.
_SHARED_SECONDS = 60.0


def check_same_inputs(experiment: ExperimentConfig, sources: Sequence[Path]) -> None:
    """Refuses weights trained on features divided by their norm for a model of features as they are, and the other way
    round: they fit, and mean nothing."""
    own = experiment.model.get("unit_inputs")
    if own is None:
        return
    for source in sources:
        if (source / run_dir.CONFIG).is_file():
            model = run_dir.read_experiment(source, parse_experiment).model
        else:
            model = (read_metadata(source) or {}).get("model", {})  # a checkpoint's directory says nothing
        theirs = model.get("unit_inputs", own)
        if theirs != own:
            raise InputError(
                f"--init_from={source}: was trained with model.unit_inputs {theirs}, this run has {own}; set"
                f" model.unit_inputs={str(theirs).lower()}"
            )


def check_shared(strategy: tf.distribute.Strategy, workdir: Path) -> None:
    """Refuses a run directory that is another one on each machine: what the chief wrote there all must see."""
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


def saved_state(workdir: Path, strategy: tf.distribute.Strategy, show: bool) -> checkpoints.State | None:
    """Reads the state of the last checkpoint; None where there is none yet.

    Args:
      workdir: the run directory.
      strategy: whose workers call this together.
      show: say so where the best checkpoint is missing, and the last one takes its place.

    Raises:
      InputError: the last checkpoint is not the same one for all workers.
    """
    saved = checkpoints.latest_state(workdir)
    own = "none" if saved is None else f"that of step {saved.step:,}"
    chiefs = distribution.gather_texts(strategy, own)[0]
    if own != chiefs:
        raise InputError(
            f"--workdir={workdir}: the last checkpoint is {chiefs} to the chief, {own} to this worker;"
            " wait until the storage shows all the same, and start again"
        )
    if saved is not None and saved.best_step and not checkpoints.has(workdir, saved.best_step):
        if show:
            Progress.write(
                f"the best checkpoint, that of step {saved.best_step:,}, is missing in {workdir}; the"
                " last one counts as the best until there is a better one"
            )
        saved = dataclasses.replace(saved, best_step=0)
    return saved


def check_inputs(workdir: Path, saved: checkpoints.State | None, now: Inputs) -> None:
    """Refuses to go on with other data than a run was started with.

    Raises:
      InputError: names the differences.
    """
    known = saved.inputs if saved is not None else None
    if known is not None and (changes := known.differences(now)):
        raise InputError(
            f"--workdir={workdir}: the run was started with other data ({'; '.join(changes)}); restore"
            " that, or go on with what is there now, if not as a run without an interruption would, with"
            " --on_changed_inputs=accept"
        )


def positions_of(workdir: Path, positions: Sequence[int], workers: int, by_shard: bool) -> list[int]:
    """The positions in the data of each of `workers` workers, from those of the workers that saved.

    Raises:
      InputError: another number of workers, where each reads shards of its own (`by_shard`).
    """
    if len(positions) == workers:
        return list(positions)
    if by_shard:
        raise InputError(
            f"--workdir={workdir}: the run was started by {len(positions)} workers that split the"
            f" shards; go on with as many, not {workers} (data.split=record allows any number)"
        )
    return list(positions[:1]) * workers
