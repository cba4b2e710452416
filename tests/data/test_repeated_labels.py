"""A class that a record names twice counts as one label everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from shards import frame_record, video_record, write_shard

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import training_stream
from yt8m_tf.data.record_check import check_record
from yt8m_tf.data.records import parse_labels, parse_records
from yt8m_tf.data.statistics import class_prior

_REPEATED = [[3, 1, 3, 3, 0, 1], [2], [], [5, 5]]
_ONCE = [[3, 1, 0], [2], [], [5]]


def _records(level: str, labels: list[list[int]]) -> list[bytes]:
    if level == "video":
        return [video_record(b"v%d" % i, own, rgb=np.ones(2, np.float32)) for i, own in enumerate(labels)]
    return [frame_record(b"v%d" % i, own, rgb=np.ones((2, 2), np.uint8)) for i, own in enumerate(labels)]


@pytest.mark.parametrize("level", ["video", "frame"])
def test_parsing(level: str) -> None:
    data = DataConfig(level=level, features={"rgb": 2}, num_classes=6, max_labels=3, max_frames=4)  # type: ignore[arg-type]
    serialized = _records(level, _REPEATED)
    parsed = parse_records(tf.constant(serialized), data)["labels"].numpy()
    assert parsed.tolist() == [own + [-1] * (3 - len(own)) for own in _ONCE]
    assert parse_labels(tf.constant(serialized)).to_list() == _ONCE
    assert [check_record(record, data, need_labels=False) for record in serialized] == [None] * 4  # 3 labels, not 6


def test_the_prior_and_the_stream_do_not_see_repetitions(tmp_path: Path) -> None:
    data = DataConfig(features={"rgb": 2}, num_classes=6, shuffle_records=0)
    shards = {}
    for name, labels in (("repeated", _REPEATED), ("once", _ONCE)):
        shards[name] = [str(write_shard(tmp_path / f"{name}.tfrecord", _records("video", labels)))]
    priors = [class_prior(shards[name], data, 100, Faults()) for name in shards]
    np.testing.assert_array_equal(*priors)
    batches = [
        next(training_stream(shards[name], data, 4, seed=0, faults=Faults(on_unlabelled="negative")))["labels"]
        for name in shards
    ]
    np.testing.assert_array_equal(*batches)
