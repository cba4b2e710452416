"""Preprocessing of clips (`PreprocessingConfig`), for a whole padded batch at once. Nothing here is random.

The features of a frame are decoded and concatenated to one vector, so a clip is a matrix, n x D. Its singular values
come from the eigenvalues of its n x n Gram matrix: n is 303 at most, D 1152.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from yt8m_tf.config.frames import PreprocessingConfig
from yt8m_tf.data.sampling import length_of

# Rounding (float32 Gram matrices) turns singular values of zero into about 3e-4 of the largest.
_SMALLEST_SINGULAR_VALUE = 1e-3


def preprocess(
    features: Mapping[str, tf.Tensor], num_frames: tf.Tensor, config: PreprocessingConfig
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Computes new frames from those of every clip.

    Args:
      features: feature to [B, T, D] float32, decoded; finite in the padding too.
      num_frames: [B] int32, at most T. A clip without frames counts as a single frame of padding.
      config: what to compute.

    Returns:
      Feature to [B, S, D] float32, with S at most `config.longest(T)`, zero after a clip's end. Then the number of
      frames, [B] int32, at least 1.
    """
    num_frames = tf.maximum(num_frames, 1)
    clips = tf.concat(list(features.values()), axis=2)  # [B, T, D] of all features
    clips *= frame_weights(num_frames, clips)
    if config.name == "singular_vectors":
        clips, num_frames = singular_vectors(clips, num_frames, config.count)
    elif config.name == "moving_average":
        clips = subtract_moving_average(clips, num_frames, config.window)
    elif config.name == "high_pass":
        clips, num_frames = high_pass(clips, num_frames)
    elif config.name == "robust_pca":
        low_rank, sparse = robust_pca(clips, num_frames, config.iterations)
        clips = low_rank if config.part == "low_rank" else sparse
    clips *= frame_weights(num_frames, clips)
    parts = tf.split(clips, [frames.shape[2] for frames in features.values()], axis=2)
    return dict(zip(features, parts, strict=True)), num_frames


