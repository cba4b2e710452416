"""Losses on logits. Targets are in [0, 1] and may be soft; unknown targets do not count.

If all targets are known, a loss is the mean over batch and outputs. Otherwise, it is the sum over known outputs divided
by the number of examples. Then every rating has the same weight in any batch, and the mean of the replicas' losses is
the loss of their batches together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from yt8m_tf.config.experiment import LossConfig
from yt8m_tf.losses import ranking

# Maps logits and targets, both [B, C + V] (classes first, then any tags), and optionally which targets are known
# ([B, C + V] bool; unknown targets are 0), to a float32 scalar.
Loss = Callable[..., tf.Tensor]
# Maps (logits, targets, positives of the unweighted targets, known), the latter two [B, C + V] bool, to a scalar.
_OwnLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor | None], tf.Tensor]


def make_loss(config: LossConfig, num_classes: int, target_weights: np.ndarray | None = None) -> Loss:
    """Returns the loss that a configuration names.

    Args:
      config: name and options.
      num_classes: C. Only `bce_labels_tags` distinguishes tags from classes.
      target_weights: [C + V] factors of the targets of each output, in [0, 1]; None: no weights. Positives
        (`positives`) are determined before weighting, so weights do not change which outputs are ranked higher.
    """

    def pairs(pair_loss: ranking.PairLoss, within_example: bool = False) -> _OwnLoss:
        return lambda logits, _, positive, known: ranking.mean_over_pairs(
            logits, positive, pair_loss, config.negatives, within_example, known
        )

    soft_ranking = pairs(ranking.softplus_with_margin)
    losses: dict[str, _OwnLoss] = {
        "bce": lambda logits, targets, _, known: bce(logits, targets, known),
        "mse": lambda logits, targets, _, known: mse(logits, targets, known),
        "soft_ranking": soft_ranking,
        "soft_ranking_per_example": pairs(ranking.softplus_with_margin, within_example=True),
        "sigmoid_ranking": pairs(ranking.log_one_plus_sigmoid),
        "hinge_ranking": pairs(ranking.hinge),
        "lsep": lambda logits, _, positive, known: ranking.lsep(logits, positive, config.negatives, known),
        "rank_weighted_bce": rank_weighted_bce,
        "bce_plus_soft_ranking": lambda logits, targets, positive, known: (
            bce(logits, targets, known) + config.ranking_weight * soft_ranking(logits, targets, positive, known)
        ),
        "bce_plus_poisson": lambda logits, targets, _, known: (
            bce(logits, targets, known) + config.poisson_weight * poisson_of_counts(logits, targets, known)
        ),
        "bce_labels_tags": lambda logits, targets, _, known: bce_labels_tags(
            logits, targets, num_classes, config.label_weight, config.tag_weight, config.separate_means, known
        ),
    }
    own_loss = losses[config.name]

    def loss(logits: tf.Tensor, targets: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
        positive = positives(targets, config.positive_above)
        if target_weights is not None:
            targets *= target_weights.astype(np.float32)
        return own_loss(logits, targets, positive, known)

    return loss


def positives(targets: tf.Tensor, above: float) -> tf.Tensor:
    """Returns the outputs that the ranking losses treat as positives.

    Soft labels list about forty candidates for a video, nearly all improbable, so a target just above 0 is not a label.
    With `above` = 0.5, mixup keeps the labels of the video with more than half of the weight, and those that both
    videos have. If soft labels are mixed with hard ones, positives are the outputs that the mixture makes more probable
    than not.

    In losses that compare the scores of a whole batch, the published code takes all targets above 0: under mixup, the
    labels of both videos. In its other ranking losses, it rounds soft targets down to 0.

    Args:
      targets: [B, C + V] in [0, 1], after soft labels and mixup, before weights of classes.
      above: `LossConfig.positive_above`.

    Returns:
      [B, C + V] bool.
    """
    return targets > above


def bce(logits: tf.Tensor, targets: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
    """Computes binary cross-entropy.

    Args:
      logits: [B, C], any float type and any magnitude.
      targets: [B, C] in [0, 1].
      known: [B, C] bool, which targets count; None: all.

    Returns:
      float32 scalar in nats: the mean over batch and classes; with `known`, the mean over examples of the sum over
      known classes.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits), known)


