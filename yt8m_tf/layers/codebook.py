"""Frames replaced with the nearest of a fixed set of centroids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class Codebook(keras.layers.Layer):
    """The mean, over a clip's frames, of each frame's nearest centroid: features [B, T, D'] and a mask to [B, D].

    The features of a frame are concatenated, D = the sum of D', and compared with all K centroids by one matrix
    product: |x - c|^2 is least where x.c - |c|^2 / 2 is greatest. Of equally near centroids, the first one counts.
    Training does not change the centroids, and no gradient flows through the choice.

    Clips are processed one at a time to save memory. The products of a clip, [T, K], take 12 MB for 303 frames and
    10,000 centroids; those of a batch of 512 clips would take 6.2 GB. Concatenating features clip by clip also avoids
    a second copy of the batch (0.7 GB). The chosen centroids are gathered and averaged: a histogram of the clip's
    clusters times the centroids would give the same mean with K / T times the arithmetic.

    Args:
      num_clusters: K.
      dtype: float32 by default, even with mixed precision: rounded products would choose other centroids.
      **kwargs: arguments of every layer: name.
    """

    def __init__(self, num_clusters: int, *, dtype: str = "float32", **kwargs: Any) -> None:
        if num_clusters < 1:
            raise ValueError(f"Codebook: num_clusters must be at least 1, got {num_clusters}")
        super().__init__(dtype=dtype, **kwargs)
        self.num_clusters = num_clusters

    def build(self, frames_shape: Sequence[Shape], frame_mask_shape: Shape) -> None:
        """Creates the centroids [K, D], random until those of `yt8m-kmeans` are assigned."""
        self.centroids = self.add_weight(
            shape=(self.num_clusters, _total_size(frames_shape)),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            trainable=False,
            name="centroids",
        )

    def call(self, frames: Sequence[Any], frame_mask: Any) -> Any:
        """Averages centroids.

        Args:
          frames: for each feature, in the order of the centroids' columns, [B, T, D']; padding must be finite, too.
          frame_mask: [B, T] bool, False for padding.

        Returns:
          [B, D]; zeros for a clip without frames.
        """
        centroids = ops.convert_to_tensor(self.centroids)  # [K, D]
        half_norms = ops.sum(ops.square(centroids), axis=1) / 2  # [K]
        real = ops.cast(frame_mask, centroids.dtype)
        weights = real / ops.maximum(ops.sum(real, axis=1, keepdims=True), 1)  # [B, T]

        def clip_mean(clip: tuple[Sequence[Any], Any]) -> Any:
            features, frame_weights = clip
            x = ops.concatenate(features, axis=-1)  # [T, D]
            nearness = tf.matmul(x, centroids, transpose_b=True) - half_norms  # [T, K]
            nearest = tf.gather(centroids, tf.argmax(nearness, axis=-1, output_type=tf.int32))  # [T, D]
            return tf.linalg.matvec(nearest, frame_weights, transpose_a=True)  # [D]

        result = tf.TensorSpec([centroids.shape[1]], centroids.dtype)
        # Without XLA, the default is ten clips in parallel, with ten times the memory.
        return tf.map_fn(clip_mean, (list(frames), weights), fn_output_signature=result, parallel_iterations=1)

    def compute_output_shape(self, frames_shape: Sequence[Shape], frame_mask_shape: Shape) -> Shape:
        """[B, D]."""
        return (frames_shape[0][0], _total_size(frames_shape))


def _total_size(shapes: Sequence[Shape]) -> int:
    return sum(shape[-1] or 0 for shape in shapes)
