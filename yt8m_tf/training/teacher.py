"""A teacher in the training step: a trained model scores the very input that its student sees.

Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", https://arxiv.org/abs/2106.05237: with
many passes and broad mixup the student learns the teacher's function, and not its scores of the training videos. There
the student learns by the Kullback-Leibler divergence of softmaxes; here, of independent labels, by whatever `loss` is,
the teacher's probabilities being its targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

from yt8m_tf import files, run_dir
from yt8m_tf.config.experiment import ExperimentConfig, LabelsConfig
from yt8m_tf.errors import InputError
from yt8m_tf.training import checkpoints


class Teacher:
    """A trained model that is asked for scores and never changes.

    Args:
      model: from decoded features to [B, C] logits; made in the scope of the strategy.
    """

    def __init__(self, model: keras.Model):
        self._model = model

    def scores(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The probabilities of a batch.

        Args:
          inputs: what the student sees, decoded: feature to [B, D] or [B, T, D] float32, "num_frames" with clips. What
            the teacher does not know of it is left out.

        Returns:
          [B, C] float32 in [0, 1], through which no gradient goes.
        """
        known = {name: inputs[name] for name in self._model.input}
        weights = [tf.convert_to_tensor(variable.value) for variable in self._model.trainable_variables]
        others = [tf.convert_to_tensor(variable.value) for variable in self._model.non_trainable_variables]
        logits, _ = self._model.stateless_call(weights, others, known, training=False)
        return tf.stop_gradient(tf.sigmoid(tf.cast(logits, tf.float32)))


def load_teacher(experiment: ExperimentConfig, data_dir: str) -> Teacher | None:
    """The teacher of `labels.teacher`, with its best weights; None where there is none.

    Args:
      experiment: the student's.
      data_dir: what the path is relative to.

    Raises:
      InputError: no trained run there, or one of another level, other classes, or features that the student's data
        does not have.
    """
    if experiment.labels.teacher is None:
        return None
    path = _directory(experiment.labels, data_dir)
    trained = checkpoints.load_trained(path)
    theirs, own = trained.experiment.data, experiment.data
    for what, key in (("level", "data.level"), ("num_classes", "data.num_classes")):
        if getattr(theirs, what) != getattr(own, what):
            raise InputError(
                f"labels.teacher={path}: was trained with {key} {getattr(theirs, what)}, this run has"
                f" {getattr(own, what)}; name a teacher of the same"
            )
    for name, size in theirs.sizes.items():
        if own.sizes.get(name) != size:
            there = f"of {own.sizes[name]}" if name in own.sizes else "none"
            raise InputError(
                f"labels.teacher={path}: needs feature '{name}' of {size} values, and data.features has {there}; name a"
                " teacher of features that are there"
            )
    return Teacher(trained.model)


def fingerprint(labels: LabelsConfig, data_dir: str) -> str:
    """A hash of the teacher's configuration and of the checksums of its best weights; "" without a teacher.

    Raises:
      InputError: no trained run there.
    """
    if labels.teacher is None:
        return ""
    path = _directory(labels, data_dir)
    prefix, _ = checkpoints.find_checkpoint(path, "best", "labels.teacher")
    index = Path(f"{prefix}.index").read_bytes()  # it holds a checksum of every tensor
    return hashlib.sha256((path / run_dir.CONFIG).read_bytes() + index).hexdigest()


def _directory(labels: LabelsConfig, data_dir: str) -> Path:
    assert labels.teacher is not None
    path = Path(files.below(data_dir, labels.teacher))
    if not (path / run_dir.CONFIG).is_file():
        raise InputError(
            f"labels.teacher={path}: no run there ({run_dir.CONFIG} is missing); name a trained run directory"
        )
    return path
