"""Parses the segment ratings of frame-level records."""

from __future__ import annotations

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.assertions import require

_INT64 = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int32)
_FLOAT = tf.io.RaggedFeature(tf.float32, row_splits_dtype=tf.int32)


def parse_ratings(serialized: tf.Tensor, data: DataConfig) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parses only the ratings; several of the same (segment, class) pair are averaged.

    Args:
      serialized: [B] strings, `tf.train.SequenceExample`.
      data: gives the number of classes.

    Returns:
      For R pairs: the number of the record, the start and the class, int64 [R] each, and the mean rating, [R] float32.

    Raises:
      records.PARSE_FAILURES: when run on ratings that do not fit `data`.
    """
    integers = (schema.SEGMENT_STARTS_KEY, schema.SEGMENT_CLASSES_KEY, schema.SEGMENT_ENDS_KEY)
    lists = {schema.SEGMENT_SCORES_KEY: _FLOAT} | dict.fromkeys(integers, _INT64)
    parsed = tf.io.parse_example(serialized, lists)
    starts, classes, ends = (parsed[key] for key in integers)
    scores = parsed[schema.SEGMENT_SCORES_KEY]
    each = starts.row_lengths()
    right = (
        tf.reduce_all(tf.equal(each, classes.row_lengths()) & tf.equal(each, scores.row_lengths())),
        # The ends are not used, and a record may omit them.
        tf.reduce_all(tf.equal(each, ends.row_lengths()) | tf.equal(ends.row_lengths(), 0)),
        tf.reduce_all(starts.values >= 0),
        tf.reduce_all((classes.values >= 0) & (classes.values < data.num_classes)),
        tf.reduce_all((scores.values >= 0.0) & (scores.values <= 1.0)),
    )
    with tf.control_dependencies([require(tf.reduce_all(right), "ratings that do not fit")]):
        rows = tf.cast(starts.value_rowids(), tf.int64)
    pairs, owners = distinct_rows(rows, starts.values, classes.values)
    means = tf.math.unsorted_segment_mean(scores.values, owners, tf.shape(pairs)[0])
    return pairs[:, 0], pairs[:, 1], pairs[:, 2], means


def parse_starts(serialized: tf.Tensor) -> tf.RaggedTensor:
    """Parses only the starts, one for each rating, unchecked: [B] strings -> ragged [B, (ratings)] int64."""
    return tf.io.parse_example(serialized, {schema.SEGMENT_STARTS_KEY: _INT64})[schema.SEGMENT_STARTS_KEY]


def distinct_rows(*columns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the distinct rows of int64 columns, in order of first occurrence, and the index of each row in them."""
    return tf.raw_ops.UniqueV2(x=tf.stack(columns, axis=1), axis=[0])
