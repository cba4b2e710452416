"""MAP and BCE of rated segments, over the rated (segment, class) pairs; no other pair counts.

`rated_statistics` runs on the device and picks the logits of rated pairs. `RatedAccumulator` keeps a key and a class
for each pair (about 237,000 in the whole 2019 version), so both metrics are exact.
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

# A class is present in a segment if its rating, which may be soft, is at least this.
PRESENT_FROM = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class RatedMetrics:
    """The metrics of one evaluation over rated pairs.

    Attributes:
      map: mean of `average_precision` over the classes that are present in some segment. It equals MAP@K if K covers
        all rated segments of each class.
      bce: mean binary cross-entropy over rated pairs, in nats; soft ratings are soft targets.
      num_segments: number of segments evaluated.
      num_ratings: number of their rated pairs.
      average_precision: [C] float64; NaN for a class that is not present in any segment. A class's rated segments are
        ranked by score; among equal scores, those where it is absent come first. The result is the mean of the
        precision at the ranks of the positives.
      num_positives: [C] int64, number of segments in which the class is present.
      num_rated: [C] int64, number of segments in which the class was rated.
      thresholds: those of the best F1 over rated pairs, if requested.
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
        """Returns the metrics, by their names in logs and files."""
        return {"map": self.map, "bce": self.bce}

    def counts(self) -> dict[str, int]:
        """Returns the numbers of segments and ratings, by their names in files."""
        return {"num_segments": self.num_segments, "num_ratings": self.num_ratings}


def rated_statistics(
    logits: tf.Tensor, rated_classes: tf.Tensor, ratings: tf.Tensor, valid: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Reduces a batch of segments to its rated pairs, on the device.

    Args:
      logits: [B, C] of any float dtype.
      rated_classes: [B, L] int32 ids below C, each once, padded with `schema.NO_LABEL`.
      ratings: [B, L] float32 in [0, 1].
      valid: [B] bool; False marks the padding of a last batch, which does not count.

    Returns:
      `logits` [B, L] float32, those of the rated classes, and `rated_classes`, `ratings` and `valid` unchanged.
    """
    picked = tf.gather(tf.cast(logits, tf.float32), tf.maximum(rated_classes, 0), batch_dims=1)
    return {"logits": picked, "rated_classes": rated_classes, "ratings": ratings, "valid": valid}


class RatedAccumulator:
    """Gathers the rated pairs of batches (8 bytes each: a key of score and hit, and a class) and the sum of losses."""

    UNIT: ClassVar[str] = "segments"

    def __init__(self, num_classes: int) -> None:
        """Creates an empty accumulator for `num_classes` classes, C."""
        self._num_classes = num_classes
        self._keys: list[np.ndarray] = []
        self._classes: list[np.ndarray] = []
        self._loss, self.num_examples = 0.0, 0

    def update(self, statistics: Mapping[str, Any], ids: Sequence[str | bytes] | None = None) -> None:
        """Adds one batch.

        Args:
          statistics: a result of `rated_statistics`, as tensors or arrays.
          ids: the ids of the batch's B segments, for messages.

        Raises:
          InputError: a logit is not finite; the message names the segment. Then nothing is added.
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
        """Returns the contents as arrays, to be sent to another process.

        Returns:
          `keys` and `classes` [pairs] int32 (TensorFlow's collectives do not support unsigned integers), `loss` [1]
          float64, `num_examples` and `num_classes` [1] int64. The arrays of several workers may be concatenated along
          the first axis.
        """
        keys, classes = self._pairs()
        counts = {"num_examples": self.num_examples, "num_classes": self._num_classes}
        sums = {name: np.array([count], np.int64) for name, count in counts.items()}
        return {"keys": keys.view(np.int32), "classes": classes, "loss": np.array([self._loss]), **sums}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RatedAccumulator:
        """Inverts `arrays`; the concatenated arrays of several workers give the accumulator of all of them."""
        result = cls(int(arrays["num_classes"][0]))
        result._keys, result._classes = [arrays["keys"].view(np.uint32)], [arrays["classes"]]
        result._loss, result.num_examples = float(arrays["loss"].sum()), int(arrays["num_examples"].sum())
        return result

    def result(self, min_positives: int | None = None) -> RatedMetrics:
        """Returns the metrics of all segments added.

        Args:
          min_positives: if given, also find the thresholds of the best F1 (`thresholds.best_thresholds`).

        Raises:
          InputError: there are no rated segments, or no class is present in any.
        """
        keys, classes = self._pairs()
        if not len(keys):
            raise InputError(
                "there are no rated segments to evaluate; check the glob pattern of the data, and the shards' contents"
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
        """Returns keys and classes of all pairs."""
        keys = np.concatenate([np.zeros(0, np.uint32), *self._keys])
        return keys, np.concatenate([np.zeros(0, np.int32), *self._classes])
