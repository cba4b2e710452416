"""The scores of many models on held-out videos as one dense array, and GAP@20 of any weighted mean of them."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from yt8m_tf.console.progress import Progress
from yt8m_tf.data.threads import in_order
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import global_average_precision
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.metrics.gap_histogram import top_pairs
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.stacking.rows import make_rows
from yt8m_tf.stacking.settings import StackConfig

# The candidate classes of a video are those among the 20 highest of any model. The ones with the highest mean scores
# are kept: as many as fit into _BYTES, 43 for 230 models and 100,000 videos, but at least _MIN_CLASSES. This makes GAP
# slightly too high (docs/BENCHMARKS.md, "Choices that were measured").
_BYTES = 2_000_000_000
_MIN_CLASSES = 40


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of M models for K classes of each of N videos, and which of these classes are labels.

    Attributes:
      scores: [M, N, K] float16; 0 for classes that a model does not list, and where a video has fewer than K classes.
      labels: [N, K] bool.
      num_labels: [N] int64, the number of all labels of a video, also those outside its K classes.
    """

    scores: np.ndarray
    labels: np.ndarray
    num_labels: np.ndarray

    def half(self, number: int) -> HeldOut:
        """Returns every second video, starting at number 0 or 1."""
        return HeldOut(self.scores[:, number::2], self.labels[number::2], self.num_labels[number::2])

    def weighted_sum(self, weights: dict[int, float]) -> np.ndarray:
        """Returns the weighted sum of scores, [N, K] float32; `weights` maps indices of models to weights."""
        total = np.zeros(self.labels.shape, np.float32)
        for model, weight in weights.items():
            total += np.float32(weight) * self.scores[model]
        return total

    def gap(self, sums: np.ndarray) -> float:
        """Computes GAP@20 of non-negative scores, [N, K] float32, which may exceed 1: only their order matters."""
        # The bits of non-negative floats are ordered like the floats; misses rank first among equals.
        keys = (sums.view(np.uint32) << 1) | ~self.labels
        if keys.shape[1] > TOP_K:
            keys = np.partition(keys, keys.shape[1] - TOP_K, axis=1)[:, -TOP_K:]
        return global_average_precision((keys >> 1).view(np.float32), keys & 1 == 0, int(self.num_labels.sum()))


def read_held_out(inputs: StackInputs, progress: bool = True) -> HeldOut:
    """Reads the scores of all models of `inputs`.

    Raises:
      InputError: one half of the videos has no label; see `StackInputs.read`.
    """
    counts = [inputs.num_videos(shard) for shard in inputs.shards]
    num_models, num_videos = len(inputs.names), sum(counts)
    num_classes = max(_MIN_CLASSES, _BYTES // (2 * num_models * max(num_videos, 1)))
    num_classes = min(num_classes, TOP_K * num_models, inputs.num_classes)
    scores = np.zeros((num_models, num_videos, num_classes), np.float16)
    labels, num_labels = np.zeros(scores.shape[1:], bool), np.zeros(scores.shape[1], np.int64)
    first = 0
    config = StackConfig(top=TOP_K, aggregates=False)
    shards = Progress(inputs.shards, desc="read scores", unit=" shards", disable=not progress, leave=False)
    for shard in in_order(inputs.read, shards):
        rows = make_rows(shard, inputs.num_classes, config, None)
        values = np.nan_to_num(rows.features)  # [R, M]
        kept, ranks = top_pairs(rows.videos, rows.classes, values.mean(axis=1, dtype=np.float32), num_classes)
        videos = first + rows.videos[kept]
        scores[:, videos, ranks] = values[kept].T
        labels[videos, ranks] = rows.labels[kept]
        num_labels[first : first + len(rows.ids)] = (shard.labels >= 0).sum(axis=1)
        first += len(rows.ids)
    found = HeldOut(scores, labels, num_labels)
    if not (found.half(0).num_labels.any() and found.half(1).num_labels.any()):
        names = ", ".join(os.path.basename(shard) for shard in inputs.shards[:3])
        raise InputError(f"--data_dir: too few labelled videos for the selection in {names}; give more held-out shards")
    return found
