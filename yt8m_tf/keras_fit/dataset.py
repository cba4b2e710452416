"""A `tf.data.Dataset` over shards for Keras `fit`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig, data_of
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.data import clips
from yt8m_tf.data.clip_reader import count_records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import at_least_one, check_first_records, evaluation_stream, training_stream
from yt8m_tf.data.records import feature_specs
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.losses.losses import dense_targets


def make_dataset(
    shards: str | Sequence[str],
    data: InputSpec | DataConfig,
    batch_size: int,
    *,
    seed: int | None = None,
    faults: Faults | None = None,
) -> tf.data.Dataset:
    """Returns a dataset of batches (inputs, targets) that makes one pass over shards of either level.

    Shards are read as by `yt8m-train` and `yt8m-evaluate`; errors name the record and its fault. The last batch may be
    smaller.

    Args:
      shards: paths or glob patterns; "examples" and "examples:frame" are real records in the package.
      data: the contents of the records: an `InputSpec` for YouTube-8M's own format, otherwise a `DataConfig`.
      batch_size: videos per batch.
      seed: shuffle, in a different order in every pass over the dataset, and sample frames as in training
        (`data.frames`). None keeps the order of the shards, and nothing is random.
      faults: the faults of records to tolerate, and their counts; None tolerates none.

    Returns:
      Inputs for the models, {feature: [B, D] or [B, T, D] float32; for clips, "num_frames": [B] int32}, and targets
      [B, C] float32 of zeros and ones. The dataset knows its length if the shards are local.

    Raises:
      InputError: there are no shards, the first record does not fit `data`, or `data` has verticals or segments, whose
        targets only `yt8m-train` supports.

    Example:
      >>> import yt8m_tf
      >>> spec = yt8m_tf.InputSpec(features={"rgb": 24, "audio": 12}, num_classes=20)
      >>> batches = yt8m_tf.make_dataset("sample/video/train*.tfrecord", spec, 64, seed=0)
      >>> inputs, targets = next(iter(batches))
      >>> inputs["rgb"].shape.as_list(), targets.shape.as_list()
      ([64, 24], [64, 20])
    """
    data = data if isinstance(data, DataConfig) else data_of(data)
    if data.verticals or data.segments is not None:
        raise InputError(
            "make_dataset: has targets of whole videos and classes; train on verticals or segments with yt8m-train"
        )
    if batch_size < 1:
        raise InputError(f"make_dataset: batch_size must be at least 1, got {batch_size}")
    spec, faults = data.spec, faults or Faults()
    paths = list_shards([shards] if isinstance(shards, str) else shards, source="make_dataset")
    check_first_records(paths, data, faults)
    passes = itertools.count()

    def read() -> Iterator[dict[str, Any]]:
        if seed is None:
            stream = evaluation_stream(paths, data, batch_size, faults=faults)
            for batch in at_least_one(stream, paths, faults, "make_dataset: no video was read"):
                valid = np.asarray(batch["valid"])
                yield {name: np.asarray(batch[name])[valid] for name in signature}
        else:
            stream = training_stream(paths, data, batch_size, seed=seed, faults=faults, single_pass=next(passes))
            for batch in stream:
                yield {name: batch[name] for name in signature}

    def as_pair(number: tf.Tensor, batch: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        targets = dense_targets(batch.pop("labels"), data.num_classes)
        frames_seed = None if seed is None else tf.stack([tf.constant(seed, tf.int64), number])
        return clips.decode_features(clips.prepare_clips(batch, spec, frames_seed), spec), targets

    signature = {**feature_specs(data), "labels": tf.TensorSpec([None, None], tf.int32)}
    batches = tf.data.Dataset.from_generator(read, output_signature=signature)
    pairs = batches.enumerate().map(as_pair, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)
    count = None if "skip" in (faults.on_damaged, faults.on_empty, faults.on_unlabelled) else count_records(paths)
    # Without the cardinality, Keras warns at the end of the first epoch that the data ran out.
    return pairs if count is None else pairs.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
