"""Kernel ridge regression on a memory of videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from yt8m_tf.console.progress import Progress
from yt8m_tf.layers import kernel_solve
from yt8m_tf.layers.directions import SAME, directions, fill_directions, mean_of

# Initial values of a, c, b, d, e, and the offset: those of 28,800 videos of YouTube-8M, rounded.
_START = {
    "gain": 2.0,
    "log_gain": 3.0,
    "prior_gain": 0.1,
    "prior_log_gain": 0.1,
    "prior_scale": -0.65,
    "offset": -16.0,
}

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class KernelRidge(keras.layers.Layer):
    """Kernel ridge regression of the labels on features: scores [B, C] of features [B, D'].

    The mean of the remembered videos is subtracted from each feature, which is then normalised to length 1 and
    multiplied by its share; x [D] has all features. With the kernel k(x, z) = exp(-gamma / 2 * |x - z|^2), its matrix
    K [M, M] of the remembered videos, and their labels T [M, C], 0 or 1, the duals are W = (K + ridge I)^-1 T, and the
    scores of x are k(x, memory) W, mostly between 0 and 1. They are the posterior means of Gaussian processes with this
    kernel and noise of variance `ridge` (C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning",
    2006, section 2.2).

    In training, the score of a video that is in the memory is what it would be without the video: with
    c_i = 1 / [(K + ridge I)^-1]_ii - ridge, its own dual W_i has the kernel value k - c_i (section 5.4.2).

    Nothing is trained by gradients: `remember` sets all weights. A video takes 2 N (D + C) FLOP: 0.35 GFLOP for
    N = 35,000, D = 1152 and C = 3862.

    Args:
      num_classes: C.
      capacity: N, the most videos that are remembered.
      shares: the length of each feature; its squared differences count with the square.
      gamma: the kernel is narrower if this is higher.
      ridge: the variance of noise in the labels; higher values make scores smoother.
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
        *,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes, self.capacity = num_classes, capacity
        self.shares, self.gamma, self.ridge = tuple(shares), gamma, ridge

    def build(self, features_shape: Sequence[Shape]) -> None:
        """Creates an empty memory, whose scores are 0 for every class."""
        sizes = [shape[-1] or 0 for shape in features_shape]
        self._scales = np.repeat(np.array(self.shares, "float32"), sizes)
        self.means = self._constant("means", sum(sizes))
        self.keys = self._constant("keys", self.capacity, self._key_size(sum(sizes)))
        self.own = self._constant("own", self.capacity)  # c, what a video's own kernel value loses in training
        self._build_duals()

    def _key_size(self, features_size: int) -> int:
        """Returns the number of values of a key."""
        return features_size

    def _build_duals(self) -> None:
        """Creates what else is stored."""
        self.duals = self._constant("duals", self.capacity, self.num_classes)

    def _constant(self, name: str, *shape: int, dtype: str = "float32") -> keras.Variable:
        """Creates a variable that only `remember` sets."""
        return self.add_weight(shape=shape, initializer="zeros", dtype=dtype, trainable=False, name=name)

    def call(self, features: Sequence[Any], training: bool = False) -> Any:
        """Computes the scores.

        Args:
          features: [B, D'] each.
          training: whether to score a video that is in the memory as if it were not.

        Returns:
          [B, C]; 0 far from all remembered videos.
        """
        queries = directions(features, self.means) * self._scales  # [B, D]
        kernel = kernel_values(queries, self.keys, self.gamma, self.own if training else None)  # [B, N]
        return tf.matmul(kernel, self.duals)  # empty rows have duals 0

    def remember(self, features: Sequence[np.ndarray], labels: Sequence[np.ndarray], progress: bool = False) -> None:
        """Fills the memory: solves for the duals, which takes minutes for tens of thousands of videos.

        Args:
          features: [M, D'] each, of M videos, at most the capacity.
          labels: the class ids of each video.
          progress: whether to show a progress bar.

        Raises:
          numpy.linalg.LinAlgError: the ridge is too small for float32.
        """
        self.means.assign(mean_of(features))
        count = len(labels)
        keys = np.zeros(self.keys.shape, "float32")
        fill_directions(keys, features, self.means)
        keys *= self._scales
        duals, own = np.zeros(self.duals.shape, "float32"), np.zeros(self.capacity)
        for row, ids in zip(duals, labels, strict=False):
            row[ids] = 1.0
        steps = 5 * -(-count // kernel_solve.BLOCK)
        with Progress(total=steps, desc="kernel ridge", unit=" blocks", leave=False, disable=not progress) as bar:
            kernel = kernel_solve.gaussian_kernel(keys[:count], self.gamma, self.ridge, advance=bar.update)
            inverses = kernel_solve.factorise(kernel, advance=bar.update)
            kernel_solve.solve(kernel, inverses, duals[:count], bar.update)
            own[:count] = 1 / kernel_solve.inverse_diagonal(kernel, inverses, bar.update) - self.ridge
        for variable, values in ((self.keys, keys), (self.duals, duals), (self.own, own)):
            variable.assign(values)

    def compute_output_shape(self, features_shape: Sequence[Shape]) -> Shape:
        """[B, C]."""
        return (features_shape[0][0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        names = ("num_classes", "capacity", "shares", "gamma", "ridge")
        return super().get_config() | {name: getattr(self, name) for name in names}


def kernel_values(queries: Any, keys: Any, gamma: float, own: Any = None) -> Any:
    """Computes the Gaussian kernel of queries [B, D] and keys [N, D], [B, N].

    Args:
      queries: float32.
      keys: float32.
      gamma: the kernel is exp(-gamma / 2 * squared distance).
      own: [N], what is subtracted where query and key are the same video; None: nothing.
    """
    keys = ops.convert_to_tensor(keys)
    squares = ops.sum(ops.square(queries), axis=1, keepdims=True)  # [B, 1]
    distances = squares + ops.sum(ops.square(keys), axis=1) - 2 * tf.matmul(queries, keys, transpose_b=True)
    kernel = ops.exp(-gamma / 2 * ops.maximum(distances, 0.0))
    if own is not None:
        kernel -= ops.where(distances < SAME * squares, own, 0.0)
    return kernel


@keras.saving.register_keras_serializable(package="yt8m_tf")
class ScoreCalibration(keras.layers.Layer):
    """Maps scores f [B, C] to logits: (a + b p) f + (c + d p) g + e p + offset, with p [C] the prior's log-odds.

    g = log(max(f, floor) / floor) is 0 for scores up to the floor, below which they are noise. The six numbers are
    trained, and the same for all classes; p is constant (`registry.set_output_bias`). They start near those of
    YouTube-8M, so that a few dozen steps suffice.

    Args:
      floor: see above.
      start: initial values: `gain` a, `prior_gain` b, `log_gain` c, `prior_log_gain` d, `prior_scale` e and `offset`;
        None: those of `KernelRidge`.
      dtype: float32 by default, even with mixed precision: scores of rare classes are small.
      **kwargs: arguments of every layer: name.
    """

    def __init__(
        self,
        floor: float = 3e-3,
        start: Mapping[str, float] | None = None,
        *,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.floor, self.start = floor, dict(start or _START)

    def build(self, scores_shape: Shape) -> None:
        """Creates p, as `bias`, and the numbers that are trained."""
        self.bias = self.add_weight(shape=scores_shape[-1:], initializer="zeros", trainable=False, name="bias")
        for name, start in self.start.items():
            initializer = keras.initializers.Constant(start)
            setattr(self, name, self.add_weight(shape=(), initializer=initializer, name=name))

    def call(self, scores: Any) -> Any:
        """Maps [B, C] scores to [B, C] logits."""
        prior = ops.convert_to_tensor(self.bias)
        logarithm = ops.log(ops.maximum(scores, self.floor) / self.floor)
        linear = (self.gain + self.prior_gain * prior) * scores
        return (
            linear + (self.log_gain + self.prior_log_gain * prior) * logarithm + self.prior_scale * prior + self.offset
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"floor": self.floor, "start": self.start}
