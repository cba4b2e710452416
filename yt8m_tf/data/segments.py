"""Cuts rated segments out of clips: each start in a record's ratings gives an example with its own frames.

Segments are cut where records are read, before shuffling. So the shuffle window contains a few frames for each segment
instead of whole clips, the segments of a video do not all come in one batch, and positions in the data count segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import records
from yt8m_tf.data.assertions import require
from yt8m_tf.data.checked_batches import parse_checked, usable_records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.ratings import distinct_rows, parse_ratings, parse_starts
from yt8m_tf.schema import NO_LABEL

# Records that are parsed together; for every shard being read, their segments wait in memory.
_PARSED = 8


def cutter(data: DataConfig, faults: Faults) -> Callable[[tf.Tensor, tf.data.Dataset], tf.data.Dataset]:
    """Returns an `attach` for `order.serialized_records`: it maps a shard's records to their rated segments.

    Args:
      data: a configuration with `segments`.
      faults: what to do about clips without frames; segments beyond their clips are counted here.
    """

    @tf.autograph.experimental.do_not_convert
    def parse(_: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        return parse_segments(serialized, data, faults)

    def cut(_: tf.Tensor, serialized: tf.data.Dataset) -> tf.data.Dataset:
        return usable_records(serialized.enumerate(), data, faults).batch(_PARSED).map(parse).unbatch()

    return cut


def parse_segments(serialized: tf.Tensor, data: DataConfig, faults: Faults) -> dict[str, tf.Tensor]:
    """Parses clips and cuts out their rated segments, in the order of the records and of their first ratings.

    Args:
      serialized: [B] strings, `tf.train.SequenceExample`.
      data: a configuration with `segments`.
      faults: counts segments that are left out because they start beyond their clips or beyond `data.max_frames`.

    Returns:
      For N segments, which may be 0: "id" [N] string, video id and start, as in "6l0e:100"; each feature [N, W, D] as
      stored, W being `data.segments.length`; "num_frames" [N] int32, from 1 to W, after which values are meaningless;
      "rated_classes" [N, L] int32, distinct, padded with -1; "ratings" [N, L] float32 in [0, 1], the mean if a class
      was rated several times in a segment.

    Raises:
      records.PARSE_FAILURES: when run on a record that does not fit `data`, or has no frames.
    """
    assert data.segments is not None
    clips = parse_checked(serialized, data, faults)
    rows, starts, classes, scores = parse_ratings(serialized, data)
    lengths = tf.gather(clips["num_frames"], rows)
    inside = starts < tf.cast(lengths, tf.int64)
    with tf.control_dependencies([_count_beyond(clips["id"], rows, starts, ~inside, faults)]):
        rows, starts, classes, scores = (tf.boolean_mask(value, inside) for value in (rows, starts, classes, scores))
    segments, owners = distinct_rows(rows, starts)  # [N, 2], [ratings]
    rows, first = segments[:, 0], tf.cast(segments[:, 1], tf.int32)
    ids = _segment_ids(clips["id"], segments)
    end = tf.minimum(first + data.segments.size + data.segments.context, tf.gather(clips["num_frames"], rows))
    first = tf.maximum(first - data.segments.context, 0)
    places = first[:, None] + tf.range(data.segments.length)  # [N, W]
    features = {name: _gather_frames(clips[name], rows, places) for name in data.features}
    rated_classes, ratings = _padded(owners, tf.shape(segments)[0], classes, scores, data.max_labels)
    return {
        "id": ids,
        **features,
        "num_frames": end - first,
        "rated_classes": rated_classes,
        "ratings": ratings,
    }


def any_inside(serialized: Sequence[bytes], data: DataConfig) -> bool:
    """Returns whether any of these clips has a rated segment that starts within it.

    Raises:
      records.PARSE_FAILURES: a record that does not fit `data`.
    """
    starts = parse_starts(tf.constant(serialized))
    lengths = tf.minimum(records.clip_lengths(tf.constant(serialized), data), data.max_frames)
    return bool(tf.reduce_any(starts.values < tf.cast(tf.gather(lengths, starts.value_rowids()), tf.int64)))


def _segment_ids(clips: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
    """Returns the ids of segments [N, 2], of row and start: [N] strings such as "6l0e:100"."""
    return tf.strings.join([tf.gather(clips, segments[:, 0]), tf.strings.as_string(segments[:, 1])], ":")


def _count_beyond(
    clips: tf.Tensor, rows: tf.Tensor, starts: tf.Tensor, beyond: tf.Tensor, faults: Faults
) -> tf.Operation:
    def count(ids: np.ndarray) -> np.int64:
        faults.count_once("num_beyond", ids.tolist())
        return np.int64(len(ids))

    segments, _ = distinct_rows(tf.boolean_mask(rows, beyond), tf.boolean_mask(starts, beyond))
    return tf.numpy_function(count, [_segment_ids(clips, segments)], tf.int64)


def _gather_frames(frames: tf.Tensor, rows: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Gathers from [B, T, D] the frames at places [N, W] of rows [N]; places beyond the end get the last frame."""
    length = tf.shape(frames)[1]
    flat = tf.cast(rows, tf.int32)[:, None] * length + tf.minimum(places, length - 1)
    return tf.gather(tf.reshape(frames, [-1, frames.shape[2]]), flat)


def _padded(
    owners: tf.Tensor, count: tf.Tensor, classes: tf.Tensor, scores: tf.Tensor, most: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pads the ratings of each segment: classes [count, most] int32, and scores [count, most] float32."""
    order = tf.argsort(owners, stable=True)
    owners = tf.gather(owners, order)
    ragged = tf.RaggedTensor.from_value_rowids(tf.cast(tf.gather(classes, order), tf.int32), owners, count)
    fits = tf.reduce_all(ragged.row_lengths() <= most)
    with tf.control_dependencies([require(fits, "more than max_labels ratings of a segment")]):
        rated = ragged.to_tensor(NO_LABEL, shape=[None, most])
    return rated, ragged.with_values(tf.gather(scores, order)).to_tensor(0.0, shape=[None, most])
