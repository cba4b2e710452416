"""Measures a written SavedModel against the model that it was made from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.metrics import TOP_K, global_average_precision
from yt8m_tf.schema import NO_LABEL

# How much GAP@20 may change, by precision of the stored weights.
TOLERANCE = {"cluster": 1e-3, "float16": 1e-4, "float32": 1e-6}

# From a batch to [B, C] float32 probabilities.
Scores = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A SavedModel against its float32 model, on the same videos.

    Attributes:
      num_videos: how many.
      gap: GAP@20 of the SavedModel.
      gap_float32: GAP@20 of the float32 model.
      max_difference, mean_difference: of the [0, 1] scores of all classes of all videos, absolute.
    """

    num_videos: int
    gap: float
    gap_float32: float
    max_difference: float
    mean_difference: float

    def check(self, tolerance: float) -> None:
        """Raises InputError where GAP changed by more than `tolerance`, up or down."""
        change = abs(self.gap - self.gap_float32)
        if not change <= tolerance:
            raise InputError(
                f"GAP@20 of the written model is {self.gap:.6f}, of the float32 model {self.gap_float32:.6f}: they"
                f" differ by more than --tolerance={tolerance:g}; export with a finer --precision, or allow more"
            )


def compare(
    saved_model: str | os.PathLike[str],
    float_logits: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
    batches: Iterable[Mapping[str, tf.Tensor]],
) -> Comparison:
    """Scores the same batches with a SavedModel's `features` signature and with the float32 model.

    Args:
      saved_model: its directory.
      float_logits: from a batch to the float32 model's [B, C] logits; is traced.
      batches: features as `data.records.parse_records` gives them, "labels" [B, L] int32 padded with -1, and "valid"
        [B] bool; rows that are not valid count nowhere.

    Raises:
      InputError: no valid row in `batches`, or none with a label.
    """
    features, names = load_features(saved_model)
    return compare_scores(features, lambda batch: tf.sigmoid(tf.cast(float_logits(batch), tf.float32)), batches, names)


def load_features(saved_model: str | os.PathLike[str]) -> tuple[Scores, list[str]]:
    """A SavedModel's `features` signature, as a function of a batch, and the names of what it takes of one."""
    loaded = tf.saved_model.load(os.fspath(saved_model))
    names = list(loaded.signatures["features"].structured_input_signature[1])

    def score(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return loaded.signatures["features"](**{name: batch[name] for name in names})["predictions"]

    return score, names


def compare_scores(
    scores: Scores, reference_scores: Scores, batches: Iterable[Mapping[str, tf.Tensor]], names: Iterable[str]
) -> Comparison:
    """The same for any two functions from a batch, of which they get `names`, to [B, C] scores; both are traced."""

    @tf.function(reduce_retracing=True)
    def statistics(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        saved, reference = scores(batch), reference_scores(batch)  # [B, C]
        difference = tf.where(batch["valid"][:, None], tf.abs(saved - reference), 0.0)
        return {
            "saved": _top_pairs(saved, batch["labels"]),
            "reference": _top_pairs(reference, batch["labels"]),
            "max": tf.reduce_max(difference),
            "sum": tf.reduce_sum(tf.cast(tf.reduce_mean(difference, axis=1), tf.float64)),
        }

    num_videos, num_positives, largest, total = 0, 0, 0.0, 0.0
    saved_pairs: list[np.ndarray] = []
    reference_pairs: list[np.ndarray] = []
    for batch in batches:
        batch = {name: batch[name] for name in (*names, "labels", "valid")}
        found = tf.nest.map_structure(lambda tensor: tensor.numpy(), statistics(batch))
        valid = np.asarray(batch["valid"])
        saved_pairs.append(found["saved"][:, valid])
        reference_pairs.append(found["reference"][:, valid])
        num_videos += int(valid.sum())
        num_positives += int(np.sum(np.asarray(batch["labels"])[valid] != NO_LABEL))
        largest, total = max(largest, float(found["max"])), total + float(found["sum"])
    if not num_positives:
        raise InputError(
            f"data.validation: {num_videos} videos, none with a label; give labelled shards to measure with"
        )
    gaps = [_gap(pairs, num_positives) for pairs in (saved_pairs, reference_pairs)]
    return Comparison(num_videos, gaps[0], gaps[1], largest, total / num_videos)


def _top_pairs(scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[2, B, k] float32: the highest scores of [B, C], and whether each one's class is a label."""
    top, classes = tf.math.top_k(scores, min(TOP_K, scores.shape[-1]))  # [B, k]
    hits = tf.reduce_any(classes[:, :, None] == labels[:, None, :], axis=2)
    return tf.stack([top, tf.cast(hits, tf.float32)])


def _gap(pairs: list[np.ndarray], num_positives: int) -> float:
    scores, hits = np.concatenate(pairs, axis=1)
    return global_average_precision(scores, hits.astype(bool), num_positives)
