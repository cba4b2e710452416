"""Losses over pairs of a positive and a negative score, and weights by rank, in bounded memory.

They compare the scores of a whole batch; with gradient accumulation or several replicas, those of each part of the
batch. An output is positive (`losses.positives`), negative, or unknown; unknown outputs are not compared. A positive is
compared only with the highest negatives.

The number of positives is not bounded: they are gathered at the front of a list, which a loop processes in chunks. A
chunk yields its loss and gradient together, so only one chunk's pairs are in memory, and nothing is kept for a backward
pass.

Gradients flow to both positives and negatives. A batch without positives, or without negatives, has loss 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# The largest numbers of pairs (which determine memory) and of positives in a chunk.
MAX_PAIRS = 2**20
_MAX_POSITIVES = 1024
# Score of excluded outputs: pairs with it have loss and slope 0, and differences with it are finite.
FAR = 1e30

# Maps differences, negative minus positive, to each pair's loss and its derivative; all have the same shape.
PairLoss = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def softplus_with_margin(difference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes log(1 + exp(d + 1)) and its derivative, which share one exponential."""
    shifted = difference + 1.0
    small = tf.exp(-tf.abs(shifted))
    loss = tf.maximum(shifted, 0.0) + tf.math.log1p(small)
    return loss, tf.where(shifted > 0.0, 1.0, small) / (1.0 + small)


