"""Training of boosters on a Dask cluster, with LightGBM's own Dask estimator.

The workers read the files of rows themselves, so these must be on storage that all workers can access. The estimator
has no early stopping: the first fold is trained on this machine, and determines the number of trees of the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf.errors import InputError
from yt8m_tf.stacking import boosting
from yt8m_tf.stacking.boosting import OnTree
from yt8m_tf.stacking.folds import TrainFold
from yt8m_tf.stacking.rows import ShardSequence
from yt8m_tf.stacking.settings import StackConfig

_TIMEOUT_SECONDS = 10


@contextlib.contextmanager
def connect(address: str) -> Iterator[Any]:
    """Connects to a Dask scheduler.

    Raises:
      InputError: Dask is not installed, the scheduler does not answer, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            f"--scheduler={address}: Dask is not installed; install the package with its extra: yt8m-tf[cluster]"
        ) from error
    try:
        client = Client(address, timeout=_TIMEOUT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"--scheduler={address}: no Dask scheduler answers there; start one (dask scheduler), or leave the flag out"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise InputError(f"--scheduler={address}: the scheduler has no workers; start some (dask worker {address})")
        yield client


@contextlib.contextmanager
def fold_trainer(address: str | None, config: StackConfig, num_threads: int) -> Iterator[TrainFold | None]:
    """Yields a function that trains folds on a scheduler's cluster; without an address None, to train locally."""
    if address is None:
        yield None
        return
    with connect(address) as client:

        def train_fold(
            training: Sequence[Path],
            held_out: Sequence[Path],
            names: Sequence[str],
            on_tree: OnTree,
            earlier: Sequence[boosting.Trained],
        ) -> boosting.Trained:
            if not earlier:
                return boosting.train(training, held_out, names, config, num_threads, on_tree)
            return train(client, training, names, config, earlier[0].num_trees)

        yield train_fold


def train(
    client: Any, training: Sequence[Path], names: Sequence[str], config: StackConfig, num_trees: int
) -> boosting.Trained:
    """Trains a booster of a fixed number of trees on the workers, which share the shards.

    Args:
      client: a `distributed.Client`.
      training: files of `rows.save_rows`, under paths that are valid on the workers.
      names: names of the feature columns.
      config: options of the trees.
      num_trees: the number of trees.
    """
    import dask
    import dask.array
    from lightgbm.dask import DaskLGBMClassifier

    sequences = [ShardSequence(path.resolve(), config.negatives, config.seed) for path in training]
    columns = [boosting.CLASS_COLUMN, *map(boosting.plain, names)]
    parts: dict[str, list[Any]] = {"rows": [], "labels": [], "weights": []}
    for sequence in sequences:
        if not len(sequence):
            continue
        loaded = dask.delayed(ShardSequence.load, pure=True)(sequence)
        rows = dask.array.from_delayed(loaded, (len(sequence), len(columns)), np.float64)
        parts["rows"].append(rows)
        parts["labels"].append(dask.array.from_array(sequence.labels.astype(np.int8), chunks=-1))
        parts["weights"].append(dask.array.from_array(sequence.weights, chunks=-1))
    arrays = {name: dask.array.concatenate(found) for name, found in parts.items()}
    options = boosting.parameters(config, len(names), 0)
    for name in ("num_threads", "metric", "objective"):  # workers set their own threads; the estimator sets the others
        del options[name]
    estimator = DaskLGBMClassifier(client=client, n_estimators=num_trees, tree_learner="data", **options)
    estimator.fit(
        arrays["rows"],
        arrays["labels"],
        sample_weight=None if config.negatives == 1 else arrays["weights"],
        feature_name=columns,
        categorical_feature=[0],
    )
    return boosting.Trained(estimator.booster_, {})
