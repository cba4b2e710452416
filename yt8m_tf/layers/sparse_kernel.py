"""Kernel ridge regression with few duals per video, on few principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from yt8m_tf.console.progress import Progress
from yt8m_tf.layers import kernel_support
from yt8m_tf.layers.directions import directions, fill_directions, mean_of
from yt8m_tf.layers.kernel_ridge import KernelRidge, kernel_values
from yt8m_tf.layers.kernel_solve import gaussian

_GROUP = 8  # duals of one class that are summed first
_PART = 8192  # groups whose kernel values are gathered at a time, to need little space
MOST_VIDEOS = 65_536  # so that two bytes name each
_SAMPLE = 4096  # videos whose mean makes up for the rounding of duals


@keras.saving.register_keras_serializable(package="yt8m_tf")
class SparseKernelRidge(KernelRidge):
    """`KernelRidge` in a tenth of its size: scores [B, C] of features [B, D'].

    The directions of videos are projected on their P first principal components, and normalised again. All classes
    have duals for the first R videos, the centres, and each class for few others (`kernel_support.fit`). Keys, duals
    and projection are rounded to float16 when they are remembered, so that exports in float16 have the same scores;
    `bias` is what the rounding takes from the mean score of each class.

    In training, the score of a video that is in the memory is about what it would be without the video: exact if its
    classes share one support, see `kernel_support.SparseDuals.own`.

    Nothing is trained by gradients: `remember` sets all weights. A video takes 2 (D P + N (P + d) + R C) FLOP: 0.04
    GFLOP for N = 35,000, P = 448, d = 40, R = 1000 and C = 3862.

    Args:
      num_classes: C.
      capacity: N, the most videos that are remembered, at most 65,536.
      shares: the length of each feature; its squared differences count with the square.
      gamma: the kernel is narrower if this is higher.
      ridge: the variance of noise in the labels; higher values make scores smoother.
      components: P; all if there are not so many.
      centres: R; all videos if there are not so many.
      duals_per_video: d, how many duals there are on average for each video that is no centre.
      dtype: float32 by default, even with mixed precision: duals of both signs nearly cancel.
      **kwargs: arguments of every layer: name.
    """

    def __init__(
        self,
        num_classes: int,
        capacity: int,
        shares: Sequence[float],
        gamma: float,
        ridge: float,
        components: int,
        centres: int,
        duals_per_video: int,
        *,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, capacity, shares, gamma, ridge, dtype=dtype, **kwargs)
        self.components, self.centres, self.duals_per_video = components, centres, duals_per_video

    def _key_size(self, features_size: int) -> int:
        return min(self.components, features_size)

    def _build_duals(self) -> None:
        self._length = np.float32(np.linalg.norm(self.shares))
        groups = self.capacity * self.duals_per_video // _GROUP + self.num_classes  # each class may fill one in part
        self.projection = self._constant("projection", self.means.shape[0], self.keys.shape[1])
        self.centre_duals = self._constant("centre_duals", min(self.centres, self.capacity), self.num_classes)
        self.dual_values = self._constant("dual_values", groups, _GROUP)
        self.dual_videos = self._constant("dual_videos", groups, _GROUP, dtype="uint16")
        ids = "uint16" if self.num_classes <= 2**16 else "int32"
        self.dual_classes = self._constant("dual_classes", groups, dtype=ids)
        self.bias = self._constant("bias", self.num_classes)

    def call(self, features: Sequence[Any], training: bool = False) -> Any:
        """Computes the scores.

        Args:
          features: [B, D'] each.
          training: whether to score a video that is in the memory as if it were not.

        Returns:
          [B, C].
        """
        queries = self._points(directions(features, self.means))  # [B, P]
        kernel = kernel_values(queries, self.keys, self.gamma, self.own if training else None)  # [B, N]
        scores = tf.matmul(kernel[:, : self.centre_duals.shape[0]], self.centre_duals) + self.bias
        return scores + tf.transpose(self._of_others(tf.transpose(kernel)))

    def _points(self, found: Any) -> Any:
        """Returns the points [B, P] of directions [B, D]."""
        projected = tf.matmul(found * self._scales, ops.convert_to_tensor(self.projection))
        return tf.math.l2_normalize(projected, axis=1) * self._length

    def _of_others(self, kernel: Any) -> Any:
        """Returns what the videos that are no centres add to the scores, [C, B], from kernel values [N, B]."""
        found = tf.zeros((self.num_classes, tf.shape(kernel)[1]), kernel.dtype)
        values = ops.convert_to_tensor(self.dual_values)
        videos, classes = tf.cast(self.dual_videos, tf.int32), tf.cast(self.dual_classes, tf.int32)
        for start in range(0, values.shape[0], _PART):
            rows = slice(start, start + _PART)
            sums = tf.reduce_sum(tf.gather(kernel, videos[rows]) * values[rows, :, None], axis=1)
            found += tf.math.unsorted_segment_sum(sums, classes[rows], self.num_classes)
        return found

    def remember(self, features: Sequence[np.ndarray], labels: Sequence[np.ndarray], progress: bool = False) -> None:
        """Fills the memory: solves for the duals, which takes minutes for tens of thousands of videos.

        Args:
          features: [M, D'] each, of M videos, at most the capacity.
          labels: the class ids of each video.
          progress: whether to show a progress bar.

        Raises:
          numpy.linalg.LinAlgError: the ridge is too small for float32, or for duals in float16.
        """
        count = len(labels)
        centres = min(self.centre_duals.shape[0], count)
        order = _centres_first(count, centres)
        features = [values[order] for values in features]
        targets = np.zeros((count, self.num_classes), np.float32)
        for row, video in zip(targets, order, strict=True):
            row[labels[video]] = 1.0
        self.means.assign(mean_of(features))
        found = np.empty((count, self.means.shape[0]), np.float32)
        fill_directions(found, features, self.means)
        self.projection.assign(_float16(_principal_components(found * self._scales, self.projection.shape[1])))
        points = _float16(np.concatenate([self._points(found[s : s + _SAMPLE]) for s in range(0, count, _SAMPLE)]))
        with Progress(
            total=kernel_support.steps(self.num_classes),
            desc="kernel ridge",
            unit=" systems",
            leave=False,
            disable=not progress,
        ) as bar:
            entries = self.capacity * self.duals_per_video
            duals = kernel_support.fit(points, targets, centres, entries, self.gamma, self.ridge, bar.update)
        self._assign(points, duals)

    def _assign(self, points: np.ndarray, duals: kernel_support.SparseDuals) -> None:
        """Stores the memory of points [M, P]."""
        count, centres = len(points), len(duals.centres)
        keys, own = np.zeros(self.keys.shape, np.float32), np.zeros(self.capacity, np.float32)
        keys[:count], own[:count] = points, duals.own
        of_centres = np.zeros(self.centre_duals.shape, np.float32)
        of_centres[:centres] = _float16(duals.centres)
        others = duals.others.copy()
        others.data = _float16(others.data)
        sample = points[np.linspace(0, count, min(count, _SAMPLE), endpoint=False).astype(np.int64)]
        mean = gaussian(sample, points, self.gamma).mean(axis=0, dtype=np.float64)
        lost = mean[:centres] @ (duals.centres - of_centres[:centres]) + mean[centres:] @ (duals.others - others)
        self.bias.assign(lost)
        self.keys.assign(keys)
        self.own.assign(own)
        self.centre_duals.assign(of_centres)
        values, videos = (np.zeros(self.dual_values.shape, kind) for kind in (np.float32, np.uint16))
        classes = np.zeros(self.dual_classes.shape, self.dual_classes.dtype)
        group = 0
        for column, (start, end) in enumerate(zip(others.indptr[:-1], others.indptr[1:], strict=True)):
            last = group + -(-(end - start) // _GROUP)
            values[group:last].ravel()[: end - start] = others.data[start:end]
            videos[group:last].ravel()[: end - start] = others.indices[start:end] + centres
            classes[group:last] = column
            group = last
        for variable, content in ((self.dual_values, values), (self.dual_videos, videos), (self.dual_classes, classes)):
            variable.assign(content)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        names = ("components", "centres", "duals_per_video")
        return super().get_config() | {name: getattr(self, name) for name in names}


def _centres_first(count: int, centres: int) -> np.ndarray:
    """Returns the order of the videos in memory: first an even sample, then the others."""
    first = np.linspace(0, count, centres, endpoint=False).astype(np.int64)
    return np.concatenate([first, np.setdiff1d(np.arange(count), first)])


def _principal_components(points: np.ndarray, number: int) -> np.ndarray:
    """Returns the first principal components of points [M, D], [D, number]; they are not centred again."""
    _, vectors = np.linalg.eigh((points.T.copy() @ points).astype(np.float64))
    return vectors[:, ::-1][:, :number]


def _float16(values: np.ndarray) -> np.ndarray:
    """Rounds to float16; the result is float32 again.

    Raises:
      numpy.linalg.LinAlgError: a value is not finite, or too large.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise np.linalg.LinAlgError("duals are too large for float16")
    return rounded
