"""Teachers in the training step: trained models that score the same input as their student.

Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", https://arxiv.org/abs/2106.05237: with
many epochs and aggressive mixup, the student learns the teacher's function rather than its scores of the training
videos. The paper minimises the Kullback-Leibler divergence of softmaxes. Here labels are independent, so the student
minimises the configured `loss` with the teacher's probabilities as targets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf import files, run_dir
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig, LabelsConfig
from yt8m_tf.errors import InputError
from yt8m_tf.pretrained import packaged
from yt8m_tf.serving import scorer
from yt8m_tf.training import checkpoints, distribution, exported, fold_runs, inputs


class Teacher:
    """Trained models with frozen weights that score the student's input.

    Args:
      models: map decoded features to [B, C] logits; created in the scope of the strategy.
      folds: for each model, the fold that it was not trained on; empty if a single model teaches all videos.
      shard_folds: maps the base name of each training shard to its fold.

    Attributes:
      num_folds: K; 0 for a single model.
      shard_folds: see above.
      compiles_with_xla: whether XLA can compile all models.
    """

    def __init__(
        self, models: Sequence[keras.Model], folds: Sequence[int] = (), shard_folds: Mapping[str, int] | None = None
    ):
        self._models, self.shard_folds = models, shard_folds or {}
        self.num_folds = max(folds, default=-1) + 1
        self.compiles_with_xla = all(map(distribution.compiles_with_xla, models))
        # [K, M]: each row averages the models of one fold.
        member = np.equal.outer(np.arange(self.num_folds), np.asarray(folds))
        self._shares = (member / np.maximum(member.sum(axis=1, keepdims=True), 1)).astype(np.float32)

    def scores(self, features: Mapping[str, tf.Tensor], folds: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the probabilities of a batch.

        Args:
          features: the student's decoded input: name to [B, D] or [B, T, D] float32, "num_frames" with clips; those
            that the teacher does not take are ignored.
          folds: [B, K] float32, the share of each fold in a video: 1 for its own fold; for mixed videos, the weights of
            mixup. None for a single model.

        Returns:
          [B, C] float32 in [0, 1], without gradients. With folds, the mean over the models, weighted by `folds`: every
          model scores the whole batch, because XLA needs static shapes.
        """
        found = [self._score(model, features) for model in self._models]
        if folds is None:
            return found[0]
        shares = tf.split(folds @ self._shares, len(found), axis=1)
        return tf.add_n([share * scores for share, scores in zip(shares, found, strict=True)])

    @staticmethod
    def _score(model: keras.Model, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        known = {name: features[name] for name in model.input}
        weights = [tf.convert_to_tensor(variable.value) for variable in model.trainable_variables]
        others = [tf.convert_to_tensor(variable.value) for variable in model.non_trainable_variables]
        logits, _ = model.stateless_call(weights, others, known, training=False)
        return tf.stop_gradient(tf.sigmoid(tf.cast(logits, tf.float32)))


def load_teacher(
    experiment: ExperimentConfig,
    data_dir: str,
    train_shards: Sequence[str] = (),
    validation_shards: Sequence[str] = (),
) -> Teacher | None:
    """Loads the teacher of `labels.teacher` or `labels.teacher_folds`, with its best weights; None without either.

    Args:
      experiment: the student's configuration.
      data_dir: the base of relative paths.
      train_shards: the shards that the student is trained on; each needs an out-of-fold teacher.
      validation_shards: the shards that the student is validated on; no teacher may have been trained on them.

    Raises:
      InputError: there is no trained model, or its level, classes or features do not fit the student's data; or the
        out-of-fold teachers do not cover `train_shards`; or a teacher was trained on one of `validation_shards`.
    """
    labels = experiment.labels
    if labels.teacher is not None:
        path = _directory(labels.teacher, data_dir)
        _check_unseen(path, validation_shards)
        return Teacher([_load(path, f"labels.teacher={path}", experiment.data)])
    if labels.teacher_folds is None:
        return None
    runs = fold_runs.find(labels.teacher_folds, data_dir)
    fold_runs.check(runs, train_shards, validation_shards)
    models = [_load(run.path, f"labels.teacher_folds: {run.path}", experiment.data) for run in runs]
    return Teacher(models, [run.fold for run in runs], runs[0].folds)


def fingerprint(labels: LabelsConfig, data_dir: str) -> str:
    """Returns a hash of everything that determines the teacher's scores, but not its path; "" without a teacher.

    A run is hashed by its configuration and the checksums of its best weights, a SavedModel by all of its files.

    Raises:
      InputError: there is no trained model.
    """
    if labels.teacher is not None:
        path = _directory(labels.teacher, data_dir)
        if (path / run_dir.CONFIG).is_file():
            return _fingerprint(path, "labels.teacher")
        return scorer.fingerprint(path)
    if labels.teacher_folds is None:
        return ""
    runs = fold_runs.find(labels.teacher_folds, data_dir)
    parts = sorted((run.fold, _fingerprint(run.path, "labels.teacher_folds")) for run in runs)
    return hashlib.sha256(repr((parts, sorted(runs[0].folds.items()))).encode()).hexdigest()


def _fingerprint(run: Path, key: str) -> str:
    prefix, _ = checkpoints.find_checkpoint(run, "best", key)
    index = Path(f"{prefix}.index").read_bytes()  # it contains a checksum of every tensor
    return hashlib.sha256((run / run_dir.CONFIG).read_bytes() + index).hexdigest()


def _directory(teacher: str, data_dir: str) -> Path:
    path = Path(files.below(data_dir, packaged.saved_model(teacher, "labels.teacher")))
    if not (path / run_dir.CONFIG).is_file() and not files.is_saved_model(path):
        raise InputError(
            f"labels.teacher={path}: no run and no SavedModel there ({run_dir.CONFIG} or saved_model.pb is missing);"
            " name a trained run directory, or a SavedModel that yt8m-export wrote"
        )
    return path


def _check_unseen(path: Path, validation_shards: Sequence[str]) -> None:
    """Checks that a teacher was not trained on a shard that its student is validated on, by name and size.

    Only runs say what they were trained on: SavedModels, means, and runs of early releases do not.
    """
    state = checkpoints.latest_state(path) if (path / run_dir.CONFIG).is_file() else None
    if state is None or state.inputs is None:
        return
    trained_on = state.inputs.train
    same_name = [shard for shard in validation_shards if os.path.basename(shard) in trained_on]
    for name, sizes in inputs.sizes(same_name).items():
        if set(sizes) & set(trained_on[name]):
            raise InputError(
                f"labels.teacher={path}: was trained on '{name}', which this run is validated on: its score there would"
                " be too high; validate on other shards (data.num_folds=0 takes data.validation), or name the models"
                " of folds as labels.teacher_folds"
            )


def _load(path: Path, where: str, own: DataConfig) -> keras.Model:
    """Loads the model of a run or a SavedModel, and checks that it can teach a student with data `own`."""
    if (path / run_dir.CONFIG).is_file():
        trained = checkpoints.load_trained(path)
        model, theirs = trained.model, trained.experiment.data
    else:
        model, theirs = exported.load_exported(path, where)
    check_can_teach(theirs, own, where)
    return model


def check_can_teach(theirs: DataConfig, own: DataConfig, where: str) -> None:
    """Checks that a model with data `theirs` can score the input of a student with data `own`.

    Raises:
      InputError: the level or the classes differ, or the student's data lacks a feature.
    """
    for what, key in (("level", "data.level"), ("num_classes", "data.num_classes")):
        if getattr(theirs, what) != getattr(own, what):
            raise InputError(
                f"{where}: was trained with {key} {getattr(theirs, what)}, this run has"
                f" {getattr(own, what)}; name a teacher with the same value"
            )
    for name, size in theirs.sizes.items():
        if own.sizes.get(name) != size:
            there = f"gives it {own.sizes[name]}" if name in own.sizes else "lacks it"
            raise InputError(
                f"{where}: needs feature '{name}' of {size} values, but data.features {there}; name a teacher"
                " that needs only features of data.features"
            )
