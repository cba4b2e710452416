"""Pooling of frames by clusters: soft assignments, VLAD and Fisher vectors.

No tensor of frames by clusters by features is made: sums over frames are matrix products.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from yt8m_tf.layers import blocks, masking

Shape = tuple[int | None, ...]


def l2_normalise(x: Any) -> Any:
    """Divides by the Euclidean norm along the last axis; norms below 1e-6 count as 1e-6, so zeros stay zeros."""
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, 1e-12))


def unit_descriptors(descriptors: Any, intra: bool = True) -> Any:
    """Concatenates the descriptors of clusters to one vector of length 1.

    Args:
      descriptors: [B, K, D].
      intra: whether to give each cluster's descriptor length 1 first, so that no cluster dominates
        (intra-normalisation).

    Returns:
      [B, K * D], in the order of the clusters.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> yt8m_tf.unit_descriptors(np.array([[[1.0, 0.0], [0.0, 2.0]]], "float32")).numpy().tolist()
      [[0.7071..., 0.0, 0.0, 0.7071...]]
    """
    if intra:
        descriptors = l2_normalise(descriptors)
    _, clusters, size = descriptors.shape
    return l2_normalise(ops.reshape(descriptors, (-1, clusters * size)))


def soft_assignment(
    frames: keras.KerasTensor, frame_mask: keras.KerasTensor, cluster_size: int, name: str
) -> keras.KerasTensor:
    """Assigns frames to clusters softly: softmax of a normalised linear map, [B, T, D] to [B, T, K].

    The rows of real frames sum to 1. Those of padding are zero, so padding does not count in sums over frames.

    Example:
      >>> import keras, yt8m_tf
      >>> frames, num_frames = keras.Input((None, 16)), keras.Input((), dtype="int32")
      >>> mask = yt8m_tf.sequence_mask(num_frames, frames)
      >>> yt8m_tf.soft_assignment(frames, mask, cluster_size=8, name="rgb").shape
      (None, None, 8)
    """
    scores = blocks.dense(frames, cluster_size, f"{name}_clusters_dense", use_bias=False)
    scores = blocks.frame_batch_norm(scores, frame_mask, f"{name}_clusters_bn")
    return masking.zero_padding(ops.softmax(scores, axis=-1), frame_mask)


class _ClusterPooling(keras.layers.Layer):
    """Base class of layers that pool frames by their cluster assignments."""

    def call(self, frames: Any, assignment: Any) -> Any:
        """Pools frames.

        Args:
          frames: [B, T, D]; padding must be finite, too.
          assignment: [B, T, K], zero in the padding.
        """
        raise NotImplementedError

    def _cluster_weights(self, name: str, frames_shape: Shape, assignment_shape: Shape, mean: float = 0.0) -> Any:
        size, clusters = frames_shape[-1], assignment_shape[-1]
        assert size is not None and clusters is not None
        initializer = keras.initializers.RandomNormal(mean, size**-0.5)
        return self.add_weight(shape=(clusters, size), initializer=initializer, name=name)


@keras.saving.register_keras_serializable(package="yt8m_tf")
class VLAD(_ClusterPooling):
    """Sums of residuals: for each cluster, sum over t of assignment[t] * (frame[t] - centre); [B, K, D].

    The centre's part is the sum of assignments times the centre, so the residuals themselves are never computed.

    Reference: NetVLAD, https://arxiv.org/abs/1511.07247; without centres NetRVLAD, https://arxiv.org/abs/1706.06905,
    which is also the source of the initial weights.

    Args:
      use_centres: whether to subtract learned centres.
      **kwargs: arguments of every layer: name, dtype, trainable.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> frames, assignment = np.ones((2, 5, 16), "float32"), np.full((2, 5, 8), 1 / 8, "float32")
      >>> yt8m_tf.VLAD()(frames, assignment).shape.as_list()
      [2, 8, 16]
    """

    def __init__(self, use_centres: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_centres = use_centres

    def build(self, frames_shape: Shape, assignment_shape: Shape) -> None:
        """Creates the centres [K, D], if they are used."""
        if self.use_centres:
            self.centres = self._cluster_weights("centres", frames_shape, assignment_shape)

    def call(self, frames: Any, assignment: Any) -> Any:
        """Maps [B, T, D] frames and their [B, T, K] assignment to [B, K, D]."""
        sums = ops.einsum("btk,btd->bkd", assignment, frames)
        if not self.use_centres:
            return sums
        return sums - ops.sum(assignment, axis=1)[:, :, None] * self.centres

    def compute_output_shape(self, frames_shape: Shape, assignment_shape: Shape) -> Shape:
        """[B, K, D]."""
        return (frames_shape[0], assignment_shape[-1], frames_shape[-1])


@keras.saving.register_keras_serializable(package="yt8m_tf")
class FisherVectors(_ClusterPooling):
    """Fisher vectors of first and second order, two tensors [B, K, D].

    With r[t] = (frame[t] - centre) / sigma, they are for each cluster the sums over t of assignment[t] * r[t] and of
    assignment[t] * (r[t] ** 2 - 1). Both follow from the sums of assignments, frames and squared frames. To stay
    positive, sigma is scale ** 2 + 1e-6, where scale is a weight.

    Reference: NetFV, https://arxiv.org/abs/1706.06905, and its code at https://github.com/antoine77340/Youtube-8M-WILLOW.
    That code has an option to use a hundredth of the assignment's kernel as the centres; here they are separate
    weights, as in its best NetFV.

    Args:
      dtype: float32 by default, even with mixed precision: the second order is a small difference of large sums.
      **kwargs: arguments of every layer: name, trainable.

    Example:
      >>> import numpy as np, yt8m_tf
      >>> frames, assignment = np.ones((2, 5, 16), "float32"), np.full((2, 5, 8), 1 / 8, "float32")
      >>> first, second = yt8m_tf.FisherVectors()(frames, assignment)
      >>> first.shape.as_list(), second.shape.as_list()
      ([2, 8, 16], [2, 8, 16])
    """

    def __init__(self, *, dtype: str = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def build(self, frames_shape: Shape, assignment_shape: Shape) -> None:
        """Creates centres and scales, both [K, D]."""
        self.centres = self._cluster_weights("centres", frames_shape, assignment_shape)
        self.scales = self._cluster_weights("scales", frames_shape, assignment_shape, mean=1.0)

    def call(self, frames: Any, assignment: Any) -> tuple[Any, Any]:
        """Maps [B, T, D] frames and their [B, T, K] assignment to both orders, [B, K, D] each."""
        sigma = ops.square(self.scales) + 1e-6  # [K, D]
        weight = ops.sum(assignment, axis=1)[:, :, None]  # [B, K, 1]
        sums = ops.einsum("btk,btd->bkd", assignment, frames)
        sums_of_squares = ops.einsum("btk,btd->bkd", assignment, ops.square(frames))
        first = (sums - weight * self.centres) / sigma
        deviations = sums_of_squares - 2 * self.centres * sums + weight * ops.square(self.centres)
        return first, deviations / ops.square(sigma) - weight

    def compute_output_shape(self, frames_shape: Shape, assignment_shape: Shape) -> tuple[Shape, Shape]:
        """[B, K, D], twice."""
        shape = (frames_shape[0], assignment_shape[-1], frames_shape[-1])
        return shape, shape
