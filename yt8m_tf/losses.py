"""Losses on logits. Targets lie in [0, 1] and may be soft."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def bce(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy.

    Args:
      logits: [B, C], any float type and any magnitude.
      targets: [B, C] in [0, 1].

    Returns:
      float32 scalar: the mean over batch and classes, in nats.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits))


Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# By their names in the configuration; each maps logits and targets, both [B, C], to a float32 scalar.
LOSSES: dict[str, Loss] = {"bce": bce}


def dense_targets(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Targets from lists of labels.

    Args:
      labels: [B, L] integers below C; negative ones are padding. A label may stand in a list more than once.
      num_classes: C.

    Returns:
      [B, C] float32 of zeros and ones.
    """
    batch_size, length = tf.unstack(tf.shape(labels))
    rows = tf.repeat(tf.range(batch_size), length)  # [B * L]
    flat = tf.reshape(tf.cast(labels, tf.int32), [-1])
    # Padding writes a zero, which a maximum ignores, so that it needs no column of its own to be cut off afterwards.
    indices = tf.stack([rows, tf.maximum(flat, 0)], axis=1)
    updates = tf.cast(flat >= 0, tf.float32)
    return tf.tensor_scatter_nd_max(tf.zeros([batch_size, num_classes]), indices, updates)
