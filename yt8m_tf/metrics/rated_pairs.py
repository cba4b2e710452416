"""MAP and BCE of rated segments, over the pairs of a segment and a class that were rated; no other pair counts.

`rated_statistics` runs on the device and picks the logits of rated pairs; `RatedAccumulator` keeps a key and a class of
each (some 237,000 in the whole 2019 version), so that both metrics are exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import average_precision, pair_keys, shown_id, sigmoid
from yt8m_tf.metrics.thresholds import BestThresholds, best_thresholds

# A class is present in a segment if its rating, which may be soft, is this or more.
PRESENT_FROM = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class RatedMetrics:
    """The metrics of one evaluation over rated pairs.

    Attributes:
      map: mean of `average_precision` over the classes that are present somewhere. A class's rated segments are
        ranked by score; of equal scores, those where it is absent come first. Its average precision is the mean of the
        precision at the ranks of its positives. It equals MAP@K if K covers all rated segments of each class.
      bce: mean binary cross-entropy over rated pairs, in nats; soft ratings count as they are.
      num_segments: segments evaluated.
      num_ratings: their rated pairs.
      average_precision: [C] float64; NaN where the class is present nowhere.
      num_positives: [C] int64, the segments that the class is present in.
      num_rated: [C] int64, the segments that it was rated in.
      thresholds: of the best F1 over rated pairs, if they were asked for.
    """

    BEST_BY: ClassVar[str] = "map"

    map: float
    bce: float
    num_segments: int
    num_ratings: int
    average_precision: np.ndarray
    num_positives: np.ndarray
    num_rated: np.ndarray
    thresholds: BestThresholds | None = None

    def scalars(self) -> dict[str, float]:
        """The metrics, by the names under which they are logged and written."""
        return {"map": self.map, "bce": self.bce}

    def counts(self) -> dict[str, int]:
        """Numbers of segments and ratings, by the names under which they are written."""
        return {"num_segments": self.num_segments, "num_ratings": self.num_ratings}


def rated_statistics(
    logits: tf.Tensor, rated_classes: tf.Tensor, ratings: tf.Tensor, valid: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Reduces a batch of segments to its rated pairs, on the device.

    Args:
      logits: [B, C] of any float dtype.
      rated_classes: [B, L] int32 ids below C, each once, padded with `schema.NO_LABEL`.
      ratings: [B, L] float32 in [0, 1].
      valid: [B] bool; False marks the padding of a last batch, which counts nowhere.

    Returns:
      `logits` [B, L] float32, those of the rated classes, and `rated_classes`, `ratings` and `valid` as they are.
    """
    picked = tf.gather(tf.cast(logits, tf.float32), tf.maximum(rated_classes, 0), batch_dims=1)
    return {"logits": picked, "rated_classes": rated_classes, "ratings": ratings, "valid": valid}


class RatedAccumulator:
    """Gathers the rated pairs of batches (8 bytes each: a key of score and hit, the class) and the sum of losses."""

    UNIT: ClassVar[str] = "segments"

    def __init__(self, num_classes: int) -> None:
        """`num_classes` is C."""
        self._num_classes = num_classes
        self._keys: list[np.ndarray] = []
        self._classes: list[np.ndarray] = []
        self._loss, self.num_examples = 0.0, 0

    def update(self, statistics: Mapping[str, Any], ids: Sequence[str | bytes] | None = None) -> None:
        """Adds one batch.

        Args:
          statistics: as `rated_statistics` returns it: tensors or arrays.
          ids: the ids of its B segments, for messages.

        Raises:
          InputError: a logit is not finite; names the segment. Nothing has been added then.
        """
        arrays = {name: np.asarray(value) for name, value in statistics.items()}
        rated = arrays["valid"][:, None] & (arrays["rated_classes"] != schema.NO_LABEL)  # [B, L]
        if (wrong := rated & ~np.isfinite(arrays["logits"])).any():
            row = int(wrong.any(axis=1).argmax())
            before = self.num_examples + int(arrays["valid"][:row].sum())
            name = f"number {before + 1}" if ids is None else shown_id(ids[row])
            raise InputError(
                f"segment {name}: its scores are not finite; look for NaN in its features (yt8m-inspect), and in the"
                " training run for divergence"
            )
        logits, ratings = arrays["logits"][rated], arrays["ratings"][rated].astype(np.float64)
        wide = logits.astype(np.float64)
        self._loss += float((np.logaddexp(0.0, wide) - ratings * wide).sum())
        self.num_examples += int(arrays["valid"].sum())
        self._keys.append(pair_keys(sigmoid(logits), ratings >= PRESENT_FROM))
        self._classes.append(arrays["rated_classes"][rated].astype(np.int32))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was gathered, to send to another process.

        Returns:
          `keys` and `classes` [pairs] int32 (TensorFlow's collectives know no unsigned integers), `loss` [1] float64,
          `num_examples` and `num_classes` [1] int64. Several workers' arrays may be laid one after the other along the
          first axis.
        """
        keys, classes = self._pairs()
        counts = {"num_examples": self.num_examples, "num_classes": self._num_classes}
        sums = {name: np.array([count], np.int64) for name, count in counts.items()}
        return {"keys": keys.view(np.int32), "classes": classes, "loss": np.array([self._loss]), **sums}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RatedAccumulator:
        """The inverse of `arrays`; of several workers' arrays, the accumulator of all."""
        result = cls(int(arrays["num_classes"][0]))
        result._keys, result._classes = [arrays["keys"].view(np.uint32)], [arrays["classes"]]
        result._loss, result.num_examples = float(arrays["loss"].sum()), int(arrays["num_examples"].sum())
        return result

    def result(self, min_positives: int | None = None) -> RatedMetrics:
        """The metrics of all segments gathered.

        Args:
          min_positives: also look for the thresholds of the best F1 (`thresholds.best_thresholds`); None: do not.

        Raises:
          InputError: there are no segments, or no class is present in one.
        """
        keys, classes = self._pairs()
        if not len(keys):
            raise InputError(
                "there are no rated segments to evaluate; check the glob pattern of the data, and what the shards hold"
            )
        num_rated = np.bincount(classes, minlength=self._num_classes)
        positives = np.bincount(classes[(keys & 1) == 0], minlength=self._num_classes)
        if not positives.any():
            raise InputError(
                f"none of the {len(keys)} ratings evaluated is {PRESENT_FROM} or more; evaluate shards in which classes"
                " were rated as present, too"
            )
        precision = average_precision(keys, classes, positives)
        return RatedMetrics(
            map=float(np.nanmean(precision)),
            bce=self._loss / len(keys),
            num_segments=self.num_examples,
            num_ratings=len(keys),
            average_precision=precision,
            num_positives=positives,
            num_rated=num_rated,
            thresholds=best_thresholds(keys, classes, positives, min_positives) if min_positives else None,
        )

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys and classes of all pairs."""
        keys = np.concatenate([np.zeros(0, np.uint32), *self._keys])
        return keys, np.concatenate([np.zeros(0, np.int32), *self._classes])
