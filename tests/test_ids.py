"""Record ids are unique: a missing or repeated id is reported, and records are never joined wrongly."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from shards import frame_record, video_record, write_shard
from stacking_world import make_world
from tiny_models import tiny_data, tiny_model, tiny_records

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream, training_stream
from yt8m_tf.data.record_check import check_record
from yt8m_tf.data.statistics import class_prior
from yt8m_tf.errors import InputError
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.score_shards.soft_labels import beside
from yt8m_tf.serving.inference import infer
from yt8m_tf.stacking.inputs import StackInputs

_DATA = DataConfig(features={"rgb": 2}, num_classes=6, shuffle_records=0)
_FRAME = dataclasses.replace(_DATA, level="frame", max_frames=4)


def _rename_id(serialized: bytes, key: str) -> bytes:
    """The same record with its id under another key."""
    record = tf.train.SequenceExample.FromString(serialized)
    record.context.feature[key].CopyFrom(record.context.feature.pop("id"))
    return record.SerializeToString()


def _records(level: str, *ids: bytes) -> list[bytes]:
    if level == "video":
        return [video_record(video, [1], rgb=np.ones(2, np.float32)) for video in ids]
    return [frame_record(video, [1], rgb=np.ones((2, 2), np.uint8)) for video in ids]


@pytest.mark.parametrize("level", ["video", "frame"])
@pytest.mark.parametrize(
    ("key", "video", "message"),
    [
        ("vid", b"b", r"record 1: neither 'id' nor 'video_id' \(it has: labels, .*vid"),
        ("id", b"", r"record 1: 'id' is empty \(it has: id, labels"),
    ],
)
def test_reading(level: str, key: str, video: bytes, message: str, tmp_path: Path) -> None:
    data = _DATA if level == "video" else _FRAME
    first, second = _records(level, b"a", video)
    shard = str(write_shard(tmp_path / "x.tfrecord", [first, second if key == "id" else _rename_id(second, key)]))
    for stream in (
        training_stream([shard], data, 2, seed=0, faults=Faults()),
        evaluation_stream([shard], data, 2, faults=Faults()),
    ):
        with pytest.raises(InputError, match=message):
            next(stream)


def test_2017_ids_are_ids() -> None:
    (record,) = _records("video", b"a")
    assert check_record(_rename_id(record, "video_id"), _DATA, need_labels=True) is None


@pytest.mark.parametrize("level", ["video", "frame"])
def test_inference(level: str, rng: np.random.Generator, tmp_path: Path) -> None:
    data = tiny_data(level)
    export_saved_model(tiny_model(data, rng), data, tmp_path / "m")
    good = tiny_records(data, rng, 3)
    shard = write_shard(tmp_path / "x.tfrecord", [good[0], _rename_id(good[1], "vid"), good[2]])
    with pytest.raises(InputError, match=r"x\.tfrecord: record 1: neither 'id' nor 'video_id' \(it has: .*vid"):
        infer(str(tmp_path / "m"), [str(shard)], tmp_path / "out.csv", progress=False)
    assert not (tmp_path / "out.csv").exists()


def test_stacking(rng: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(rng, tmp_path, each=5)
    shard = Path(world.train[0])
    serialized = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    for records, message in (
        ([_rename_id(serialized[0], "vid"), *serialized[1:]], "record 0: neither 'id' nor 'video_id'"),
        ([serialized[1], *serialized[1:]], "records 0 and 1 have the same id"),
    ):
        write_shard(shard, records)
        with pytest.raises(InputError, match=message):
            world.inputs("train", world.train).read(str(shard))


def _scores(directory: Path, ids: list[bytes], keys: Mapping[str, str] | None = None) -> Manifest:
    manifest = Manifest(("model",), "fingerprint", 6, 2, "video", keys=keys or {})
    start(directory, manifest)
    rows = [(video, np.array([1, 2], np.int32), np.array([0.5, 0.25], np.float16)) for video in ids]
    score_records.write_shard(directory / "x.tfrecord", rows)
    return finish(directory, dataclasses.replace(manifest, shards={"x.tfrecord": len(ids)}))


def test_an_id_of_two_scores(tmp_path: Path) -> None:
    manifest = _scores(tmp_path / "soft", [b"a", b"b", b"a"])
    with pytest.raises(InputError, match="records 0 and 2 have the same id 'a'"):
        read_shard(tmp_path / "soft", "x.tfrecord", manifest)
    shard = str(write_shard(tmp_path / "x.tfrecord", _records("video", b"a", b"b")))
    soft = beside(LabelsConfig(soft="soft"), str(tmp_path), _DATA)
    with pytest.raises(InputError, match="records 0 and 2 have the same id 'a'"):
        next(training_stream([shard], _DATA, 2, seed=0, faults=Faults(), beside=soft))
    shutil.rmtree(tmp_path / "soft")
    _scores(tmp_path / "soft", [b"b", b"a"])
    soft = beside(LabelsConfig(soft="soft"), str(tmp_path), _DATA)
    assert "soft_scores" in next(training_stream([shard], _DATA, 2, seed=0, faults=Faults(), beside=soft))


def test_ids_and_labels_under_other_keys(tmp_path: Path) -> None:
    """Reading, soft labels, stacking and messages use these keys, and ignore the standard keys."""
    keys = {"id": "vid", "labels": "tags"}
    data = dataclasses.replace(_DATA, keys=keys)
    serialized = []
    for record in _records("video", b"a", b"b"):
        message = tf.train.Example.FromString(record)
        fields = message.features.feature
        fields["vid"].CopyFrom(fields["id"])
        fields["id"].bytes_list.value[0] = b"same"
        fields["tags"].int64_list.value.extend([2, 4])
        serialized.append(message.SerializeToString())
    shard = str(write_shard(tmp_path / "x.tfrecord", serialized))
    batch = next(evaluation_stream([shard], data, 2, faults=Faults()))
    assert batch["id"].numpy().tolist() == [b"a", b"b"] and batch["labels"][:, :2].numpy().tolist() == [[2, 4]] * 2
    np.testing.assert_array_less(class_prior([shard], data, 2, Faults())[1], class_prior([shard], data, 2, Faults())[2])
    _scores(tmp_path / "soft", [b"b", b"a"], keys)
    soft = beside(LabelsConfig(soft="soft"), str(tmp_path), data)
    assert "soft_scores" in next(training_stream([shard], data, 2, seed=0, faults=Faults(), beside=soft))
    found = StackInputs([tmp_path / "soft"], ["model"], [shard]).read(shard)
    assert found.ids.tolist() == [b"a", b"b"] and found.labels.tolist() == [[2, 4]] * 2
    wrong = dataclasses.replace(data, keys={"id": "videoid"})
    message = check_record(serialized[0], wrong, need_labels=True)
    assert message is not None and message.startswith(
        "no 'videoid' (it has: id, labels, mean_rgb, tags, vid; its id is under 'id'); name its key"
    )