def mse(logits: tf.Tensor, targets: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
    """Computes the mean squared error of the scores, sigmoid(logits), over batch and classes; arguments as in `bce`.

    The published code uses the error of the logits instead, so scores are not probabilities at its minimum.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    return _mean(tf.square(tf.sigmoid(logits) - targets), known)


def rank_weighted_bce(
    logits: tf.Tensor, targets: tf.Tensor, positive: tf.Tensor, known: tf.Tensor | None = None
) -> tf.Tensor:
    """Computes binary cross-entropy, with each output weighted by how many outputs are misranked against it.

    A positive's weight is the number of negatives of the whole batch that score higher, a negative's the number of
    positives that score lower; weights are at least 1. No gradient flows through them. The published code leaves the
    weights in sorted order, which fails with a shape error, and rounds the soft targets of mixup down to 0.

    Args:
      logits, targets, known: as in `bce`.
      positive: [B, C] bool, `positives` of the targets.

    Returns:
      float32 scalar: the mean, as in `bce`, of weight times cross-entropy. It is large in the beginning, when outputs
      are not ranked yet.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    weights = tf.maximum(ranking.misranked_counts(tf.stop_gradient(logits), positive, known), 1.0)
    return _mean(weights * tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits), known)


def poisson_of_counts(logits: tf.Tensor, targets: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
    """Computes the negative log likelihood of the number of labels, as Poisson with the sum of scores as its rate.

    Args:
      logits, targets, known: as in `bce`; a soft target counts as a fraction of a label. Both labels and rate are sums
        over known classes.

    Returns:
      float32 scalar: the mean over the batch of rate - count * log(rate). The constant log(count!) is left out.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    log_scores = tf.math.log_sigmoid(logits)
    if known is not None:
        log_scores = tf.where(known, log_scores, -ranking.FAR)
    log_rate = tf.reduce_logsumexp(log_scores, axis=1)  # [B]; finite where all scores underflow
    return tf.reduce_mean(tf.exp(log_rate) - tf.reduce_sum(targets, axis=1) * log_rate)


def bce_labels_tags(
    logits: tf.Tensor,
    targets: tf.Tensor,
    num_classes: int,
    label_weight: float,
    tag_weight: float,
    separate_means: bool = True,
    known: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes binary cross-entropy with one weight for classes and one for tags.

    Args:
      logits, targets, known: as in `bce`, [B, C + V].
      num_classes: C.
      label_weight, tag_weight: weights of the first C and of the last V outputs.
      separate_means: whether classes and tags have separate means, as in the original. With a common mean, a tag weight
        has V / C of the effect: 154 times less for 25 tags and 3,862 classes.

    Returns:
      float32 scalar: label_weight * mean over batch and classes + tag_weight * mean over batch and tags; or the mean
      over batch and all outputs of weight times cross-entropy, which is `bce` if both weights are 1.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    terms = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    if separate_means:
        classes, tags = slice(None, num_classes), slice(num_classes, None)
        of_classes, of_tags = (
            _mean(terms[:, own], None if known is None else known[:, own]) for own in (classes, tags)
        )
        return label_weight * of_classes + tag_weight * of_tags
    weights = [label_weight] * num_classes + [tag_weight] * (logits.shape[1] - num_classes)
    return _mean(weights * terms, known)


def _mean(terms: tf.Tensor, known: tf.Tensor | None) -> tf.Tensor:
    """Returns the mean of [B, C] float32 terms; with `known`, the mean over examples of the sum of known terms."""
    if known is None:
        return tf.reduce_mean(terms)
    return tf.reduce_mean(tf.reduce_sum(tf.where(known, terms, 0.0), axis=1))


def dense_targets(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Makes targets from lists of labels.

    Args:
      labels: [B, L] integers below C; negative ones are padding. A list may repeat a label.
      num_classes: C.

    Returns:
      [B, C] float32 of zeros and ones.
    """
    batch_size, length = tf.unstack(tf.shape(labels))
    rows = tf.repeat(tf.range(batch_size), length)  # [B * L]
    flat = tf.reshape(tf.cast(labels, tf.int32), [-1])
    # Padding writes a zero to class 0, which the maximum ignores; so it needs no extra column.
    indices = tf.stack([rows, tf.maximum(flat, 0)], axis=1)
    updates = tf.cast(flat >= 0, tf.float32)
    return tf.tensor_scatter_nd_max(tf.zeros([batch_size, num_classes]), indices, updates)


def rated_targets(classes: tf.Tensor, ratings: tf.Tensor, num_classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes targets from lists of ratings.

    Args:
      classes: [B, L] integers below C, each once in its list; negative ones are padding.
      ratings: [B, L] float32 in [0, 1].
      num_classes: C.

    Returns:
      Targets [B, C] float32, 0 where unknown; and [B, C] bool, which of them are known.
    """
    known = dense_targets(classes, num_classes) > 0.0
    return _spread(classes, ratings, tf.shape(known)), known


def soften(
    targets: tf.Tensor, classes: tf.Tensor, scores: tf.Tensor, weight: float, unlisted_hard: bool = False
) -> tf.Tensor:
    """Mixes soft labels into hard ones: weight * soft + (1 - weight) * hard.

    Args:
      targets: [B, C] of zeros and ones.
      classes: [B, K] integers below C, each once in its list; negative ones are padding. An example with an empty list
        keeps its hard labels.
      scores: [B, K] soft labels of these classes in [0, 1], any float type.
      weight: weight of the soft labels, in (0, 1].
      unlisted_hard: whether classes that are not on a list keep their hard labels; if not, their soft labels are 0.

    Returns:
      [B, C] float32.
    """
    soft = _spread(classes, scores, tf.shape(targets))
    if unlisted_hard:
        share = weight * _spread(classes, tf.ones_like(scores), tf.shape(targets))  # [B, C]
    else:
        share = tf.where(tf.reduce_any(classes >= 0, axis=1, keepdims=True), weight, 0.0)  # [B, 1]
    return share * soft + (1.0 - share) * targets


def _spread(classes: tf.Tensor, scores: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Scatters scores [B, K] of classes [B, K], negative if padding, to [B, C] float32; unlisted classes get 0."""
    batch_size, length = tf.unstack(tf.shape(classes))
    rows = tf.repeat(tf.range(batch_size), length)  # [B * K]
    flat = tf.reshape(classes, [-1])
    places = tf.stack([rows, tf.maximum(flat, 0)], axis=1)
    # Padding adds a zero to class 0.
    updates = tf.where(flat >= 0, tf.reshape(tf.cast(scores, tf.float32), [-1]), 0.0)
    return tf.scatter_nd(places, updates, shape)


def with_tags(targets: tf.Tensor, membership: np.ndarray) -> tf.Tensor:
    """Appends the targets of tags to those of classes; a tag's target is the highest of its classes'.

    This comes before mixup, which then mixes both.

    Args:
      targets: [B, C] in [0, 1].
      membership: [C, V], not 0 where a class belongs to a tag; every tag has at least one class.

    Returns:
      [B, C + V].
    """
    # Gathers each tag's few columns; [B, C, V] would be V times as large as the targets.
    tags = [tf.reduce_max(tf.gather(targets, np.flatnonzero(column), axis=1), axis=1) for column in membership.T]
    return tf.concat([targets, tf.stack(tags, axis=1)], axis=1)
