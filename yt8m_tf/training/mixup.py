"""Mixup: training on convex combinations of pairs of examples.

Reference: "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412. There a batch has one weight;
here every example has its own. The partner of an example comes from the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from yt8m_tf.layers import masking


def draw_weights(seed: tf.Tensor, batch_size: int, alpha: float) -> tf.Tensor:
    """Draws each example's weight from Beta(alpha, alpha). Call it outside XLA, which has no kernel for it.

    Args:
      seed: [2] integers; the same seed gives the same weights. Fold step and replica into it.
      batch_size: B.
      alpha: > 0.

    Returns:
      [B] float32 in [0, 1].
    """
    gamma_seed, uniform_seed = tf.unstack(tf.random.split(seed, 2))
    # X / (X + Y) of two Gamma(alpha) variables. For small alpha both can be 0 in float32, so we draw them as
    # Gamma(alpha + 1) * U ** (1 / alpha), which has the same distribution, and compute in log space.
    gamma = tf.random.stateless_gamma([2, batch_size], gamma_seed, alpha=alpha + 1.0)
    uniform = tf.random.stateless_uniform([2, batch_size], uniform_seed)  # below 1, hence log(1 - uniform)
    log_x, log_y = tf.unstack(tf.math.log(gamma) + tf.math.log1p(-uniform) / alpha)
    return tf.sigmoid(log_x - log_y)


def mix(
    inputs: Mapping[str, tf.Tensor], targets: tf.Tensor, weights: tf.Tensor
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Mixes every example with the one before it, the first with the last: weight * own + (1 - weight) * other.

    Clips are mixed frame by frame, and the mixed clip is as long as the longer one. The shorter clip counts as zeros
    after its end, where the frames of the longer clip are only scaled by its weight.

    Args:
      inputs: feature to [B, D] or, decoded, [B, T, D] float32; "num_frames": [B] integers, with clips.
      targets: [B, C] float32.
      weights: [B] float32 in [0, 1], from `draw_weights`.

    Returns:
      Inputs and targets of the same shapes and dtypes. Padding of mixed clips is zero.
    """
    mixed = {}
    for name, values in inputs.items():
        if name == "num_frames":
            mixed[name] = tf.maximum(values, tf.roll(values, 1, axis=0))
        elif values.shape.rank == 3:
            values = masking.zero_padding(values, masking.clip_mask(inputs))
            mixed[name] = mix_rows(values, weights[:, None, None])
        else:
            mixed[name] = mix_rows(values, weights[:, None])
    return mixed, mix_rows(targets, weights[:, None])


def mix_rows(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns weight * row + (1 - weight) * previous row, for values [B, ...] and weights [B, 1, ...]."""
    return weights * values + (1.0 - weights) * tf.roll(values, 1, axis=0)
