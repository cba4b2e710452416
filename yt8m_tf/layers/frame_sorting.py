"""Frame scores sorted over time for each class, and the small network applied along their ranks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from yt8m_tf.layers import blocks
from yt8m_tf.layers.frame_batch_norm import sum_over_replicas, update_running_averages
from yt8m_tf.layers.recomputation import map_recomputed

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="yt8m_tf")
class SortedFrames(keras.layers.Layer):
    """Sorts each class's scores over the real frames in descending order, followed by zeros.

    It also computes the mean and the covariance of the sorted rows over the classes of each clip, which are all that
    `RankDenseNormalization` needs. Clips are processed one at a time, so only the scores, the sorted scores and, in
    training, the gradients of both are ever in memory in full.

    On a CPU, a model with this layer is not compiled by XLA: XLA's sort takes three times as long as TensorFlow's, and
    would take up most of a step (docs/BENCHMARKS.md).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = bool(tf.config.list_logical_devices("GPU"))

    def call(self, scores: Any, frame_mask: Any) -> tuple[Any, Any, Any]:
        """Sorts scores.

        Args:
          scores: [B, T, C].
          frame_mask: [B, T] bool, False for padding.

        Returns:
          [B, C, T] sorted scores; [B, T] means and [B, T, T] covariances over classes, float32.
        """
        dtypes = (scores.dtype, tf.float32, tf.float32)
        sorted_scores, means, covariances = map_recomputed(_sorted_clip, (scores, frame_mask), (), dtypes)
        return sorted_scores, means, covariances

    def compute_output_shape(self, scores_shape: Shape, frame_mask_shape: Shape) -> tuple[Shape, Shape, Shape]:
        """[B, C, T], [B, T] and [B, T, T]."""
        batch, length, classes = scores_shape
        return (batch, classes, length), (batch, length), (batch, length, length)


def _sorted_clip(scores: Any, real: Any) -> tuple[Any, Any, Any]:
    """Computes `SortedFrames` of one clip: [T, C] and [T] to [C, T], [T] and [T, T]."""
    length = scores.shape[0] or tf.shape(scores)[0]
    keys = tf.where(real[:, None], scores, scores.dtype.min)
    ranked = tf.math.top_k(tf.transpose(keys), k=length).values  # [C, T]
    is_frame = tf.range(length) < tf.reduce_sum(tf.cast(real, tf.int32))
    ranked = tf.where(is_frame, ranked, tf.zeros_like(ranked))
    values = tf.cast(ranked, tf.float32)
    mean = tf.reduce_mean(values, axis=0)
    centred = values - mean
    return ranked, mean, tf.matmul(centred, centred, transpose_a=True) / tf.cast(tf.shape(values)[0], tf.float32)


