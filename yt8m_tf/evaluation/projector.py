"""The class weights of a trained model for TensorBoard's embedding projector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.projector import ProjectorConfig, visualize_embeddings

from yt8m_tf import files
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.layers.moe import MixtureOfExperts
from yt8m_tf.metrics.accumulator import Metrics
from yt8m_tf.metrics.rated_pairs import RatedMetrics
from yt8m_tf.models.registry import parts

_TENSOR = "class_weights"


def class_weights(model: keras.Model, spec: InputSpec) -> np.ndarray:
    """One vector for each class: what the model's last layer multiplies its input by.

    Of the layer named "logits", as the registry has it: a column of its kernel, or the mean over the class's experts
    (their order means nothing, so that they cannot stand side by side). Where that layer maps single numbers, of the
    last layer before it that makes a number for each class. Of a mean of several models, theirs side by side; members
    without such a layer, as nearest neighbours are, are left out.

    Args:
      model: as `checkpoints.load_trained` gives it.
      spec: of the run's data; columns of tags, which come after those of the C classes, are left out.

    Returns:
      [C, D] float32.

    Raises:
      InputError: no layer makes a number for each class by a kernel.
    """
    found = [weights for part in parts(model) if (weights := _own_weights(part, spec)) is not None]
    if not found:
        raise InputError(
            f"--projector: model '{model.name}' has no layer with a kernel of a column for each of the"
            f" {spec.num_classes} classes; leave the flag out"
        )
    return np.concatenate(found, axis=1)


def _own_weights(model: keras.Model, spec: InputSpec) -> np.ndarray | None:
    """[C, D] of a model that is no mean of others."""
    logits = [layer for layer in model.layers if layer.name.endswith("logits") and "tag_logits" not in layer.name]
    # "logits" before a gate that comes after it; then from the last layer back.
    for layer in (*logits[::-1], *model.layers[::-1]):
        kernel = _kernel(layer)
        if kernel is not None and kernel.shape[1] in (spec.num_outputs, spec.num_classes):
            return np.ascontiguousarray(kernel[:, : spec.num_classes].T, np.float32)
    return None


def _kernel(layer: keras.layers.Layer) -> np.ndarray | None:
    """[D, outputs], if the layer has such a kernel."""
    if isinstance(layer, MixtureOfExperts):
        kernel = keras.ops.convert_to_numpy(layer.expert_kernel)  # [D, outputs * M], output by output
        return kernel.reshape(len(kernel), layer.num_classes, layer.num_mixtures).mean(axis=2)
    kernel = getattr(layer, "kernel", None)
    return keras.ops.convert_to_numpy(kernel) if kernel is not None and len(kernel.shape) == 2 else None


def write_projector(
    directory: Path,
    weights: np.ndarray,
    metrics: Metrics | RatedMetrics,
    details: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes what the projector shows of a run; what was there of it is replaced.

    Paths within are relative, so that the run can be moved.

    Args:
      directory: of the run's event files.
      weights: [C, D] float32.
      metrics: of the C classes, to colour by.
      details: columns of the C classes (`vocabulary.load_details`); "name" is what points are labelled with.

    Raises:
      InputError: the directory cannot be written to.
    """
    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_name=_TENSOR, metadata_path=f"{_TENSOR}.tsv")
    embedding.tensor_shape.extend(weights.shape)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not any(directory.glob("events.out.tfevents.*")):  # of yt8m-ensemble's, which was not trained
            writer = tf.summary.create_file_writer(str(directory))
            with writer.as_default(step=0):
                tf.summary.text("projector", "class weights")  # TensorBoard takes no other directory for a run
            writer.close()
        tf.raw_ops.SaveV2(
            prefix=str(directory / _TENSOR), tensor_names=[_TENSOR], shape_and_slices=[""], tensors=[weights]
        )
        with files.whole_file(directory / embedding.metadata_path) as temporary:
            temporary.write_text(_metadata(metrics, details or {}), encoding="utf-8")
        # `model_checkpoint_path` of the configuration would be relative to where TensorBoard is started.
        with files.whole_file(directory / "checkpoint") as temporary:
            temporary.write_text(f'model_checkpoint_path: "{_TENSOR}"\n', encoding="utf-8")
        visualize_embeddings(str(directory), config)
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(error.message.split())
        raise InputError(f"--projector: '{directory}' cannot be written ({reason}); mend the directory") from error


def _metadata(metrics: Metrics | RatedMetrics, details: Mapping[str, Sequence[str]]) -> str:
    """A table with a line for each class; the projector knows neither quotes nor tabs within a value.

    A name is never empty: the projector's search fails at the first one that is.
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
