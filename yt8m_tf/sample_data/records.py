"""Records in the original formats of YouTube-8M: writing them, and frame-level ones made from video-level ones."""

from __future__ import annotations

import dataclasses
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_tf import schema
from yt8m_tf.errors import InputError
from yt8m_tf.sample_data.frames import FrameCounts, clip_from_means

_MEAN = "mean_"  # video-level key of a feature: this and the feature's name


@dataclasses.dataclass(frozen=True)
class VideoRecord:
    """A video-level record.

    Attributes:
      video_id: as stored.
      labels: class numbers; None where the record has no such field, as in test shards.
      features: {name: [D] float32}.
      id_key: the key of the id, "id" or "video_id".
    """

    video_id: bytes
    labels: list[int] | None
    features: dict[str, np.ndarray]
    id_key: str = "id"


def video_example(record: VideoRecord) -> bytes:
    """Serialises a `tf.train.Example`, the same bytes for the same record."""
    features = _context(record)
    for name, values in record.features.items():
        features[_MEAN + name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def clip_example(record: VideoRecord, frames: dict[str, np.ndarray]) -> bytes:
    """Serialises a `tf.train.SequenceExample` of frames {name: [T, D] uint8}, the same bytes for the same record."""
    lists = {}
    for name, codes in frames.items():
        rows = [tf.train.Feature(bytes_list=tf.train.BytesList(value=[row.tobytes()])) for row in codes]
        lists[name] = tf.train.FeatureList(feature=rows)
    clip = tf.train.SequenceExample(
        context=tf.train.Features(feature=_context(record)),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    )
    return clip.SerializeToString(deterministic=True)


def write_shard(path: str, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file, which gets its name when it is whole; returns its size in bytes.

    Raises:
      InputError: it cannot be written.
    """
    partial = path + ".tmp"
    try:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with tf.io.TFRecordWriter(partial) as writer:
                for record in records:
                    writer.write(record)
            os.replace(partial, path)
        finally:
            if os.path.exists(partial):
                os.remove(partial)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"--output_dir: {path} cannot be written: {_one_line(error)}") from error
    return os.path.getsize(path)


def read_video_shard(path: str) -> Iterator[VideoRecord]:
    """Reads the records of a video-level shard; every key `mean_X` is the feature X.

    Raises:
      InputError: the shard is damaged, or holds other records.
    """
    records = tf.data.TFRecordDataset(path).as_numpy_iterator()
    for number in itertools.count():
        try:
            serialized = next(records, None)
            if serialized is None:
                return
            features = tf.train.Example.FromString(serialized).features.feature
        except (tf.errors.OpError, DecodeError) as error:
            remedy = "yt8m-inspect shows the damage and can save the good records"
            raise InputError(f"--from_video_level: {path}: record {number} cannot be read; {remedy}") from error
        means = {key: features[key].float_list.value for key in sorted(features) if key.startswith(_MEAN)}
        id_key = next((key for key in schema.ID_KEYS if key in features and features[key].bytes_list.value), None)
        if not means or id_key is None:
            found = ", ".join(sorted(features)) or "no features"
            problem = f"record {number} holds {found}, not an id and mean_* features; give video-level shards"
            raise InputError(f"--from_video_level: {path}: {problem}")
        labels = list(features["labels"].int64_list.value) if "labels" in features else None
        arrays = {key.removeprefix(_MEAN): np.array(values, np.float32) for key, values in means.items()}
        yield VideoRecord(features[id_key].bytes_list.value[0], labels, arrays, id_key)


def make_clips(path: str, counts: FrameCounts, seed: int) -> Iterator[bytes]:
    """Frame-level records of the videos of a video-level shard, in its order: the same ids, labels and means.

    What is drawn depends on `seed` and the shard's file name only, not on what other shards there are.

    Raises:
      InputError: as `read_video_shard`; a mean that is NaN or outside the interval of the quantisation.
    """
    rng = np.random.default_rng([seed, zlib.crc32(os.path.basename(path).encode())])
    for number, record in enumerate(read_video_shard(path)):
        try:
            frames = clip_from_means(record.features, int(counts.draw(1, rng)[0]), rng)
        except ValueError as error:
            name = record.video_id.decode("utf-8", "backslashreplace")
            remedy = "scale the features into it"
            raise InputError(f"--from_video_level: {path}: record {number} ('{name}') has {error}; {remedy}") from error
        yield clip_example(record, frames)


def _one_line(error: Exception) -> str:
    """The message of an error without line breaks."""
    text = error.strerror if isinstance(error, OSError) else getattr(error, "message", None)
    return " ".join(str(text or error).split())


def _context(record: VideoRecord) -> dict[str, tf.train.Feature]:
    context = {record.id_key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.video_id]))}
    if record.labels is not None:
        context["labels"] = tf.train.Feature(int64_list=tf.train.Int64List(value=record.labels))
    return context
