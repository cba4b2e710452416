"""Writes the class weights of a trained model for TensorBoard's embedding projector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.projector import ProjectorConfig, visualize_embeddings

from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import Metrics
from yt8m_tf.metrics.rated_pairs import RatedMetrics

_TENSOR = "class_weights"


def write_projector(
    directory: Path,
    weights: np.ndarray,
    metrics: Metrics | RatedMetrics,
    details: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes the files of a run for the projector, and replaces earlier ones.

    Paths in the files are relative, so that the run can be moved.

    Args:
      directory: directory of the run's event files.
      weights: [C, D] float32.
      metrics: metrics of the C classes, for colours.
      details: columns of the C classes (`vocabulary.load_details`); "name" is the label of points.

    Raises:
      InputError: the directory cannot be written.
    """
    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_name=_TENSOR, metadata_path=f"{_TENSOR}.tsv")
    embedding.tensor_shape.extend(weights.shape)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not any(directory.glob("events.out.tfevents.*")):  # a run of yt8m-ensemble, which was not trained
            writer = tf.summary.create_file_writer(str(directory))
            with writer.as_default(step=0):
                tf.summary.text("projector", "class weights")  # TensorBoard finds no run without event files
            writer.close()
        tf.raw_ops.SaveV2(
            prefix=str(directory / _TENSOR), tensor_names=[_TENSOR], shape_and_slices=[""], tensors=[weights]
        )
        with files.whole_file(directory / embedding.metadata_path) as temporary:
            temporary.write_text(_metadata(metrics, details or {}), encoding="utf-8")
        # A `model_checkpoint_path` in the configuration would be relative to TensorBoard's working directory.
        with files.whole_file(directory / "checkpoint") as temporary:
            temporary.write_text(f'model_checkpoint_path: "{_TENSOR}"\n', encoding="utf-8")
        visualize_embeddings(str(directory), config)
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(error.message.split())
        raise InputError(
            f"--projector: '{directory}' cannot be written ({reason}); make it writable, with space left"
        ) from error


def _metadata(metrics: Metrics | RatedMetrics, details: Mapping[str, Sequence[str]]) -> str:
    """Returns a table with a line for each class; the projector supports neither quotes nor tabs in values.

    Names are never empty, because the projector's search fails at the first empty name.
    """
    count = len(metrics.num_positives)
    names = details.get("name", [""] * count)
    columns: dict[str, Sequence[Any]] = {
        "name": [name.strip() or f"class {number}" for number, name in enumerate(names)],
        "class": range(count),
        **{title: values for title, values in details.items() if title != "name"},
        "positives": metrics.num_positives.tolist(),
        "average_precision": [f"{value:.4f}" if value == value else "" for value in metrics.average_precision],
    }
    rows: list[Iterable[Any]] = [columns, *zip(*columns.values(), strict=True)]
    return "".join("\t".join(" ".join(str(value).split()) for value in row) + "\n" for row in rows)
