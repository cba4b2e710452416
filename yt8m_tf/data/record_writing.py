"""Writes records in the formats of YouTube-8M, and shards of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.errors import InputError

MEAN = "mean_"  # prefix of a feature's key at video level


@dataclasses.dataclass(frozen=True)
class VideoRecord:
    """A video-level record.

    Attributes:
      video_id: as stored.
      labels: class numbers; None for a record without the field, as in test shards.
      features: {name: [D] float32}.
      id_key: the key of the id, "id" or "video_id".
    """

    video_id: bytes
    labels: Sequence[int] | None
    features: Mapping[str, np.ndarray]
    id_key: str = "id"


@dataclasses.dataclass(frozen=True)
class Ratings:
    """Ratings of a clip's segments: lists of equal length, with an entry for each (segment, class) pair.

    Attributes:
      starts, ends: in seconds.
      classes: class numbers.
      scores: from 0, absent, to 1, present.
    """

    starts: Sequence[int]
    ends: Sequence[int]
    classes: Sequence[int]
    scores: Sequence[float]


def video_example(record: VideoRecord) -> bytes:
    """Serialises a `tf.train.Example`, the same bytes for the same record."""
    features = _context(record)
    for name, values in record.features.items():
        features[MEAN + name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def clip_example(record: VideoRecord, frames: Mapping[str, np.ndarray], ratings: Ratings | None = None) -> bytes:
    """Serialises a `tf.train.SequenceExample`, the same bytes for the same record.

    Args:
      record: the record; its `features` are ignored.
      frames: {name: [T, D]} of uint8, or of floats, whose bytes are stored.
      ratings: ratings of its segments; None omits their fields.
    """
    lists = {}
    for name, codes in frames.items():
        rows = [tf.train.Feature(bytes_list=tf.train.BytesList(value=[row.tobytes()])) for row in codes]
        lists[name] = tf.train.FeatureList(feature=rows)
    clip = tf.train.SequenceExample(
        context=tf.train.Features(feature=_context(record) | _rated(ratings)),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    )
    return clip.SerializeToString(deterministic=True)


def write_shard(path: str, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file, which gets its name only when complete, and returns its size in bytes.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.whole_file(Path(path)) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for record in records:
                writer.write(record)
    except (OSError, tf.errors.OpError) as error:
        text = error.strerror if isinstance(error, OSError) else getattr(error, "message", None)
        reason = " ".join(str(text or error).split())
        raise InputError(f"--output_dir: {path} cannot be written: {reason}; name another directory") from error
    return os.path.getsize(path)


def _context(record: VideoRecord) -> dict[str, tf.train.Feature]:
    context = {record.id_key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.video_id]))}
    if record.labels is not None:
        context["labels"] = tf.train.Feature(int64_list=tf.train.Int64List(value=record.labels))
    return context


def _rated(ratings: Ratings | None) -> dict[str, tf.train.Feature]:
    if ratings is None:
        return {}
    integers = {
        schema.SEGMENT_STARTS_KEY: ratings.starts,
        schema.SEGMENT_ENDS_KEY: ratings.ends,
        schema.SEGMENT_CLASSES_KEY: ratings.classes,
    }
    fields = {key: tf.train.Feature(int64_list=tf.train.Int64List(value=own)) for key, own in integers.items()}
    scores = tf.train.Feature(float_list=tf.train.FloatList(value=ratings.scores))
    return fields | {schema.SEGMENT_SCORES_KEY: scores}
