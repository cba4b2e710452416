"""Losses on logits. Targets lie in [0, 1] and may be soft; some of them may be unknown, and then count nowhere.

Where all targets are known, losses are means over batch and outputs. Where some are not, what is summed up is the known
outputs, and divided by the number of examples: every rating counts alike, whatever else its batch holds, and the mean
of several replicas' losses is that of their batches together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from yt8m_tf.config.experiment import LossConfig
from yt8m_tf.losses import ranking

# Maps logits and targets, both [B, C + V] (classes first, then tags, if there are any), and perhaps which targets are
# known ([B, C + V] bool; an unknown one is 0), to a float32 scalar.
Loss = Callable[..., tf.Tensor]
# Takes the positives of the unweighted targets beside the targets themselves, [B, C + V] bool.
_OwnLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor | None], tf.Tensor]


def make_loss(config: LossConfig, num_classes: int, target_weights: np.ndarray | None = None) -> Loss:
    """The loss that a configuration names.

    Args:
      config: name and options.
      num_classes: C. Only `bce_labels_tags` tells tags from classes; all others treat all outputs alike.
      target_weights: [C + V], what the targets of each output are multiplied by, in [0, 1]; None: nothing. Which
        outputs are positives (`positives`) is decided before: a class that counts less keeps its place in the ranking.
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
    """Returns the outputs that the ranking losses take for positives.

    Soft labels list some forty candidates for a video, nearly all of them improbable: above 0 is no label yet. With
    0.5, a video's labels count under mixup where it has more than half of the weight, and those that both videos have
    always do; of soft labels mixed with hard ones, what the two together hold for more probable than not.

    The published code takes targets above 0 where it compares scores of a whole batch, under mixup the labels of both
    videos, and in its other ranking losses rounds soft targets down to 0.

    Args:
      targets: [B, C + V] in [0, 1], soft labels and mixup in them, and no weights of classes.
      above: `LossConfig.positive_above`.

    Returns:
      [B, C + V] bool.
    """
    return targets > above


def bce(logits: tf.Tensor, targets: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
    """Binary cross-entropy.

    Args:
      logits: [B, C], any float type and any magnitude.
      targets: [B, C] in [0, 1].
      known: [B, C] bool, which targets count; None: all.

    Returns:
      float32 scalar: the mean over batch and classes, in nats; with `known` the sum over what is known, by example.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits), known)


def mse(logits: tf.Tensor, targets: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
    """Mean squared error of the scores, sigmoid(logits), over batch and classes; arguments as `bce`.

    The published code takes that of the logits themselves, whose minimum is no probability.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    return _mean(tf.square(tf.sigmoid(logits) - targets), known)


def rank_weighted_bce(
    logits: tf.Tensor, targets: tf.Tensor, positive: tf.Tensor, known: tf.Tensor | None = None
) -> tf.Tensor:
    """Binary cross-entropy, each output's weighted by the number of outputs of the other kind on its wrong side.

    The weight, at least 1, is for a positive the number of negatives of the whole batch that score higher, for a
    negative the number of positives that score lower; it is not differentiated. The published code leaves the weights
    in sorted order, which ends in an error of shapes, and rounds the soft targets of mixup down to 0.

    Args:
      logits, targets, known: as `bce`.
      positive: [B, C] bool, `positives` of the targets.

    Returns:
      float32 scalar: the mean, as of `bce`, of weight times cross-entropy. It is large at the start, when
      nothing is ranked yet.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    weights = tf.maximum(ranking.misranked_counts(tf.stop_gradient(logits), positive, known), 1.0)
    return _mean(weights * tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits), known)


def poisson_of_counts(logits: tf.Tensor, targets: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
    """Negative log likelihood of each example's number of labels, were it Poisson with the sum of scores as its rate.

    Args:
      logits, targets, known: as `bce`; a soft target counts as that part of a label. Of the classes that are known both
        the labels and the rate are taken.

    Returns:
      float32 scalar: rate - count * log(rate), the mean over the batch. log(count!), which no weight can change, is
      left out.
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
    """Binary cross-entropy with one weight for classes and one for tags.

    Args:
      logits, targets, known: as `bce`, [B, C + V].
      num_classes: C.
      label_weight, tag_weight: of the first C and of the last V outputs.
      separate_means: take the mean of classes and that of tags by themselves, as in the original. Else one of all: a
        weight of tags then counts V / C as much, with 25 tags of 3,862 classes 154 times less.

    Returns:
      float32 scalar: label_weight * mean over batch and classes + tag_weight * mean over batch and tags; or the mean
      over batch and all outputs of weight times cross-entropy, `bce` itself where both weights are 1.
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
    """Of [B, C] float32 terms the mean, or the mean over the examples of the sum of what is known."""
    if known is None:
        return tf.reduce_mean(terms)
    return tf.reduce_mean(tf.reduce_sum(tf.where(known, terms, 0.0), axis=1))


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


def rated_targets(classes: tf.Tensor, ratings: tf.Tensor, num_classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Targets, and which of them are known, from lists of ratings.

    Args:
      classes: [B, L] integers below C, each once in its list; negative ones are padding.
      ratings: [B, L] float32 in [0, 1].
      num_classes: C.

    Returns:
      [B, C] float32, 0 where unknown, and [B, C] bool.
    """
    known = dense_targets(classes, num_classes) > 0.0
    return _spread(classes, ratings, tf.shape(known)), known


def soften(
    targets: tf.Tensor, classes: tf.Tensor, scores: tf.Tensor, weight: float, unlisted_hard: bool = False
) -> tf.Tensor:
    """Mixes soft labels into hard ones: weight * soft + (1 - weight) * hard.

    Args:
      targets: [B, C] of zeros and ones.
      classes: [B, K] integers below C, negative ones are padding; no class stands in a list twice. An empty list means
        that there are no soft labels: the hard ones stay as they are.
      scores: [B, K] soft labels of these classes in [0, 1], any float type.
      weight: of the soft labels, in (0, 1].
      unlisted_hard: the classes that a list does not name keep their hard labels; else their soft labels are 0.

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
    """Lists [B, K] of classes, negative ones being padding, and their scores -> [B, C] float32, 0 where none is."""
    batch_size, length = tf.unstack(tf.shape(classes))
    rows = tf.repeat(tf.range(batch_size), length)  # [B * K]
    flat = tf.reshape(classes, [-1])
    places = tf.stack([rows, tf.maximum(flat, 0)], axis=1)
    # Padding adds a zero to class 0.
    updates = tf.where(flat >= 0, tf.reshape(tf.cast(scores, tf.float32), [-1]), 0.0)
    return tf.scatter_nd(places, updates, shape)


def with_tags(targets: tf.Tensor, membership: np.ndarray) -> tf.Tensor:
    """Targets of classes with those of tags after them: a tag's is the highest of its classes'.

    It is taken before mixup, which then mixes both.

    Args:
      targets: [B, C] in [0, 1].
      membership: [C, V], not 0 where a class belongs to a tag; every tag has a class.

    Returns:
      [B, C + V].
    """
    # Gathers each tag's few columns; [B, C, V] would be as large as all targets V times.
    tags = [tf.reduce_max(tf.gather(targets, np.flatnonzero(column), axis=1), axis=1) for column in membership.T]
    return tf.concat([targets, tf.stack(tags, axis=1)], axis=1)
