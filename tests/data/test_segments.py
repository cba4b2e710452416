"""Rated segments as examples: they equal those of a plain reference, in an order that resumes exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from segments import cut_plainly, random_records, rated_record
from shards import frame_record, video_record, write_shard

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.segments import SegmentsConfig
from yt8m_tf.data import pipeline
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.segments import parse_segments
from yt8m_tf.data.statistics import rating_prior, uniform_prior
from yt8m_tf.errors import InputError

_CLASSES = 10


def _data(context: int = 0, **changes: Any) -> DataConfig:
    values = {"level": "frame", "features": {"rgb": 8, "audio": 4}, "num_classes": _CLASSES, "max_frames": 40}
    segments = SegmentsConfig(5, context)
    return DataConfig(**{**values, "max_labels": 6, "segments": segments, "shuffle_shards": 2} | changes)  # type: ignore[arg-type]


def _unpadded(batch: dict[str, Any], row: int) -> dict[str, Any]:
    """One example in the form of `cut_plainly`."""
    count = int(batch["num_frames"][row])
    rated = batch["rated_classes"][row]
    ratings = {int(c): float(r) for c, r in zip(rated, batch["ratings"][row], strict=True) if c >= 0}
    frames = {name: np.asarray(batch[name][row][:count]) for name in ("rgb", "audio")}
    return {"id": bytes(batch["id"][row]) if "id" in batch else None, "ratings": ratings, **frames}


def _assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual["id"] == expected["id"]
    assert actual["ratings"] == pytest.approx(expected["ratings"], abs=1e-6)
    for name in ("rgb", "audio"):
        np.testing.assert_array_equal(actual[name], expected[name])


@pytest.mark.parametrize("context", [0, 3])
def test_segments_are_those_of_a_plain_cut(context: int, rng: np.random.Generator) -> None:
    records, faults = random_records(rng, 40), Faults()
    expected, beyond = [], 0
    for record in records:
        own, missing = cut_plainly(record, 5, context)
        expected, beyond = expected + own, beyond + missing
    found = {k: v.numpy() for k, v in parse_segments(tf.constant(records), _data(context), faults).items()}
    assert found["rgb"].shape == (len(expected), 5 + 2 * context, 8)
    assert found["ratings"].shape == found["rated_classes"].shape == (len(expected), 6)
    assert beyond > 0 and faults.num_beyond == beyond
    assert (found["num_frames"] < 5 + 2 * context).any() and (found["num_frames"] >= 1).all()
    for row, segment in enumerate(expected):
        _assert_same(_unpadded(found, row), segment)


def test_records_without_ratings_give_no_segments() -> None:
    codes = np.zeros((6, 8), np.uint8), np.zeros((6, 4), np.uint8)
    none = frame_record(b"a", [1], rgb=codes[0], audio=codes[1])
    found = parse_segments(tf.constant([none, none]), _data(), Faults())
    assert found["rgb"].shape == (0, 5, 8) and found["rated_classes"].shape == (0, 6)


def _written(directory: Path, rng: np.random.Generator, shards: int = 4, each: int = 12) -> list[str]:
    return [
        str(write_shard(directory / f"train{n}.tfrecord", random_records(rng, each, prefix=f"s{n}_")))
        for n in range(shards)
    ]


def _segments_of(shards: list[str]) -> list[dict[str, Any]]:
    records = [bytes(r.numpy()) for shard in shards for r in tf.data.TFRecordDataset(shard)]
    return [segment for record in records for segment in cut_plainly(record, 5)[0]]


def _take(stream: Iterator[dict[str, Any]], count: int) -> list[dict[str, np.ndarray]]:
    return [{name: value.numpy() for name, value in next(stream).items()} for _ in range(count)]


def _rows(batches: list[dict[str, np.ndarray]]) -> list[bytes]:
    """Each example as bytes: frames and ratings distinguish segments."""
    return [
        b"".join(batch[name][row].tobytes() for name in sorted(batch))
        for batch in batches
        for row in range(len(batch["rgb"]))
    ]


def test_a_pass_has_every_segment_once_and_is_resumed_at_any_batch(tmp_path: Path, rng: np.random.Generator) -> None:
    shards = _written(tmp_path, rng, shards=3, each=5)
    total = len(_segments_of(shards))
    stream = pipeline.training_stream(shards, _data(), 1, seed=5, faults=Faults())
    whole, positions = [], []
    for _ in range(total + 20):
        whole += _take(stream, 1)
        positions.append(stream.position)
    once = _rows(whole[:total])
    assert sorted(once) == sorted(
        _rows(_take(pipeline.training_stream(shards, _data(), 1, seed=9, faults=Faults()), total))
    )
    assert len(set(once)) == total
    for start in (total - 1, total + 7):  # at the end of a pass, and within one
        again = pipeline.training_stream(shards, _data(), 1, seed=5, faults=Faults(), position=positions[start])
        assert _rows(_take(again, 5)) == _rows(whole[start + 1 : start + 6])


def test_segments_of_one_video_are_shuffled_apart(tmp_path: Path, rng: np.random.Generator) -> None:
    shards = _written(tmp_path, rng)
    in_order = _rows(_take(pipeline.training_stream(shards, _data(shuffle_records=0), 1, seed=5, faults=Faults()), 30))
    shuffled = _rows(_take(pipeline.training_stream(shards, _data(), 1, seed=5, faults=Faults()), 30))
    assert in_order != shuffled
    places = [in_order.index(row) for row in shuffled if row in in_order]
    assert len(places) > 5 and np.abs(np.diff(places)).mean() > 2


@pytest.mark.end_to_end
def test_workers_share_the_batch_of_one(tmp_path: Path, rng: np.random.Generator) -> None:
    shards, data = _written(tmp_path, rng), _data(split="record")
    one = _take(pipeline.training_stream(shards, data, 8, seed=5, faults=Faults()), 3)
    workers = [
        _take(pipeline.training_stream(shards, data, 8, seed=5, faults=Faults(), worker=w, num_workers=2), 3)
        for w in range(2)
    ]
    assert _rows([part for step in zip(*workers, strict=True) for part in step]) == _rows(one)


def test_an_evaluation_has_every_segment_in_order(tmp_path: Path, rng: np.random.Generator) -> None:
    shards = _written(tmp_path, rng, shards=2)
    expected, faults = _segments_of(shards), Faults()
    found = []
    for batch in pipeline.evaluation_stream(shards, _data(), 8, faults=faults):
        values = {name: value.numpy() for name, value in batch.items()}
        assert values["valid"].shape == (8,)
        found += [_unpadded(values, row) for row in np.flatnonzero(values["valid"])]
    for actual, segment in zip(found, expected, strict=True):
        _assert_same(actual, segment)
    assert faults.num_beyond and "rated segments that start beyond their clips" in faults.summary()[0]


def test_clips_without_frames_are_left_out_on_request(tmp_path: Path, rng: np.random.Generator) -> None:
    empty = rated_record(b"empty", [(0, 1, 1.0)], rgb=np.zeros((0, 8), np.uint8), audio=np.zeros((0, 4), np.uint8))
    shard = str(write_shard(tmp_path / "train.tfrecord", [empty, *random_records(rng, 5)]))
    faults = Faults(on_empty="skip")
    batches = list(pipeline.evaluation_stream([shard], _data(), 4, faults=faults))
    assert sum(int(batch["valid"].numpy().sum()) for batch in batches) == len(_segments_of_records(shard)) > 0
    assert faults.num_empty == 1
    with pytest.raises(InputError, match=r"train\.tfrecord: record 0, video 'empty': no frames at all"):
        list(pipeline.evaluation_stream([shard], _data(), 4, faults=Faults()))


def _segments_of_records(shard: str) -> list[dict[str, Any]]:
    records = [bytes(r.numpy()) for r in tf.data.TFRecordDataset(shard)]
    return [segment for record in records[1:] for segment in cut_plainly(record, 5)[0]]


def _changed(change: Callable[[Any], None]) -> bytes:
    codes = np.ones((12, 12), np.uint8)
    record = tf.train.SequenceExample.FromString(
        rated_record(b"bad", [(0, 1, 1.0), (5, 2, 0.0)], rgb=codes[:, :8], audio=codes[:, 8:])
    )
    change(record.context.feature)
    return record.SerializeToString()


_BAD = {
    "another length": (
        lambda f: f["segment_labels"].int64_list.value.pop(),
        "lists of ratings of different lengths: 2 in",
    ),
    "fewer ends": (lambda f: f["segment_end_times"].int64_list.value.pop(), "1 in 'segment_end_times'"),
    "no scores": (lambda f: f.pop("segment_scores"), "0 in 'segment_scores'"),
    "score above 1": (
        lambda f: f["segment_scores"].float_list.value.__setitem__(1, 1.5),
        r"the rating of class 2 at second 5 is 1\.5, not in \[0, 1\]",
    ),
    "score below 0": (lambda f: f["segment_scores"].float_list.value.__setitem__(0, -0.5), r"is -0\.5, not in"),
    "score NaN": (lambda f: f["segment_scores"].float_list.value.__setitem__(1, float("nan")), "is nan, not in"),
    "class too high": (
        lambda f: f["segment_labels"].int64_list.value.__setitem__(1, _CLASSES),
        "class 10, rated at second 5, is not below data.num_classes: 10",
    ),
    "class below 0": (lambda f: f["segment_labels"].int64_list.value.__setitem__(1, -1), "-1, which is negative"),
    "start below 0": (lambda f: f["segment_start_times"].int64_list.value.__setitem__(0, -5), "-5, which is negative"),
    "scores as integers": (
        lambda f: (f.pop("segment_scores"), f["segment_scores"].int64_list.value.extend([1, 0])),
        "'segment_scores' is a list of 2 int64 values, not float",
    ),
}


_SOON = ("another length", "score NaN", "class too high")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in _SOON)) for kind in _BAD])
def test_bad_ratings_are_named(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    change, message = _BAD[kind]
    shard = str(write_shard(tmp_path / "train.tfrecord", [*random_records(rng, 9), _changed(change)]))
    with pytest.raises(InputError, match=f"train.tfrecord: record 9, video 'bad': .*{message}") as error:
        list(pipeline.evaluation_stream([shard], _data(), 4, faults=Faults()))
    assert "\n" not in str(error.value)


def test_more_ratings_of_a_segment_than_max_labels_are_named(tmp_path: Path) -> None:
    codes = np.ones((12, 12), np.uint8)
    many = rated_record(b"many", [(5, c, 1.0) for c in range(7)], rgb=codes[:, :8], audio=codes[:, 8:])
    shard = str(write_shard(tmp_path / "train.tfrecord", [many]))
    with pytest.raises(InputError, match=r"7 classes are rated at second 5, more than data\.max_labels: 6; raise"):
        list(pipeline.evaluation_stream([shard], _data(), 4, faults=Faults()))
    segments = list(pipeline.evaluation_stream([shard], _data(max_labels=7), 4, faults=Faults()))
    assert (segments[0]["rated_classes"].numpy()[0] == np.arange(7)).all()


@pytest.mark.parametrize("kind", ["no ratings", "all beyond", "video level"])
def test_shards_without_segments_are_refused(kind: str, tmp_path: Path) -> None:
    codes = np.ones((4, 12), np.uint8)
    frames = {"rgb": codes[:, :8], "audio": codes[:, 8:]}
    record = {
        "no ratings": frame_record(b"a", [1], **frames),
        "all beyond": rated_record(b"a", [(5, 1, 1.0)], **frames),
        "video level": video_record(b"a", [1], rgb=np.ones(8, np.float32), audio=np.ones(4, np.float32)),
    }[kind]
    shard = str(write_shard(tmp_path / "train.tfrecord", [record] * 3))
    message = (
        "a video-level record; give frame-level" if kind == "video level" else "no clip of 1 shards has a rated segment"
    )
    with pytest.raises(InputError, match=message):
        pipeline.check_first_records([shard], _data(), Faults())
    with pytest.raises(InputError, match="no clip of 1 shards has a rated segment inside it"):
        _take(pipeline.training_stream([shard], _data(), 2, seed=1, faults=Faults()), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": "video"}, "data.segments is for clips"),
        ({"max_frames": 4}, "size \\+ 2 \\* context is 5, more than data.max_frames: 4"),
        ({"verticals": 25}, "ratings are of classes, not of verticals"),
        ({"features": {"ratings": 8}}, "data.features.ratings: batches of segments use that name for something else"),
    ],
)
def test_options_that_exclude_segments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _data(**changes)


def test_the_prior_is_the_mean_rating_of_a_class(tmp_path: Path, rng: np.random.Generator) -> None:
    shards = _written(tmp_path, rng)
    sums, counts = np.zeros(_CLASSES), np.zeros(_CLASSES)
    for record in (bytes(r.numpy()) for shard in shards for r in tf.data.TFRecordDataset(shard)):
        for segment in cut_plainly(record, 5, beyond=True)[0]:
            for label, rating in segment["ratings"].items():
                sums[label], counts[label] = sums[label] + rating, counts[label] + 1
    expected = (sums + uniform_prior(_CLASSES)) / (counts + 1)
    np.testing.assert_allclose(rating_prior(shards, _data(), 10_000, Faults()), expected, atol=1e-6)
    wide = dataclasses.replace(_data(), num_classes=20)
    np.testing.assert_allclose(rating_prior(shards, wide, 10_000, Faults())[_CLASSES:], uniform_prior(20)[_CLASSES:])
