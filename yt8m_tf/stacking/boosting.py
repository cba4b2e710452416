"""LightGBM boosters for each fold, trained on the rows of the other folds, with early stopping on its own rows."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from yt8m_tf import files, schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.errors import InputError
from yt8m_tf.stacking.rows import Rows, ShardSequence
from yt8m_tf.stacking.settings import StackConfig

CLASS_COLUMN = "class"
_DIGEST = "sha256"

# Receives the number of trees so far, and the loss on the held-out rows.
OnTree = Callable[[int, float], None]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A booster and its training curves.

    Attributes:
      booster: the booster; it predicts with the best number of trees.
      curves: the loss after each tree on "training" and on "held out" rows, in nats.
    """

    booster: lightgbm.Booster
    curves: dict[str, list[float]]

    @property
    def num_trees(self) -> int:
        """Number of trees used in predictions."""
        return self.booster.best_iteration if self.booster.best_iteration > 0 else self.booster.num_trees()


def parameters(config: StackConfig, num_features: int, num_threads: int) -> dict[str, Any]:
    """Returns LightGBM's parameters for rows of a class id and `num_features` features."""
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": config.learning_rate,
        "num_leaves": config.num_leaves,
        "min_data_in_leaf": config.min_data_in_leaf,
        "feature_fraction": config.feature_fraction,
        # A bin for each class, however rare: LightGBM would ignore a smaller number, with a warning.
        "max_bin_by_feature": [schema.MAX_STORED_CLASSES, *num_features * [config.max_bin]],
        "lambda_l2": config.lambda_l2,
        "cat_smooth": config.cat_smooth,
        "cat_l2": config.cat_l2,
        "seed": config.seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": num_threads,
        "verbosity": -1,
    }


def train(
    training: Sequence[Path],
    held_out: Sequence[Path],
    names: Sequence[str],
    config: StackConfig,
    num_threads: int,
    on_tree: OnTree = lambda tree, loss: None,
) -> Trained:
    """Trains the booster of a fold. Memory: one byte per value of the binned rows, and about 30 bytes per row.

    Args:
      training: files of `rows.save_rows` to train on.
      held_out: files of `rows.save_rows` for early stopping; all of their negatives are used.
      names: names of the feature columns.
      config: options of the trees.
      num_threads: threads of LightGBM; 0: all cores. More threads than free cores make it many times slower.
      on_tree: receives the number of trees so far and the loss on the held-out rows.

    Raises:
      InputError: no row has a label.
    """
    columns = [CLASS_COLUMN, *map(plain, names)]
    fitting = _dataset([ShardSequence(path, config.negatives, config.seed) for path in training], columns, None)
    watching = _dataset([ShardSequence(path, 1.0, config.seed) for path in held_out], columns, fitting)
    curves: dict[str, dict[str, list[float]]] = {}

    def report(state: Any) -> None:
        on_tree(state.iteration + 1, state.evaluation_result_list[-1][2])

    callbacks: list[Callable[..., Any]] = [lightgbm.record_evaluation(curves), report]
    if config.early_stopping:
        callbacks.append(lightgbm.early_stopping(config.early_stopping, first_metric_only=True, verbose=False))
    booster = lightgbm.train(
        parameters(config, len(names), num_threads),
        fitting,
        config.num_trees,
        valid_sets=[fitting, watching],
        valid_names=["training", "held out"],
        callbacks=callbacks,
    )
    return Trained(booster, {name: values["binary_logloss"] for name, values in curves.items()})


def save(path: Path, trained: Trained) -> None:
    """Writes a booster in LightGBM's text format, and a JSON file of its curves and the text's SHA-256."""
    text = trained.booster.model_to_string(num_iteration=trained.num_trees).encode()
    files.write_json(path.with_suffix(".json"), {**trained.curves, _DIGEST: hashlib.sha256(text).hexdigest()})
    with files.whole_file(path) as temporary:
        temporary.write_bytes(text)


def load(path: Path) -> Trained:
    """Reads what `save` wrote.

    Raises:
      InputError: a file cannot be read.
    """
    remedy = f"remove {path} and repeat the command"
    beside = strict_yaml.read_json(path.with_suffix(".json"), Mapping[str, Any], remedy)
    digest = beside.pop(_DIGEST, None)  # files of earlier releases have none
    try:
        curves = {name: [float(loss) for loss in losses] for name, losses in beside.items()}
        text = path.read_bytes()
        # Checked first, because LightGBM would read beyond the end of a damaged text.
        if digest not in (None, hashlib.sha256(text).hexdigest()):
            raise ValueError("damaged: its checksum does not match")
        return Trained(lightgbm.Booster(model_str=text.decode()), curves)
    except (OSError, ValueError, TypeError, OverflowError, lightgbm.basic.LightGBMError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and repeat the command") from error


def predict(boosters: Sequence[lightgbm.Booster], rows: Rows, num_threads: int) -> np.ndarray:
    """Returns the mean of the boosters' probabilities for rows: [R] float32."""
    if not len(rows.classes):
        return np.zeros(0, np.float32)
    matrix = rows.matrix()
    scores = [np.asarray(booster.predict(matrix, num_threads=num_threads)) for booster in boosters]
    return np.mean(scores, axis=0).astype(np.float32)


def _dataset(sequences: list[ShardSequence], columns: list[str], reference: Any) -> lightgbm.Dataset:
    labels = np.concatenate([sequence.labels for sequence in sequences])
    if not labels.any():
        raise InputError(
            "no candidate row has a label; give labelled shards (--input) and models that have learned something"
        )
    # LightGBM drops weights that are all 1. If the reference has weights, it then gives weight 0 to the rows of a
    # dataset of sequences without weights. So the held-out rows have weight 2.
    weights = np.concatenate([sequence.weights for sequence in sequences]) * (1 if reference is None else 2)
    used: list[lightgbm.Sequence] = [sequence for sequence in sequences if len(sequence)]
    return lightgbm.Dataset(
        used,
        labels,
        weight=weights,
        feature_name=columns,
        categorical_feature=[CLASS_COLUMN],
        reference=reference,
        params={"verbosity": -1},
    )


def plain(name: str) -> str:
    """Returns a column's name for LightGBM, which does not allow characters with a meaning in JSON."""
    return "".join("_" if character in '"[]{}:, ' else character for character in name)
