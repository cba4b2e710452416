"""Candidate classes and their features, computed in a graph as stacking computes them from stored scores.

Stacking learns from float16 probabilities of each model's highest classes. To give the same results, a graph must round
and truncate in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from yt8m_tf import schema


def ranking_keys(probabilities: tf.Tensor) -> tf.Tensor:
    """Returns integers in the order in which shards rank scores: [B, C] int32.

    The upper half has the bits of the float16 score, which order as the scores because none is negative; the lower half
    has the complement of the class id. Rounding comes before ranking, so scores that are equal in float16 rank by class
    id, lowest first.

    Args:
      probabilities: [B, C] in [0, 1], float32; NaN ranks highest.
    """
    bits = tf.cast(tf.bitcast(tf.abs(tf.cast(probabilities, tf.float16)), tf.uint16), tf.int32)
    return tf.bitwise.left_shift(bits, 16) + (schema.MAX_STORED_CLASSES - 1 - tf.range(tf.shape(probabilities)[1]))


def stored_list(probabilities: tf.Tensor, top_k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the scores of videos as a score shard stores them.

    Args:
      probabilities: [B, C] float32.
      top_k: K, at most C.

    Returns:
      Class ids [B, K] int32 and scores [B, K], float16 values in float32; highest first, equal ones by class id.
    """
    keys, _ = tf.math.top_k(ranking_keys(probabilities), top_k)
    scores = tf.bitcast(tf.cast(tf.bitwise.right_shift(keys, 16), tf.uint16), tf.float16)
    return schema.MAX_STORED_CLASSES - 1 - (keys & (schema.MAX_STORED_CLASSES - 1)), tf.cast(scores, tf.float32)


def candidate_rows(lists: Sequence[tf.Tensor], num_classes: int) -> tf.Tensor:
    """Returns the classes that are on at least one list.

    Args:
      lists: [B, k] int32 class ids.
      num_classes: C.

    Returns:
      [R, 2] int64: index of the video and class id, ascending.
    """
    chosen = tf.zeros([tf.shape(lists[0])[0], num_classes], tf.int32)
    for classes in lists:
        chosen = tf.tensor_scatter_nd_max(chosen, _places(classes), tf.ones_like(classes))
    return tf.where(chosen > 0)


def candidate_features(
    lists: Sequence[tuple[tf.Tensor, tf.Tensor]], rows: tf.Tensor, num_classes: int, ranks: bool, aggregates: bool
) -> tf.Tensor:
    """Returns the features of candidates, as `stacking.features` computes them.

    Args:
      lists: for each model, the result of `stored_list`.
      rows: see `candidate_rows`.
      num_classes: C.
      ranks, aggregates: which columns to add, see `StackConfig`.

    Returns:
      [R, 1 + F] float32: the class id; each model's score, NaN where it does not list the class; with `ranks`, the
      ranks in the models' lists, from 1; with `aggregates`, mean and maximum of the scores, and how many models list
      the class.
    """
    scores = [_looked_up(classes, values, rows, num_classes) for classes, values in lists]
    columns = [tf.cast(rows[:, 1], tf.float32), *scores]
    if ranks:
        for classes, values in lists:
            numbers = tf.broadcast_to(tf.range(1, values.shape[1] + 1, dtype=tf.float32), tf.shape(values))
            columns.append(_looked_up(classes, numbers, rows, num_classes))
    if aggregates:
        listed = [~tf.math.is_nan(score) for score in scores]
        filled = [tf.where(known, score, 0.0) for known, score in zip(listed, scores, strict=True)]
        total, highest = filled[0], filled[0]
        for score in filled[1:]:  # NumPy adds in this order
            total, highest = total + score, tf.maximum(highest, score)
        # In float64, because Grappler turns a float32 quotient into a product, which rounds differently.
        mean = tf.cast(tf.cast(total, tf.float64) / len(scores), tf.float32)
        count = tf.add_n([tf.cast(known, tf.float32) for known in listed])
        columns += [tf.cast(tf.cast(mean, tf.float16), tf.float32), highest, count]
    return tf.stack(columns, axis=1)


def _looked_up(classes: tf.Tensor, values: tf.Tensor, rows: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns the value of each row's class on its video's list, [R] float32; NaN if it is not listed."""
    table = tf.fill([tf.shape(classes)[0], num_classes], tf.constant(float("nan")))
    return tf.gather_nd(tf.tensor_scatter_nd_update(table, _places(classes), values), rows)


def _places(classes: tf.Tensor) -> tf.Tensor:
    """Puts the index of the video before each class id: [B, k] -> [B, k, 2] int32."""
    videos = tf.broadcast_to(tf.range(tf.shape(classes)[0])[:, None], tf.shape(classes))
    return tf.stack([videos, classes], axis=2)
