"""Frame-level records made from video-level ones."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_tf import schema
from yt8m_tf.data import foreign_files
from yt8m_tf.data.record_writing import MEAN, VideoRecord, clip_example
from yt8m_tf.errors import InputError
from yt8m_tf.sample_data.frames import FrameCounts, clip_from_means


def read_video_shard(path: str) -> Iterator[VideoRecord]:
    """Reads the records of a video-level shard; every key `mean_X` is the feature X.

    Raises:
      InputError: the shard is damaged, or contains other records.
    """
    records = tf.data.TFRecordDataset(path).as_numpy_iterator()
    for number in itertools.count():
        try:
            serialized = next(records, None)
            if serialized is None:
                return
            features = tf.train.Example.FromString(serialized).features.feature
        except (tf.errors.OpError, DecodeError) as error:
            problem = f"record {number} cannot be read; yt8m-inspect shows the damage and can save the good records"
            if number == 0 and isinstance(error, tf.errors.DataLossError) and (kind := foreign_files.kind_of(path)):
                problem = f"not a TFRecord file: {kind}"
            raise InputError(f"--from_video_level: {path}: {problem}") from error
        means = {key: features[key].float_list.value for key in sorted(features) if key.startswith(MEAN)}
        id_key = next((key for key in schema.ID_KEYS if key in features and features[key].bytes_list.value), None)
        if not means or id_key is None:
            found = ", ".join(sorted(features)) or "no features"
            problem = f"record {number} contains {found}, not an id and mean_* features; give video-level shards"
            raise InputError(f"--from_video_level: {path}: {problem}")
        labels = list(features["labels"].int64_list.value) if "labels" in features else None
        arrays = {key.removeprefix(MEAN): np.array(values, np.float32) for key, values in means.items()}
        yield VideoRecord(features[id_key].bytes_list.value[0], labels, arrays, id_key)


def make_clips(path: str, counts: FrameCounts, seed: int) -> Iterator[bytes]:
    """Yields frame-level records of the videos of a video-level shard, in order, with the same ids, labels and means.

    The random numbers depend only on `seed` and the shard's file name, not on other shards.

    Raises:
      InputError: see `read_video_shard`; or a mean is NaN or outside the interval of the quantisation.
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
