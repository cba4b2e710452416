"""The part of the metrics that runs on the device: a batch of logits reduced to 20 pairs per video and a few sums.

A counterpart on the host serves models of which only the highest scores are known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.metrics.host_top_k import host_top_k

TOP_K = 20
NUM_BINS = 15

# The results of `batch_statistics` per video; the others are sums over the batch.
PER_VIDEO = ("top_logits", "top_classes", "hits", "num_labels", "valid", "not_finite")
SUMS = ("num_videos", "hit_at_1", "perr", "bce", "calibration", "num_positives")


def batch_statistics(logits: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
    """Reduces a batch to what the metrics need, on the device; can be compiled by XLA and run in replicas.

    The top pairs are returned as logits, and the host computes their scores: on the CPU, a sigmoid rounds differently
    at different positions of a tensor, so that GAP would depend on the batch size. Equal logits rank by lower class id.

    Args:
      logits: [B, C] of any float dtype; the computation is in float32.
      labels: [B, L] int32 ids below C, padded with `schema.NO_LABEL`; an id given twice counts once. C and L must
        be known when the function is traced.
      valid: [B] bool; False marks the padding of a last batch, which does not count.

    Returns:
      Per video: `top_logits` [B, k] float32, k = min(20, C), highest first; `top_classes` [B, k] int32; `hits`
      [B, k] bool, whether the class is a label; `num_labels` [B] int32, the number of distinct labels; `valid` [B]
      bool; `not_finite` [B] bool, whether a score is NaN or the loss infinite.
      Sums over the videos, float64: `num_videos`; `hit_at_1`; `perr`; `bce` (of each video's mean over classes);
      `calibration` [3, 15], per bin of equal width the number of pairs, the sum of their scores, and the number of
      positives; and `num_positives` [C] int64. For several replicas see `concatenate_statistics`.
    """
    logits = tf.cast(logits, tf.float32)
    top = tf.math.top_k(logits, _depth(logits, labels))
    return _statistics(logits, labels, valid, top, _sums_over_classes(logits))


def _depth(logits: tf.Tensor, labels: tf.Tensor) -> int:
    """Returns how many top pairs are needed: GAP takes 20, PERR as many as a video has labels, up to L."""
    return min(max(TOP_K, labels.shape[1]), logits.shape[1])


def _statistics(
    logits: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor, top: Sequence[tf.Tensor], sums: Sequence[tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Computes `batch_statistics` from the top pairs, [B, depth] each, and the sums over classes."""
    num_classes = logits.shape[1]
    top_logits, top_classes = top
    depth = top_classes.shape[1]
    labels = tf.where(valid[:, None] & _first_occurrence(labels), labels, schema.NO_LABEL)
    is_label = labels != schema.NO_LABEL  # [B, L]
    num_labels = tf.reduce_sum(tf.cast(is_label, tf.int32), axis=1)  # [B]
    # Padding must not count, and its logits may be NaN. It has no labels, so gathers read class 0 there.
    label_logits = tf.gather(logits, tf.where(is_label, labels, 0), batch_dims=1)  # [B, L]

    hits = tf.reduce_any(top_classes[:, :, None] == labels[:, None, :], axis=2)  # [B, depth]
    within = hits & (tf.range(depth) < num_labels[:, None])
    perr = tf.math.divide_no_nan(_count(within, axis=1), tf.cast(num_labels, tf.float64))  # [B]

    def pairs(values: tf.Tensor) -> tf.Tensor:
        # Not a slice: XLA on the CPU turns slices of a top_k into a full sort (docs/BENCHMARKS.md).
        return tf.gather(values, tf.range(min(TOP_K, depth)), axis=1)  # [B, k]

    # Sums along rows, of C terms, are in float32; sums across rows in float64.
    score_sums, losses_as_negatives = sums
    label_sums = tf.reduce_sum(tf.where(is_label, label_logits, 0.0), axis=1)
    score_sums = tf.cast(score_sums, tf.float64)
    bce = tf.cast(losses_as_negatives - label_sums, tf.float64) / num_classes
    return {
        "top_logits": pairs(top_logits),
        "top_classes": pairs(top_classes),
        "hits": pairs(hits),
        "num_labels": num_labels,
        "valid": valid,
        "not_finite": valid & ~tf.math.is_finite(score_sums + bce),
        "num_videos": _count(valid),
        "hit_at_1": _count(hits[:, 0]),
        "perr": tf.reduce_sum(perr),
        "bce": tf.reduce_sum(tf.where(valid, bce, 0.0)),
        "calibration": _calibration(
            logits, score_sums, tf.sigmoid(top_logits), tf.sigmoid(label_logits), is_label, valid
        ),
        "num_positives": tf.math.unsorted_segment_sum(tf.ones_like(labels, tf.int64), labels, num_classes),
    }


@functools.lru_cache
def compiled_statistics(xla: bool = True) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns the `tf.function` of `batch_statistics` that evaluation runs.

    Every call returns the same function, so a process traces and compiles it once for each shape of batches.

    On a CPU, NumPy finds the top pairs (`host_top_k`), while the sums are computed in parallel, compiled by XLA unless
    `xla` is false. Each takes half of the time of TensorFlow's kernels (docs/BENCHMARKS.md). On a GPU, TensorFlow's
    kernels are used.
    """
    if tf.config.list_logical_devices("GPU"):
        return tf.function(batch_statistics, autograph=False)
    sums = tf.function(_sums_over_classes, autograph=False, jit_compile=xla)
    rest = tf.function(_statistics, autograph=False, jit_compile=xla)

    def statistics(logits: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, depth = tf.cast(logits, tf.float32), _depth(logits, labels)
        top = tf.numpy_function(
            functools.partial(host_top_k, k=depth), [logits], [tf.float32, tf.int32], stateful=False
        )
        top = [tf.ensure_shape(values, [logits.shape[0], depth]) for values in top]
        return rest(logits, labels, valid, top, sums(logits))

    return tf.function(statistics, autograph=False)


def top_score_statistics(
    classes: np.ndarray, scores: np.ndarray, labels: Sequence[np.ndarray], num_classes: int
) -> dict[str, np.ndarray]:
    """Computes the same on the host, for videos of which only the highest scores are known.

    Args:
      classes: [B, k] int, the classes of the highest scores of each video, none twice.
      scores: [B, k] float32 in [0, 1], highest first.
      labels: B arrays of ids below `num_classes`; an id given twice counts once.
      num_classes: C.

    Returns:
      As `batch_statistics`, but with `top_scores` in place of `top_logits`; the first 20 of k scores are kept. Results
      that need all C scores are NaN: `bce`, and `perr` if a video has more than k < C labels. `calibration` is 0.
    """
    count, k = classes.shape
    distinct = [np.unique(ids) for ids in labels]
    num_labels = np.array([len(ids) for ids in distinct], np.int64)  # [B]
    ids = np.concatenate([*distinct, np.zeros(0, np.int64)]).astype(np.int64)
    pairs = np.repeat(np.arange(count), num_labels) * num_classes + ids
    hits = np.isin(np.arange(count)[:, None] * num_classes + classes, pairs)  # [B, k]
    within = (hits & (np.arange(k) < num_labels[:, None])).sum(axis=1)
    perr = (within / np.maximum(num_labels, 1)).sum()
    return {
        "top_scores": scores[:, :TOP_K],
        "top_classes": classes[:, :TOP_K],
        "hits": hits[:, :TOP_K],
        "num_labels": num_labels,
        "valid": np.ones(count, bool),
        "not_finite": ~np.isfinite(scores).all(axis=1),
        "num_videos": np.float64(count),
        "hit_at_1": np.float64(hits[:, 0].sum()),
        "perr": np.float64(perr if num_labels.max(initial=0) <= k or k >= num_classes else np.nan),
        "bce": np.float64(np.nan),
        "calibration": np.zeros((3, NUM_BINS)),
        "num_positives": np.bincount(ids, minlength=num_classes),
    }


def concatenate_statistics(parts: Sequence[Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """Combines the statistics of a batch's parts, in order, such as those of the replicas of `strategy.run`."""
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    return {name: tf.add_n(own) if name in SUMS else tf.concat(own, axis=0) for name, own in columns.items()}


def _sums_over_classes(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the sums of sigmoid(x) and of log(1 + exp(x)) over each row of [B, C] float32 logits x: [B] each.

    Both use one exponential, a = exp(-|x|), and there is one logarithm for 16 classes: log(1 + exp(x)) is max(x, 0) +
    log(1 + a), and the sum of 16 terms log(1 + a) is log(1 + p), where 1 + p is the product of all (1 + a). p is
    accumulated without the 1, so that no term is rounded away.
    """
    num_classes = logits.shape[1]
    width = -(-num_classes // 16)
    scores, product = tf.zeros([1, width]), tf.zeros([1, width])
    for start in range(0, num_classes, width):
        part = logits[:, start : start + width]
        exponential = tf.exp(-tf.abs(part))
        score = tf.where(part < 0, exponential, tf.ones_like(part)) / (1.0 + exponential)
        padding = [[0, 0], [0, width - part.shape[1]]]
        exponential = tf.pad(exponential, padding)
        scores += tf.pad(score, padding)
        product += exponential * (1.0 + product)
    losses = tf.reduce_sum(tf.nn.relu(logits), axis=1) + tf.reduce_sum(tf.math.log1p(product), axis=1)
    return tf.reduce_sum(scores, axis=1), losses


def _first_occurrence(labels: tf.Tensor) -> tf.Tensor:
    """Marks the first occurrence of each id in its row: [B, L] bool."""
    equal = labels[:, :, None] == labels[:, None, :]  # [B, L, L]
    earlier = tf.range(tf.shape(labels)[1])[:, None] > tf.range(tf.shape(labels)[1])
    return ~tf.reduce_any(equal & earlier, axis=2)


def _count(flags: tf.Tensor, axis: int | None = None) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(flags, tf.float64), axis=axis)


def _calibration(
    logits: tf.Tensor,
    score_sums: tf.Tensor,
    top_scores: tf.Tensor,
    label_scores: tf.Tensor,
    is_label: tf.Tensor,
    valid: tf.Tensor,
) -> tf.Tensor:
    """Counts pairs, scores and positives per bin, [3, NUM_BINS] float64, over all C classes of the valid videos.

    Nearly all scores are in the lowest bin, and the others usually among the top ones. Then it suffices to bin the top
    [B, depth] scores; the lowest bin is the difference from the totals. All [B, C] scores are binned only if some
    video's last top score is above the lowest bin.
    """
    num_classes = logits.shape[1]

    def from_all() -> tf.Tensor:
        return _bin_sums(tf.sigmoid(logits), valid[:, None] & tf.ones_like(logits, tf.bool))

    def from_top() -> tf.Tensor:
        sums = _bin_sums(top_scores, valid[:, None] & (_bins(top_scores) > 0))
        total = tf.stack([_count(valid) * num_classes, tf.reduce_sum(tf.where(valid, score_sums, 0.0))])
        return sums + tf.pad((total - tf.reduce_sum(sums, axis=1))[:, None], [[0, 0], [0, NUM_BINS - 1]])

    exceeded = tf.reduce_any(valid & (_bins(tf.reduce_min(top_scores, axis=1)) > 0))
    pairs_and_scores = tf.cond(exceeded, from_all, from_top)
    return tf.concat([pairs_and_scores, _bin_sums(label_scores, is_label)[:1]], axis=0)


def _bins(scores: tf.Tensor) -> tf.Tensor:
    """Returns the bins of scores: bin b is [b / 15, (b + 1) / 15), and the last one includes 1."""
    return tf.minimum(tf.cast(scores * NUM_BINS, tf.int32), NUM_BINS - 1)


def _bin_sums(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the number and the sum of the [B, N] scores that `mask` selects, per bin: [2, NUM_BINS] float64."""
    # A segment for each row and bin, so that no float32 sum has more than N terms.
    rows = tf.shape(scores)[0]
    segments = tf.where(mask, tf.range(rows)[:, None] * NUM_BINS + _bins(scores), -1)  # -1 is dropped

    def per_bin(values: tf.Tensor) -> tf.Tensor:
        sums = tf.math.unsorted_segment_sum(values, segments, rows * NUM_BINS)
        return tf.reduce_sum(tf.cast(tf.reshape(sums, [-1, NUM_BINS]), tf.float64), axis=0)

    return tf.stack([per_bin(tf.ones_like(scores)), per_bin(scores)])