@keras.saving.register_keras_serializable(package="yt8m_tf")
class RankDenseNormalization(keras.layers.BatchNormalization):
    """Dense(H) along the ranks of sorted scores and its batch normalisation, as one affine map.

    If x has mean m and covariance S, its linear map W'x has mean W'm and variance diag(W'SW). So the statistics over
    all clips and classes follow from those of the sorted scores, without the [B, C, H] outputs (2 GB at B = 128,
    C = 3862 and H = 1000). The Dense has no bias, see `blocks.fc_block`. Clips count as padded with zeros to
    `max_frames`.

    Args:
      units: H.
      max_frames: rows of the kernel.
      dtype: float32 by default, even with mixed precision.
      **kwargs: arguments of `keras.layers.BatchNormalization`.
    """

    def __init__(self, units: int, max_frames: int, *, dtype: str = "float32", **kwargs: Any) -> None:
        for argument, value in (("units", units), ("max_frames", max_frames)):
            if value < 1:
                raise ValueError(f"RankDenseNormalization: {argument} must be at least 1, got {value}")
        super().__init__(dtype=dtype, **kwargs)
        self.units = units
        self.max_frames = max_frames

    def build(self, means_shape: Shape, covariances_shape: Shape) -> None:
        """Creates the kernel [max_frames, H], and gamma, beta and the running averages, [H] each."""
        self.kernel = self.add_weight(
            shape=(self.max_frames, self.units), initializer=blocks.kernel_initializer(), name="kernel"
        )
        super().build((None, self.units))
        self.input_spec = None  # the input is not what is normalised

    def call(self, means: Any, covariances: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Computes the affine map.

        Args:
          means: [B, T] of the sorted scores over classes, T up to `max_frames`.
          covariances: [B, T, T].
          training: whether to use the statistics of these scores, and to add them to the running averages.

        Returns:
          The kernel [T, H] and bias [H] of the map.
        """
        kernel = self.kernel[: ops.shape(means)[1]]
        if training and self.trainable:
            # Every clip has the same number of classes, hence the same weight.
            clips = sum_over_replicas(self, ops.sum(ops.ones_like(means[:, 0])))
            mean = sum_over_replicas(self, ops.sum(means, axis=0)) / clips  # [T]
            within = sum_over_replicas(self, ops.sum(covariances, axis=0)) / clips
            deviations = means - mean
            between = sum_over_replicas(self, ops.matmul(ops.transpose(deviations), deviations)) / clips  # [T, T]
            mean, variance = ops.matmul(mean, kernel), ops.sum(kernel * ops.matmul(within + between, kernel), axis=0)
            update_running_averages(self, mean, variance)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)  # [H]
        return kernel * scale, self.beta - mean * scale

    def compute_output_shape(self, means_shape: Shape, covariances_shape: Shape) -> tuple[Shape, Shape]:
        """[T, H] and [H]."""
        return (means_shape[1], self.units), (self.units,)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor; `BatchNormalization` lists only its own."""
        return super().get_config() | {"units": self.units, "max_frames": self.max_frames}


@keras.saving.register_keras_serializable(package="yt8m_tf")
class RankScores(keras.layers.Layer):
    """The rest of the network along ranks: leaky ReLU of the affine map, dropout, Dense(1); [B, C, T] to [B, C].

    Clips are processed one at a time, and recomputed in the backward pass, so only one clip's hidden layer, [C, H], is
    ever in memory.

    Args:
      dropout: rate on the hidden layer, in [0, 1).
      **kwargs: arguments of every layer: name (a model's last layer is called "logits"), trainable.
    """

    def __init__(self, dropout: float = 0.0, **kwargs: Any) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"RankScores: dropout must lie in [0, 1), got {dropout}")
        # Inputs and weights are not cast: only the large product has the precision of the scores.
        super().__init__(**kwargs | {"dtype": "float32", "autocast": False})
        self.dropout = dropout
        self.seed_generator = keras.random.SeedGenerator() if dropout else None

    def build(self, sorted_scores_shape: Shape, kernel_shape: Shape, bias_shape: Shape) -> None:
        """Creates the kernel [H, 1] and the bias [1] of the Dense(1)."""
        size = kernel_shape[-1]
        assert size is not None
        self.kernel = self.add_weight(shape=(size, 1), initializer=blocks.kernel_initializer(), name="kernel")
        self.bias = self.add_weight(shape=(1,), initializer=blocks.bias_initializer(size), name="bias")

    def call(self, sorted_scores: Any, kernel: Any, bias: Any, training: bool | None = None) -> Any:
        """Computes logits.

        Args:
          sorted_scores: [B, C, T].
          kernel, bias: [T, H] and [H], of the affine map.
          training: whether to apply dropout.
        """
        rate = self.dropout if training else 0.0
        rows = [sorted_scores]
        if rate and self.seed_generator is not None:
            seed = tf.cast(self.seed_generator.next(), tf.int32)
            rows.append(tf.random.split(seed, tf.shape(sorted_scores)[0]))  # [B, 2]

        def clip_scores(scores: Any, *rest: Any) -> tuple[Any]:
            *seeds, kernel, bias, last_kernel = rest
            hidden = tf.cast(tf.matmul(scores, tf.cast(kernel, scores.dtype)), tf.float32) + bias  # [C, H]
            hidden = tf.nn.leaky_relu(hidden, blocks.NEGATIVE_SLOPE)
            if seeds:
                kept = tf.random.stateless_uniform(tf.shape(hidden), seeds[0]) >= rate
                hidden = tf.where(kept, hidden / (1 - rate), tf.zeros_like(hidden))
            return (tf.matmul(hidden, last_kernel)[:, 0],)

        return map_recomputed(clip_scores, rows, (kernel, bias, self.kernel), (tf.float32,))[0] + self.bias

    def compute_output_shape(self, sorted_scores_shape: Shape, kernel_shape: Shape, bias_shape: Shape) -> Shape:
        """[B, C]."""
        return sorted_scores_shape[:2]
