"""Parsing of batches, eagerly and inside tf.data, against plain reading of the protocol buffers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import frame_record, video_record

from yt8m_tf.config.data import DataConfig, RecordsConfig
from yt8m_tf.data.records import PARSE_FAILURES, clip_lengths, parse_labels, parse_records

_VIDEO = DataConfig(features={"rgb": 6, "audio": 3}, num_classes=50, max_labels=4)
_FRAME = dataclasses.replace(_VIDEO, level="frame", max_frames=7, max_frame_difference=None)


def _rename(serialized: bytes, old: str, new: str, kind: str) -> bytes:
    """The record with a key of the context (at video level, of the features) renamed."""
    record = tf.train.Example() if kind == "video" else tf.train.SequenceExample()
    record.ParseFromString(serialized)
    features = (record.features if kind == "video" else record.context).feature
    features[new].CopyFrom(features[old])
    del features[old]
    return record.SerializeToString()


def _random_records(data: DataConfig, rng: np.random.Generator, number: int) -> list[bytes]:
    """Records of the 2017 and 2018 versions, some without labels; at frame level with lists of different lengths."""
    records = []
    for i in range(number):
        labels = None if i % 5 == 4 else sorted(rng.choice(data.num_classes, i % (data.max_labels + 1), replace=False))
        video_id = bytes(rng.choice(list(b"abcdefgh-_"), 11 if i % 2 else 4).astype(np.uint8))
        keys = {name: data.keys.get(name, name) for name in data.features}
        if data.level == "video":
            values = {keys[name]: rng.normal(size=size).astype("float32") for name, size in data.features.items()}
            record = video_record(video_id, labels, **values)
        else:
            length = int(rng.integers(1, data.max_frames + 3))
            lengths = dict.fromkeys(keys, length) | {next(iter(keys)): length + i % 3 - 1 if length > 1 else length}
            values = {
                keys[name]: rng.integers(0, 256, (lengths[name], size)).astype("uint8")
                for name, size in data.features.items()
            }
            record = frame_record(video_id, labels, **values)
        records.append(_rename(record, "id", "video_id", data.level) if i % 2 else record)
    return records


def _plain(serialized: bytes, data: DataConfig) -> tuple[bytes, list[int], dict[str, np.ndarray]]:
    """Id, labels and features of a record, read value by value, with all frames."""
    if data.level == "video":
        features = tf.train.Example.FromString(serialized).features.feature
        values = {name: np.array(features[data.key_of(name)].float_list.value) for name in data.features}
    else:
        record = tf.train.SequenceExample.FromString(serialized)
        features = record.context.feature
        values = {}
        for name, size in data.features.items():
            frames = record.feature_lists.feature_list[data.key_of(name)].feature
            values[name] = np.array([list(frame.bytes_list.value[0]) for frame in frames]).reshape(-1, size)
    key = "id" if "id" in features else "video_id"
    return features[key].bytes_list.value[0], list(features["labels"].int64_list.value), values


def _check(batch: dict[str, Any], serialized: Sequence[bytes], data: DataConfig) -> None:
    """Checks every value of a parsed batch against the plain reading."""
    assert batch.keys() == {"id", "labels", *data.features} | ({"num_frames"} if data.level == "frame" else set())
    plain = [_plain(record, data) for record in serialized]
    assert batch["id"].tolist() == [video_id for video_id, _, _ in plain]
    assert batch["labels"].dtype == np.int32 and batch["labels"].shape == (len(plain), data.max_labels)
    for row, (_, labels, _) in zip(batch["labels"], plain, strict=True):
        assert row.tolist() == labels + [-1] * (data.max_labels - len(labels))
    if data.level == "video":
        for name, size in data.features.items():
            assert batch[name].dtype == np.float32 and batch[name].shape == (len(plain), size)
            np.testing.assert_array_equal(batch[name], np.array([values[name] for _, _, values in plain], np.float32))
        return
    lengths = [min(data.max_frames, *map(len, values.values())) for _, _, values in plain]
    assert batch["num_frames"].dtype == np.int32 and batch["num_frames"].tolist() == lengths
    padded = min(length for length in (*data.frame_lengths, data.max_frames) if length >= max(lengths))
    for name, size in data.features.items():
        assert batch[name].dtype == np.uint8 and batch[name].shape == (len(plain), padded, size)
        for found, (_, _, values), length in zip(batch[name], plain, lengths, strict=True):
            np.testing.assert_array_equal(found[:length], values[name][:length])


def _parse(serialized: Sequence[bytes], data: RecordsConfig) -> dict[str, Any]:
    parsed = parse_records(tf.constant(serialized), data)
    return {name: value.numpy() for name, value in parsed.items()}


@pytest.mark.parametrize("level", ["video", "frame"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"features": {"rgb": 6}},
        {"features": {"audio": 3}},
        {"features": {"audio": 1, "rgb": 17, "flow": 2}},
        {"features": {"rgb": 6, "audio": 3}, "keys": {"rgb": "inception"}},
        {"frame_lengths": (3, 5), "max_frames": 9},
        {"max_frames": 1},
    ],
    ids=lambda changes: ",".join(changes) or "standard",
)
def test_equals_a_plain_reading(level: str, changes: dict[str, Any], rng: np.random.Generator) -> None:
    data = dataclasses.replace(_VIDEO if level == "video" else _FRAME, **changes)
    if level == "video" and data.keys:
        data = dataclasses.replace(data, keys={"rgb": "mean_inception"})
        records = _random_records(dataclasses.replace(data, keys={"rgb": "inception"}), rng, 13)
    else:
        records = _random_records(data, rng, 13)
    _check(_parse(records, data), records, data)
    dataset = tf.data.Dataset.from_tensor_slices(records).batch(5).map(lambda batch: parse_records(batch, data))
    for start, batch in zip(range(0, 13, 5), dataset.as_numpy_iterator(), strict=True):
        _check(batch, records[start : start + 5], data)


@pytest.mark.parametrize("data", [_VIDEO, _FRAME], ids=["video", "frame"])
def test_features_that_are_not_named_are_not_read(data: DataConfig, rng: np.random.Generator) -> None:
    records = _random_records(data, rng, 6)
    rgb_only = dataclasses.replace(data, features={"rgb": 6})
    parsed = _parse(records, rgb_only)
    assert "audio" not in parsed
    if data.level == "frame":  # the length of audio is then ignored
        lengths = [min(7, len(_plain(record, rgb_only)[2]["rgb"])) for record in records]
        assert parsed["num_frames"].tolist() == lengths
    else:
        _check(parsed, records, rgb_only)


@pytest.mark.parametrize("lengths", [(3, 4), (4, 3), (3, 3), (9, 8), (8, 30)])
def test_the_shorter_list_counts(lengths: tuple[int, int], rng: np.random.Generator) -> None:
    rgb, audio = (rng.integers(0, 256, (t, d)).astype("uint8") for t, d in zip(lengths, (6, 3), strict=True))
    record = frame_record(b"abcd", [1], rgb=rgb, audio=audio)
    parsed = _parse([record], _FRAME)
    expected = min(*lengths, 7)
    assert parsed["num_frames"].tolist() == [expected]
    np.testing.assert_array_equal(parsed["rgb"][0, :expected], rgb[:expected])
    np.testing.assert_array_equal(parsed["audio"][0, :expected], audio[:expected])
    assert clip_lengths(tf.constant([record]), _FRAME).numpy().tolist() == [min(lengths)]  # the full length


@pytest.mark.parametrize(("longest", "padded"), [(1, 3), (3, 3), (4, 5), (5, 5), (6, 7), (7, 7), (12, 7)])
def test_batches_are_padded_to_the_shortest_length_that_fits(longest: int, padded: int) -> None:
    data = dataclasses.replace(_FRAME, frame_lengths=(5, 3))
    clips = [np.ones((t, 6), "uint8") for t in (longest, 1)]
    records = [frame_record(b"abcd", [], rgb=clip, audio=clip[:, :3]) for clip in clips]
    parsed = _parse(records, data)
    assert parsed["rgb"].shape == (2, padded, 6) and parsed["audio"].shape == (2, padded, 3)
    assert parsed["num_frames"].tolist() == [min(longest, 7), 1]


def test_clips_without_frames() -> None:
    empty = frame_record(b"abcd", [1], rgb=np.zeros((0, 6), "uint8"), audio=np.zeros((2, 3), "uint8"))
    nothing = frame_record(b"abcd", [1])
    records = tf.constant([empty, nothing])
    assert clip_lengths(records, _FRAME).numpy().tolist() == [0, 0]
    assert parse_records(records, _FRAME)["num_frames"].numpy().tolist() == [0, 0]


def test_static_shapes_inside_a_graph() -> None:
    shapes: Any
    for data, shapes in ((_VIDEO, {"rgb": [None, 6]}), (_FRAME, {"rgb": [None, None, 6], "num_frames": [None]})):
        dataset = tf.data.Dataset.from_tensors([b""]).map(lambda batch, data=data: parse_records(batch, data))
        spec = dataset.element_spec
        assert spec["labels"].shape[1] == data.max_labels
        for name, shape in shapes.items():
            assert spec[name].shape.as_list() in (shape, [1, *shape[1:]])


@pytest.mark.parametrize("data", [_VIDEO, _FRAME], ids=["video", "frame"])
def test_fields_of_the_segment_data_are_ignored(data: DataConfig, rng: np.random.Generator) -> None:
    records = _random_records(data, rng, 4)
    extended = []
    for serialized in records:
        record = tf.train.Example() if data.level == "video" else tf.train.SequenceExample()
        record.ParseFromString(serialized)
        features = (record.features if data.level == "video" else record.context).feature
        features["segment_labels"].int64_list.value.extend([1, 2, 3])
        features["segment_start_times"].int64_list.value.extend([0, 5, 10])
        features["segment_scores"].float_list.value.extend([0.0, 1.0, 0.5])
        extended.append(record.SerializeToString())
    _check(_parse(extended, data), records, data)


@pytest.mark.parametrize("data", [_VIDEO, _FRAME], ids=["video", "frame"])
def test_labels_without_features_and_features_without_labels(data: DataConfig, rng: np.random.Generator) -> None:
    records = _random_records(data, rng, 10)
    labels = parse_labels(tf.constant(records))
    assert labels.to_list() == [_plain(record, data)[1] for record in records]
    without = _parse(records, data.records)
    assert "labels" not in without
    np.testing.assert_array_equal(without["rgb"], _parse(records, data)["rgb"])


def test_parsing_only_labels_does_not_check_them() -> None:
    record = video_record(b"abcd", [99, -3, 1, 2, 3, 4, 5], rgb=np.zeros(1, "float32"))
    assert parse_labels(tf.constant([record])).to_list() == [[99, -3, 1, 2, 3, 4, 5]]


def _vectors(**changes: Any) -> bytes:
    values = {"rgb": np.ones(6, "float32"), "audio": np.ones(3, "float32")} | changes
    return video_record(b"abcd", values.pop("labels", [1]), **{k: v for k, v in values.items() if v is not None})


def _clips(**changes: Any) -> bytes:
    values = {"rgb": np.ones((2, 6), "uint8"), "audio": np.ones((2, 3), "uint8")} | changes
    return frame_record(b"abcd", values.pop("labels", [1]), **values)


def _two_strings_in_a_frame() -> bytes:
    record = tf.train.SequenceExample.FromString(_clips())
    record.feature_lists.feature_list["rgb"].feature[1].bytes_list.value.append(b"123456")
    return record.SerializeToString()


def _float_labels() -> bytes:
    record = tf.train.Example.FromString(_vectors())
    record.features.feature["labels"].float_list.value.append(1.0)
    return record.SerializeToString()


_BAD = {
    "no record": (_VIDEO, b"\x0a\xff\xff"),
    "other level": (_VIDEO, _clips()),
    "missing feature": (_VIDEO, _vectors(audio=None)),
    "too short": (_VIDEO, _vectors(rgb=np.ones(5, "float32"))),
    "too long": (_VIDEO, _vectors(rgb=np.ones(7, "float32"))),
    "whole numbers": (_VIDEO, _vectors(rgb=np.ones(6, "int64"))),
    "nan": (_VIDEO, _vectors(audio=np.array([0, np.nan, 1], "float32"))),
    "infinite": (_VIDEO, _vectors(rgb=np.array([0, 1, 1, 1, np.inf, 1], "float32"))),
    "infinities that cancel": (_VIDEO, _vectors(audio=np.array([np.inf, -np.inf, 1], "float32"))),
    "label too large": (_VIDEO, _vectors(labels=[1, 50])),
    "negative label": (_VIDEO, _vectors(labels=[-1])),
    "too many labels": (_VIDEO, _vectors(labels=[1, 2, 3, 4, 5])),
    "labels of floats": (_VIDEO, _float_labels()),
    "frames too short": (_FRAME, _clips(rgb=np.ones((2, 5), "uint8"))),
    "frames too long": (_FRAME, _clips(audio=np.ones((2, 4), "uint8"))),
    "two strings in a frame": (_FRAME, _two_strings_in_a_frame()),
    "frame label too large": (_FRAME, _clips(labels=[50])),
    "frame level too many labels": (_FRAME, _clips(labels=[1, 2, 3, 4, 5])),
    "no clip": (_FRAME, b"\x0a\xff\xff"),
}


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "tf.data"])
@pytest.mark.parametrize("name", _BAD)
def test_bad_records_are_errors(name: str, in_graph: bool, rng: np.random.Generator) -> None:
    data, bad = _BAD[name]
    good = _random_records(data, rng, 3)
    with pytest.raises(PARSE_FAILURES):
        if in_graph:
            next(iter(tf.data.Dataset.from_tensors([*good, bad]).map(lambda batch: parse_records(batch, data))))
        else:
            parse_records(tf.constant([*good, bad]), data)


def test_the_longest_list_of_labels_and_the_last_class_are_good() -> None:
    parsed = _parse([_vectors(labels=[0, 47, 48, 49])], _VIDEO)
    assert parsed["labels"].tolist() == [[0, 47, 48, 49]]