def frame_weights(num_frames: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    """Returns 1 for the frames of a clip and 0 for padding, [B, T, 1] float32."""
    return tf.sequence_mask(num_frames, length_of(frames), tf.float32)[:, :, None]


def singular_vectors(clips: tf.Tensor, num_frames: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the right singular vectors of each clip, in descending order of singular values.

    The sign is chosen so that a vector's component of largest magnitude is positive. A clip has as many vectors as
    singular values above 1e-3 of its largest, but at most `count`. If frames repeat, these are fewer than its frames.

    Args:
      clips: [B, T, D] float32, zero after a clip's end.
      num_frames: [B] int32, from 1.
      count: the most vectors to compute.

    Returns:
      Unit vectors [B, min(T, count), D], undefined beyond a clip's number of vectors; and that number, [B] int32.
    """
    count = length_of(clips[:, :count])
    values, left = tf.linalg.eigh(tf.matmul(clips, clips, transpose_b=True))  # [B, T] ascending, [B, T, T]
    left = tf.reverse(left, axis=[2])[:, :, :count]
    vectors = tf.math.l2_normalize(tf.matmul(left, clips, transpose_a=True), axis=2)  # [B, count, D]
    largest = tf.argmax(tf.abs(vectors), axis=2)[:, :, None]  # [B, count, 1]
    vectors *= tf.sign(tf.gather(vectors, largest, batch_dims=2))
    is_vector = values > _SMALLEST_SINGULAR_VALUE**2 * values[:, -1:]
    rank = tf.reduce_sum(tf.cast(is_vector, tf.int32), axis=1)
    return vectors, tf.clip_by_value(rank, 1, tf.minimum(num_frames, count))


def subtract_moving_average(clips: tf.Tensor, num_frames: tf.Tensor, window: int) -> tf.Tensor:
    """Subtracts from each frame the mean of a window: window // 2 frames before it, itself, and the rest after it.

    At the ends of a clip, the mean is over the frames of the window that exist.

    Args:
      clips: [B, T, D] float32, zero after a clip's end.
      num_frames: [B] int32, from 1.
      window: in frames.

    Returns:
      [B, T, D]; a clip of one frame is zero.
    """

    def pool(values: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(values, [[0, 0], [window // 2, (window - 1) // 2], [0, 0]])
        return tf.nn.avg_pool1d(padded, window, strides=1, padding="VALID")

    share = pool(frame_weights(num_frames, clips))  # of the window that is in the clip
    return clips - tf.math.divide_no_nan(pool(clips), share)


def daubechies_3_high_pass() -> list[float]:
    """Returns the analysis high-pass filter of the Daubechies wavelet with three vanishing moments, six coefficients.

    They are in closed form, with the sum of the low-pass filter normalised to the square root of 2. Order and signs are
    those of PyWavelets' `Wavelet("db3").dec_hi`.

    Reference: Daubechies, "Ten Lectures on Wavelets", https://doi.org/10.1137/1.9781611970104, section 6.4.
    """
    root = math.sqrt(10.0)
    outer = math.sqrt(5.0 + 2.0 * root)
    low_pass = (
        1.0 + root + outer,
        5.0 + root + 3.0 * outer,
        10.0 - 2.0 * root + 2.0 * outer,
        10.0 - 2.0 * root - 2.0 * outer,
        5.0 + root - 3.0 * outer,
        1.0 + root - outer,
    )
    return [(-1) ** (k + 1) * value / (16.0 * math.sqrt(2.0)) for k, value in enumerate(low_pass)]


def high_pass(clips: tf.Tensor, num_frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the detail coefficients of one level of the Daubechies-3 wavelet transform along time.

    Frame m of the result is the sum over k of filter[k] * clip[2m + 1 - k]. The clip is mirrored at its ends (its first
    and last frame occur twice). This is the second output of PyWavelets' `dwt(clip, "db3", "symmetric", axis=0)`.

    Args:
      clips: [B, T, D] float32.
      num_frames: n, [B] int32, from 1.

    Returns:
      [B, (T + 5) // 2, D], and (n + 5) // 2, [B]. A clip of one frame is zero.
    """
    taps = daubechies_3_high_pass()
    count = (length_of(clips) + len(taps) - 1) // 2
    first = 2 - len(taps)  # the earliest frame needed, before the clip's start
    period = 2 * num_frames[:, None]
    index = tf.math.floormod(tf.range(first, 2 * count)[None, :], period)  # [B, 2 * count - first]
    mirrored = tf.gather(clips, tf.minimum(index, period - 1 - index), batch_dims=1)
    # As images of one channel: faster than six shifted sums without XLA (docs/BENCHMARKS.md).
    kernel = tf.reshape(tf.constant(taps[::-1]), [len(taps), 1, 1, 1])
    details = tf.nn.conv2d(mirrored[..., None], kernel, strides=[2, 1], padding="VALID")
    return details[..., 0], (num_frames + len(taps) - 1) // 2


def robust_pca(clips: tf.Tensor, num_frames: tf.Tensor, iterations: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits each clip into a low-rank and a sparse matrix, by principal component pursuit.

    Reference: Candès, Li, Ma, Wright, "Robust Principal Component Analysis?", https://arxiv.org/abs/0912.3599,
    Algorithm 1 (alternating directions) with the constants named there. It stops after `iterations`, before it
    converges, so the two parts do not quite add up to the clip.

    Args:
      clips: M, [B, T, D] float32, zero after a clip's end.
      num_frames: n, [B] int32, from 1.
      iterations: number of iterations; each needs the eigenvalues of a T x T matrix for every clip
        (docs/BENCHMARKS.md).

    Returns:
      The low-rank and the sparse part, [B, T, D] each.
    """
    size = tf.cast(clips.shape[2], tf.float32)
    frames = tf.cast(num_frames, tf.float32)[:, None, None]  # [B, 1, 1]
    norm = tf.reduce_sum(tf.abs(clips), axis=[1, 2], keepdims=True)
    mu = frames * size / tf.maximum(4.0 * norm, 1e-12)
    shrinkage = 1.0 / (mu * tf.sqrt(tf.maximum(frames, size)))

    def step(_: tf.Tensor, sparse: tf.Tensor, dual: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        low_rank = _shrink_singular_values(clips - sparse + dual / mu, 1.0 / mu)
        rest = clips - low_rank + dual / mu
        sparse = tf.sign(rest) * tf.maximum(tf.abs(rest) - shrinkage, 0.0)
        return low_rank, sparse, dual + mu * (clips - low_rank - sparse)

    zeros = tf.zeros_like(clips)
    low_rank, sparse, _ = tf.while_loop(lambda *_: True, step, (zeros, zeros, zeros), maximum_iterations=iterations)
    return low_rank, sparse


def _shrink_singular_values(matrices: tf.Tensor, threshold: Any) -> tf.Tensor:
    """Lowers singular values by `threshold` [B, 1, 1], but not below zero: [B, T, D] -> [B, T, D]."""
    values, left = tf.linalg.eigh(tf.matmul(matrices, matrices, transpose_b=True))  # [B, T], [B, T, T]
    singular = tf.sqrt(tf.maximum(values, 0.0))[:, None, :]
    factors = tf.math.divide_no_nan(tf.maximum(singular - threshold, 0.0), singular)  # [B, 1, T]
    return tf.matmul(tf.matmul(left * factors, left, transpose_b=True), matrices)
