"""GAP@20 as a Keras metric."""

from __future__ import annotations

import math
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf.metrics.accumulator import MetricAccumulator
from yt8m_tf.metrics.batch_statistics import NUM_BINS, TOP_K

# The value shown during an epoch is computed again when the number of videos has grown by this share.
_STALE = 0.1


@keras.saving.register_keras_serializable(package="yt8m_tf")
class GlobalAveragePrecision(keras.metrics.Metric):
    """Exact GAP@20 of all videos since the last `reset_state`, whatever the batch size.

    The 20 highest scores of each video are kept on the host, in at most 200 bytes per video (`MetricAccumulator`).
    While an epoch runs, the value that Keras shows may lag behind by a tenth of the videos: sorting all pairs after
    every batch would take longer than training. The value at the end of an epoch, and that of `evaluate`, is exact.

    XLA cannot call the host: compile the model with `jit_compile=False`. With several processes, each has its own
    metric.

    Args:
      name: the name in Keras's logs.
      from_logits: whether `y_pred` is logits, as the models of this package return, or probabilities.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> gap = yt8m_tf.GlobalAveragePrecision(from_logits=False)
      >>> gap.update_state(np.array([[1, 0, 1], [0, 1, 0]]), np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.3]]))
      >>> round(float(gap.result()), 4)  # hits at ranks 1, 3 and 6: (1/1 + 2/3 + 3/6) / 3
      0.7222
    """

    def __init__(self, name: str = "gap_at_20", from_logits: bool = True, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.from_logits = from_logits
        self._lock = threading.Lock()
        self._forget()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
          y_true: [B, C]; values above 0.5 are labels.
          y_pred: [B, C] logits, or probabilities with `from_logits=False`.
          sample_weight: must be None: GAP treats all videos alike.

        Raises:
          ValueError: a weight is given.
          InputError: a score is NaN; the message has the number of the video. In a graph it is a `tf.errors.OpError`.
        """
        if sample_weight is not None:
            raise ValueError("GlobalAveragePrecision does not support weights; leave sample_weight out")
        scores = tf.cast(tf.convert_to_tensor(y_pred), tf.float32)
        positive = tf.cast(tf.convert_to_tensor(y_true), tf.float32) > 0.5
        finite = tf.reduce_all(~tf.math.is_nan(scores), axis=1)  # [B]
        highest, classes = tf.math.top_k(scores, min(TOP_K, scores.shape[-1]))  # [B, k]
        hits = tf.gather(positive, classes, batch_dims=1)
        counts = tf.math.count_nonzero(positive, axis=0)  # [C]
        num_labels = tf.math.count_nonzero(positive, axis=1, dtype=tf.int32)  # [B]
        tf.numpy_function(self._add, [highest, classes, hits, finite, counts, num_labels], [])

    def result(self) -> Any:
        """Returns GAP@20, a float32 scalar; NaN while no video has a label."""
        if tf.executing_eagerly():
            return tf.constant(self._exact(), tf.float32)
        value = tf.numpy_function(self._recent, [], tf.float32)
        value.set_shape(())
        return value

    def reset_state(self) -> None:
        """Forgets all videos."""
        with self._lock:
            self._forget()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "from_logits": self.from_logits}

    def _forget(self) -> None:
        self._accumulator: MetricAccumulator | None = None
        self._shown, self._shown_of = math.nan, 0

    def _add(
        self,
        highest: np.ndarray,
        classes: np.ndarray,
        hits: np.ndarray,
        finite: np.ndarray,
        counts: np.ndarray,
        num_labels: np.ndarray,
    ) -> None:
        statistics = {
            "top_logits" if self.from_logits else "top_scores": highest,
            "top_classes": classes,
            "hits": hits,
            "valid": np.ones(len(hits), bool),
            "not_finite": ~finite,
            "num_labels": num_labels,
            "num_videos": np.float64(len(hits)),
            "num_positives": counts,
            # The other metrics are not used.
            **dict.fromkeys(("hit_at_1", "perr", "bce"), np.float64(math.nan)),
            "calibration": np.zeros((3, NUM_BINS)),
        }
        with self._lock:
            if self._accumulator is None:
                self._accumulator = MetricAccumulator(len(counts))
            self._accumulator.update(statistics)

    def _exact(self) -> float:
        with self._lock:
            return math.nan if self._accumulator is None else self._accumulator.gap()

    def _recent(self) -> np.float32:
        """Returns GAP@20 of at least 1 / (1 + `_STALE`) of the videos.

        All earlier sorts together take no more than ten times as long as the last one.
        """
        number = self._accumulator.num_videos if self._accumulator else 0
        if number > self._shown_of * (1 + _STALE):
            self._shown, self._shown_of = self._exact(), number
        return np.float32(self._shown)
