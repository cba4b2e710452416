"""The workload of the benchmarks: shards of random records in the original formats, and one model."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Options
from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.data.record_writing import VideoRecord, clip_example, video_example
from yt8m_tf.data.shards import list_shards
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.sample_data.frames import FrameCounts

# Videos per shard as in real shards; a video takes about 5 KB, a clip about 250 KB.
_VIDEO_SHARDS, _VIDEOS_PER_SHARD = 40, 284
_FRAME_SHARDS, _CLIPS_PER_SHARD = 10, 100
MAX_FRAMES = 300  # as in the starter code


def video_data() -> DataConfig:
    """Returns the configuration of video-level records with the sizes of the 2018 version."""
    return DataConfig()


def frame_data() -> DataConfig:
    """Returns the configuration of frame-level records, truncated to 300 frames."""
    return DataConfig(level="frame", max_frames=MAX_FRAMES)


def video_shards(options: Options) -> list[str]:
    """Returns the shards of `options.data_dir`, or writes new ones.

    Raises:
      InputError: the directory has no shards.
    """
    if options.data_dir is not None:
        return list_shards(["*.tfrecord"], options.data_dir, "--data_dir")
    shards, each = (2, 40) if options.quick else (_VIDEO_SHARDS, _VIDEOS_PER_SHARD)
    return [_write(options, f"video{i:04d}", _videos(each, np.random.default_rng(i))) for i in range(shards)]


def frame_shards(options: Options) -> list[str]:
    """Writes shards of clips of 120 to 300 random frames."""
    shards, each = (2, 5) if options.quick else (_FRAME_SHARDS, _CLIPS_PER_SHARD)
    return [_write(options, f"frame{i:04d}", _clips(each, np.random.default_rng(i))) for i in range(shards)]


def count_records(shards: list[str]) -> int:
    """Counts the records of all shards, which brings the shards into the page cache."""
    return int(tf.data.TFRecordDataset(shards).reduce(np.int64(0), lambda count, _: count + 1))


def experiment(quick: bool, batch_size: int) -> ExperimentConfig:
    """Returns resnet_like with one block of each kind, dropout 0.4, Adam, no mixup; inner_size 1024 unless `quick`."""
    model: dict[str, Any] = {"name": "resnet_like", "inner_size": 32 if quick else 1024, "dropout": 0.4}
    return parse_experiment({"model": model, "train": {"batch_size": batch_size}})


def _write(options: Options, name: str, records: Iterator[bytes]) -> str:
    path = os.path.join(options.directory, f"{name}.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path


def _videos(number: int, rng: np.random.Generator) -> Iterator[bytes]:
    for i in range(number):
        means = {name: rng.uniform(-2, 2, size).astype(np.float32) for name, size in schema.FEATURE_SIZES.items()}
        yield video_example(VideoRecord(f"{i:04d}".encode(), _labels(rng), means))


def _clips(number: int, rng: np.random.Generator) -> Iterator[bytes]:
    for i, length in enumerate(FrameCounts(120, MAX_FRAMES).draw(number, rng)):
        frames = {name: rng.integers(0, 256, (length, size), np.uint8) for name, size in schema.FEATURE_SIZES.items()}
        yield clip_example(VideoRecord(f"{i:04d}".encode(), _labels(rng), {}), frames)


def _labels(rng: np.random.Generator) -> list[int]:
    """Draws 1 to 5 different classes."""
    return sorted(rng.choice(schema.NUM_CLASSES, rng.integers(1, 6), replace=False).tolist())
