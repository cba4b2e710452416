"""Perturbs a model's inputs in training, with noise and dropout; a student and its teacher get the same inputs."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


def disturb(inputs: Mapping[str, tf.Tensor], seed: tf.Tensor, noise: float, dropout: float) -> dict[str, tf.Tensor]:
    """Adds noise to features, then sets values to 0 independently.

    Args:
      inputs: decoded features, name to [B, D] or [B, T, D] float32; "num_frames" is not changed.
      seed: [2] integers; the same seed gives the same inputs.
      noise: standard deviation of the normal noise, 0 or more, in the units of the features.
      dropout: the share of values that become 0, in [0, 1); the others are divided by 1 - dropout.

    Returns:
      Inputs of the same shapes and dtypes.
    """
    disturbed = dict(inputs)
    for number, (name, values) in enumerate(inputs.items()):
        if name == "num_frames":
            continue
        noise_seed, dropout_seed = tf.unstack(
            tf.random.split(tf.random.experimental.stateless_fold_in(seed, number), 2)
        )
        if noise:
            values += tf.random.stateless_normal(tf.shape(values), noise_seed, stddev=noise)
        if dropout:
            values = tf.nn.experimental.stateless_dropout(values, dropout, dropout_seed)
        disturbed[name] = values
    return disturbed
