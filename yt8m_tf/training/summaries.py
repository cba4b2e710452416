"""TensorBoard summaries of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
import yaml
from tensorboard.plugins.pr_curve import summary as pr_curve

from yt8m_tf import run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import NUM_THRESHOLDS, Metrics
from yt8m_tf.metrics.rated_pairs import RatedMetrics
from yt8m_tf.training import hparams
from yt8m_tf.training.state import TrainState

# Descriptions of scalars, with their units, that TensorBoard shows.
_DESCRIPTIONS = {
    "loss": "Mean loss of the updates since the last point, without penalties on weights.",
    "learning_rate": "Learning rate of the last update.",
    "gradient_norm": "Global norm of the last update's gradient, before clipping.",
    "examples_per_second": "Examples a second, over all replicas, without the first update's compilation.",
    "data_wait_share": "Share of the time that was spent waiting for batches, 0 to 1.",
    "gap_at_20": "Global average precision of the 20 highest scores of each video, 0 to 1.",
    "hit_at_1": "Share of videos whose highest-scored class is a label, 0 to 1.",
    "perr": "Precision at equal recall rate: the share of a video's n labels that are among its n highest scores.",
    "map": "Mean over classes of their average precision, 0 to 1.",
    "bce": "Mean binary cross-entropy over videos and classes, in nats.",
    "calibration_error": "Expected calibration error over 15 bins, 0 to 1.",
    "step": "The update after which the best evaluation was made.",
}


class Summaries:
    """A context for writing scalars, histograms and precision-recall curves; on creation it writes the configuration.

    Args:
      workdir: the run directory; None writes nothing (in all processes except the chief).
      experiment: the configuration, shown as text and as hyperparameters.
      fresh: whether the run is new; if so, files of an earlier attempt, perhaps of another configuration, are removed.
    """

    def __init__(self, workdir: Path | None, experiment: ExperimentConfig, fresh: bool):
        directory = self._directory = None if workdir is None else run_dir.event_directory(workdir)
        if workdir is None or directory is None:
            self._writer = tf.summary.create_noop_writer()
            return
        # The session's start and end have separate files, which a resumed run replaces, so that nothing appears
        # twice. The start is written before the main file is created, because TensorBoard reads files in the order of
        # their names, which begin with the time.
        for suffix in ("",) if fresh else (hparams.START, hparams.END):
            hparams.remove_events(directory, suffix)
        text = yaml.safe_dump(strict_yaml.to_dict(experiment), sort_keys=False)
        start = tf.summary.create_file_writer(str(directory), filename_suffix=hparams.START)
        with self._reporting(), start.as_default(step=0):
            tf.summary.text("configuration", "\n".join("    " + line for line in text.splitlines()))
            tf.summary.experimental.write_raw_pb(
                hparams.session_start(experiment, hparams.group_of(workdir, experiment))
            )
            start.close()
        self._writer = tf.summary.create_file_writer(str(directory))

    def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Writes `values` under `group/`."""
        with self._writing(step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}", value, description=_DESCRIPTIONS.get(name))

    def evaluation(self, step: int, metrics: Metrics | RatedMetrics, is_best: bool) -> None:
        """Writes the metrics of an evaluation (the best also under `hparams.BEST`) and, for videos, a PR curve."""
        self.scalars(step, "validation", metrics.scalars())
        if is_best:
            self.scalars(step, hparams.BEST, metrics.scalars() | {"step": step})
        if isinstance(metrics, Metrics):
            with self._writing(step):
                tf.summary.experimental.write_raw_pb(_precision_recall(metrics))

    def histograms(self, step: int, state: TrainState) -> None:
        """Writes the distribution of every trainable variable's values."""
        with self._writing(step):
            for variable, value in zip(state.model.trainable_variables, state.trainable, strict=True):
                tf.summary.histogram(variable.path, tf.convert_to_tensor(value))

    def __enter__(self) -> Summaries:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Flushes summaries and records success, or failure on InputError; an interrupted run counts as not ended."""
        if kind is None:
            self._close("success")
        elif issubclass(kind, InputError):
            with contextlib.suppress(InputError):  # the first error counts
                self._close("failure")

    def _close(self, status: str) -> None:
        with self._reporting():
            self._writer.close()
        if self._directory is not None:
            hparams.replace_events(self._directory, hparams.END, [hparams.session_end(status)])

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        with self._reporting(), self._writer.as_default(step=step):
            yield

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise hparams.unwritable(self._directory, error) from error


def _precision_recall(metrics: Metrics) -> bytes:
    """Returns a serialized PR curve for TensorBoard; pairs outside the top 20 of a video count as not predicted."""
    hits, misses = metrics.pairs_above.astype(np.float64)  # [201] each
    missed = metrics.num_labels - hits
    others = float(metrics.num_videos) * len(metrics.num_positives) - metrics.num_labels - misses
    found = np.maximum(hits + misses, 1.0)
    return pr_curve.raw_data_pb(
        "validation",
        true_positive_counts=hits,
        false_positive_counts=misses,
        true_negative_counts=others,
        false_negative_counts=missed,
        precision=hits / found,
        recall=hits / metrics.num_labels,
        num_thresholds=NUM_THRESHOLDS,
        display_name="Validation, the 20 highest scores of each video",
        description="The pairs of all videos, ranked as for GAP@20. Recall counts all labels, including those outside a"
        " top 20: the area under the curve is GAP@20, up to the error of having only 201 thresholds.",
    ).SerializeToString()
