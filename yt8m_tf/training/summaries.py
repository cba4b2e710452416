"""What TensorBoard shows of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml
from tensorboard.plugins.hparams import api as hparams

from yt8m_tf import config
from yt8m_tf.errors import InputError
from yt8m_tf.experiment import ExperimentConfig
from yt8m_tf.training.state import TrainState


class Summaries:
    """Writes scalars, histograms, hyperparameters and the configuration.

    Args:
      directory: where the event files go; None writes nothing (all processes but the chief).
      experiment: shown as text, and as hyperparameters.
    """

    def __init__(self, directory: Path | None, experiment: ExperimentConfig):
        self._directory = directory
        if directory is None:
            self._writer = tf.summary.create_noop_writer()
            return
        self._writer = tf.summary.create_file_writer(str(directory))
        values = config.to_dict(experiment)
        with self._writing(0):
            text = yaml.safe_dump(values, sort_keys=False)
            tf.summary.text("configuration", "\n".join("    " + line for line in text.splitlines()))
            hparams.hparams(_flatten(values), trial_id=directory.parent.name)

    def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Writes `values` under `group/`."""
        with self._writing(step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}", value)

    def histograms(self, step: int, state: TrainState) -> None:
        """Writes the distribution of every trainable variable's values."""
        with self._writing(step):
            for variable, value in zip(state.model.trainable_variables, state.trainable, strict=True):
                tf.summary.histogram(variable.path, tf.convert_to_tensor(value))

    def close(self) -> None:
        """Writes what is still held back."""
        with self._writing(None):
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self, step: int | None) -> Iterator[None]:
        try:
            with self._writer.as_default(step=step):
                yield
        except tf.errors.OpError as error:
            raise InputError(
                f"TensorBoard's files in '{self._directory}' cannot be written ({' '.join(error.message.split())});"
                " make room or mend the directory, then go on with the same command"
            ) from error


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values that the HParams plugin takes: numbers, booleans, text."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        elif value is not None:
            flat[prefix + key] = str(value)
    return flat