def log_one_plus_sigmoid(difference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes log(1 + sigmoid(d)), at most log 2, and its derivative."""
    score = tf.sigmoid(difference)
    return tf.math.log1p(score), score * tf.sigmoid(-difference) / (1.0 + score)


def hinge(difference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes max(0, 1 + d) and its derivative."""
    return tf.maximum(1.0 + difference, 0.0), tf.cast(difference > -1.0, tf.float32)


def mean_over_pairs(
    logits: tf.Tensor,
    positive: tf.Tensor,
    pair_loss: PairLoss,
    negatives: int,
    within_example: bool = False,
    known: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes the mean of a loss over pairs of a positive and one of the highest negatives.

    The published code drops pairs of exactly equal scores, and divides the sums within examples by B times the largest
    number of positives of an example. Here all pairs count, with equal weights.

    Args:
      logits: [B, C] of a static shape.
      positive: [B, C] bool.
      pair_loss: the loss of a difference of two scores, and its derivative.
      negatives: number per example: the `negatives * B` highest of the batch are used, or all if there are fewer.
      within_example: whether to pair a positive with the `negatives` highest of the same example instead.
      known: [B, C] bool, True for every positive; None: all outputs are known.

    Returns:
      float32 scalar: the mean over all pairs.

    Raises:
      ValueError: the shape is unknown when the function is traced.
    """
    logits = tf.cast(logits, tf.float32)
    if not logits.shape.is_fully_defined():
        raise ValueError(f"a ranking loss needs logits of a static shape, got {logits.shape}")
    negative = _negatives(positive, known)

    @tf.custom_gradient
    def mean(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        groups = logits.shape[0] if within_example else 1
        scores, own, others = (tf.reshape(values, [groups, -1]) for values in (logits, positive, negative))
        loss, gradient = _over_groups(scores, own, others, pair_loss, negatives * logits.shape[0] // groups)
        gradient = tf.reshape(gradient, logits.shape)
        return loss, lambda upstream: upstream * gradient

    return mean(logits)


def lsep(logits: tf.Tensor, positive: tf.Tensor, negatives: int, known: tf.Tensor | None = None) -> tf.Tensor:
    """Computes log(1 + mean of exp(n - p)) over the pairs of `mean_over_pairs`, as a product of two means.

    Args:
      logits: [B, C].
      positive: [B, C] bool.
      negatives: number per example: the `negatives * B` highest of the batch are used.
      known: [B, C] bool, True for every positive; None: all outputs are known.

    Returns:
      float32 scalar.

    References:
      Li, Song and Luo, https://arxiv.org/abs/1704.03135. The paper takes the logarithm of the sum over an example's
      pairs; here it is the mean over the batch's pairs.
    """
    negative = tf.reshape(_negatives(positive, known), [-1])
    scores, positive = tf.reshape(tf.cast(logits, tf.float32), [-1]), tf.reshape(positive, [-1])
    num_positives = _count(positive)
    num_highest = tf.minimum(negatives * tf.shape(logits)[0], tf.size(scores))
    highest, _ = tf.math.top_k(tf.where(negative, scores, -FAR), num_highest)
    num_negatives = tf.minimum(num_highest, _count(negative))
    log_mean_negative = tf.reduce_logsumexp(highest) - _log_count(num_negatives)
    log_mean_positive = tf.reduce_logsumexp(tf.where(positive, -scores, -FAR)) - _log_count(num_positives)
    return tf.math.softplus(log_mean_negative + log_mean_positive)


def misranked_counts(logits: tf.Tensor, positive: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
    """Counts, for each output, the outputs of the other kind that are misranked against it in the whole batch.

    Args:
      logits: [B, C], at most 2**31 elements.
      positive: [B, C] bool.
      known: [B, C] bool, True for every positive; None: all outputs are known.

    Returns:
      [B, C] float32: for a positive, the negatives that score higher; for a negative, the positives that score
      lower. Equal scores are not misranked. Counts of unknown outputs are meaningless.
    """
    negative = tf.reshape(_negatives(positive, known), [-1])
    scores, positive = tf.reshape(tf.cast(logits, tf.float32), [-1]), tf.reshape(positive, [-1])
    # Sorts integers that combine the score (as an integer of the same order), the kind (so that negatives come first
    # among equal scores) and the position. XLA would compile a binary search to comparisons of all pairs.
    bits = tf.bitcast(tf.where(scores == 0.0, 0.0, scores), tf.int32)  # -0 equals 0
    ordered = tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, 0x7FFFFFFF), bits)
    kind_and_place = tf.cast(positive, tf.int64) * 2**31 + tf.range(tf.size(scores), dtype=tf.int64)
    keys = tf.sort(tf.cast(ordered, tf.int64) * 2**32 + kind_and_place)
    place = tf.cast(tf.bitwise.bitwise_and(keys, tf.constant(2**31 - 1, tf.int64)), tf.int32)
    sorted_positive = tf.bitwise.bitwise_and(keys, tf.constant(2**31, tf.int64)) != 0
    positives_below = tf.cumsum(tf.cast(sorted_positive, tf.int32))
    sorted_negative = ~sorted_positive if known is None else tf.gather(negative, place)
    negatives_below = tf.cumsum(tf.cast(sorted_negative, tf.int32))
    counts = tf.where(sorted_positive, _count(negative) - negatives_below, positives_below)
    counts = tf.tensor_scatter_nd_update(tf.zeros_like(place), place[:, None], counts)
    return tf.reshape(tf.cast(counts, tf.float32), tf.shape(logits))


def _over_groups(
    scores: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor, pair_loss: PairLoss, negatives: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the mean over pairs of each positive and the highest negatives of its group, and its gradient.

    Args:
      scores: [G, S] float32.
      positive, negative: [G, S] bool; an output that is neither is unknown.
      pair_loss: see `mean_over_pairs`.
      negatives: N, the number in a group.

    Returns:
      The mean, a scalar, and its gradient [G * S], float32.
    """
    groups, size = scores.shape
    negatives = min(negatives, size)
    highest, places = tf.math.top_k(tf.where(negative, scores, -FAR), negatives)  # [G, N]
    flat_scores, flat_positive = tf.reshape(scores, [-1]), tf.reshape(positive, [-1])
    chunk = max(1, min(MAX_PAIRS // negatives, _MAX_POSITIVES))
    num_positives, order = _count(positive), _positions(flat_positive, chunk)

    def one_chunk(first: tf.Tensor, total: tf.Tensor, gradient: tf.Tensor, by_negative: tf.Tensor) -> Any:
        own = tf.slice(order, [first], [chunk])
        group = own // size
        values = tf.where(first + tf.range(chunk) < num_positives, tf.gather(flat_scores, own), FAR)
        against = tf.gather(highest, group) if groups > 1 else highest
        losses, slopes = pair_loss(against - values[:, None])  # [chunk, N]
        total += tf.reduce_sum(losses, axis=0)  # [N]; a single sum in float32 would lose digits
        gradient = tf.tensor_scatter_nd_sub(gradient, own[:, None], tf.reduce_sum(slopes, axis=1))
        if groups > 1:
            by_negative = tf.tensor_scatter_nd_add(by_negative, group[:, None], slopes)
        else:
            by_negative += tf.reduce_sum(slopes, axis=0, keepdims=True)
        return first + chunk, total, gradient, by_negative

    start = (tf.constant(0), tf.zeros([negatives]), tf.zeros_like(flat_scores), tf.zeros_like(highest))
    _, total, gradient, by_negative = tf.while_loop(
        lambda first, *_: first < num_positives, one_chunk, start, parallel_iterations=1
    )
    flat_places = tf.reshape(places + size * tf.range(groups)[:, None], [-1, 1])
    gradient = tf.tensor_scatter_nd_add(gradient, flat_places, tf.reshape(by_negative, [-1]))
    of_group, others = (tf.reduce_sum(tf.cast(kind, tf.int32), axis=1) for kind in (positive, negative))  # [G]
    pairs = tf.cast(of_group, tf.float32) * tf.cast(tf.minimum(negatives, others), tf.float32)
    scale = 1.0 / tf.maximum(tf.reduce_sum(pairs), 1.0)
    total = tf.cast(tf.reduce_sum(tf.cast(total, tf.float64)), tf.float32)
    return total * scale, gradient * scale


def _negatives(positive: tf.Tensor, known: tf.Tensor | None) -> tf.Tensor:
    return ~positive if known is None else ~positive & known


def _positions(mask: tf.Tensor, room: int) -> tf.Tensor:
    """Returns the positions where `mask`, [n] bool, is True, in order, padded to [n + room] int32."""
    size = tf.size(mask)
    slots = tf.where(mask, tf.cumsum(tf.cast(mask, tf.int32)) - 1, size)  # others go to the first slot of padding
    return tf.tensor_scatter_nd_update(tf.zeros([size + room], tf.int32), slots[:, None], tf.range(size))


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.int32))


def _log_count(count: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.cast(tf.maximum(count, 1), tf.float32))
