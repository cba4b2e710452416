"""Trained models, in run directories or SavedModels, as functions from parsed records to probabilities."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_tf import files, run_dir
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.clips import model_inputs
from yt8m_tf.errors import InputError
from yt8m_tf.serving.metadata import read_data
from yt8m_tf.serving.scorer import fingerprint, load_saved_model
from yt8m_tf.training import checkpoints, distribution

# Maps a parsed batch (features, and "num_frames" for clips) to probabilities [B, C] float32.
Probabilities = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model that is not loaded yet.

    Attributes:
      path: run directory or SavedModel.
      data: the records that it reads.
      fingerprint: a hash of its weights and configuration.
      folds: base name of each shard of its training data to its fold; the fold `data.fold` was held out. Empty if the
        model was trained without folds.
      load: reads the weights.
    """

    path: Path
    data: DataConfig
    fingerprint: str
    folds: Mapping[str, int]
    load: Callable[[], Probabilities]


def find_predictor(path: Path, which: str = "best", xla: bool = True) -> Predictor:
    """Finds the model in a run directory of yt8m-train, or in a SavedModel of yt8m-export.

    Args:
      path: the directory.
      which: "best" or "last" checkpoint of a run.
      xla: compile with XLA if XLA can (`distribution.compiles_with_xla`). It does not affect SavedModels.

    Raises:
      InputError: `path` is neither, or cannot be read.
    """
    if files.is_saved_model(path):
        data = read_data(path)
        if data is None:
            raise InputError(
                f"{path}: a SavedModel that does not say which records it reads; export the model with yt8m-export"
            )
        return Predictor(
            path, data, fingerprint(path), {}, lambda: saved_model_scores(load_saved_model(path, f"--model={path}"))
        )
    if not (path / run_dir.CONFIG).is_file():
        raise InputError(f"{path}: neither a run directory of yt8m-train nor a SavedModel of yt8m-export; name one")
    experiment = run_dir.read_experiment(path)
    checkpoint, _ = checkpoints.find_checkpoint(path, which)
    digest = hashlib.sha256((path / run_dir.CONFIG).read_bytes())
    digest.update(fingerprint(checkpoint.parent).encode())
    return Predictor(
        path, experiment.data, digest.hexdigest(), run_dir.read_folds(path), lambda: _trained(path, which, xla)
    )


def saved_model_scores(loaded: Any) -> Probabilities:
    """Extracts the scores of a SavedModel of yt8m-export, as `tf.saved_model.load` loaded it."""
    features = loaded.signatures["features"]
    names = list(features.structured_input_signature[1])

    def probabilities(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        assert loaded is not None  # keeps its variables alive
        return features(**{name: batch[name] for name in names})["predictions"]

    return probabilities


def _trained(path: Path, which: str, xla: bool) -> Probabilities:
    trained = checkpoints.load_trained(path, which)
    spec = trained.experiment.data.spec

    @tf.function(autograph=False, jit_compile=xla and distribution.compiles_with_xla(trained.model))
    def forward(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.sigmoid(tf.cast(trained.model(inputs, training=False), tf.float32))

    return lambda batch: forward(model_inputs(batch, spec))
