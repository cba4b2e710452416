"""Records of other kinds are read as written, by both readers, or refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import feature_kinds
import numpy as np
import pytest
import tensorflow as tf
from shards import write_shard

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.config.frames import FramesConfig, PreprocessingConfig, SamplingConfig
from yt8m_tf.data.clip_records import ClipParser
from yt8m_tf.data.clips import decode_features, prepare_clips
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream, training_stream
from yt8m_tf.data.record_check import check_record
from yt8m_tf.data.records import PARSE_FAILURES, clip_lengths, parse_ids, parse_labels, parse_records
from yt8m_tf.errors import InputError

_LEVELS: tuple[schema.Level, ...] = ("video", "frame")
_EPSILON = 1e-6  # relative to values of a few units, for float32 arithmetic


def _expect(batch: dict[str, Any], clips: list[feature_kinds.Clip], data: DataConfig) -> None:
    """Checks that a parsed batch, or its first rows, equals the records' content."""
    decoded = decode_features(batch, data.spec)
    for row, clip in enumerate(clips):
        assert batch["id"].numpy()[row] == clip.id
        assert [label for label in batch["labels"].numpy()[row] if label >= 0] == clip.labels
        if data.level == "video":
            for name, values in clip.features.items():
                np.testing.assert_allclose(decoded[name][row], values, rtol=0, atol=_EPSILON)
            continue
        lengths = {
            name: len(v) for name, v in clip.features.items() if not (len(v) == 1 and data.stored[name].in_context)
        }
        count = min([data.max_frames, *lengths.values()]) if lengths else 1
        assert int(batch["num_frames"][row]) == count
        for name, values in clip.features.items():
            wanted = np.broadcast_to(values, (count, values.shape[1])) if len(values) == 1 else values[:count]
            np.testing.assert_allclose(decoded[name][row, :count], wanted, rtol=0, atol=_EPSILON)
            assert np.isfinite(decoded[name]).all()


@pytest.mark.parametrize("level", _LEVELS)
@pytest.mark.parametrize("kind", feature_kinds.KINDS)
def test_records_are_read_as_they_were_written(kind: str, level: schema.Level, rng: np.random.Generator) -> None:
    data = feature_kinds.data_of(kind, level)
    serialized, clips = feature_kinds.records(kind, level, rng, 9)
    assert [check_record(record, data, need_labels=True) for record in serialized] == [None] * 9
    strings = tf.constant(serialized)
    batch = parse_records(strings, data)
    _expect(batch, clips, data)
    assert parse_ids(strings, data.id_keys).numpy().tolist() == [clip.id for clip in clips]
    assert parse_labels(strings, data.labels_key).to_list() == [clip.labels for clip in clips]
    stored = {name: feature.dtype for name, feature in data.stored.items()}
    for name, dtype in stored.items():
        assert batch[name].dtype.name == ("float32" if dtype == "float_list" else dtype)
    if level == "frame":
        uncut = [min(len(v) for n, v in c.features.items() if kind != "three" or n != "text") for c in clips]
        assert clip_lengths(strings, data).numpy().tolist() == uncut


@pytest.mark.parametrize("kind", [kind for kind in feature_kinds.KINDS if kind not in ("three", "one_list")])
def test_the_fast_reader_takes_every_list_of_frames(kind: str, rng: np.random.Generator) -> None:
    data = feature_kinds.data_of(kind, "frame")
    serialized = feature_kinds.records(kind, "frame", rng, 7)[0]
    found = ClipParser(data, need_labels=True).parse_batch(serialized)
    assert found is not None
    expected = parse_records(tf.constant(serialized), data)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for row, count in enumerate(expected["num_frames"].numpy()):
            kept = slice(count if values.shape.rank == 3 else None)  # values after the last frame are undefined
            np.testing.assert_array_equal(np.atleast_1d(found[name][row])[kept], np.atleast_1d(values[row])[kept])


@pytest.mark.parametrize(("kind", "level"), [("clip_bytes", "frame"), ("three", "frame"), ("clip_bytes", "video")])
def test_streams(kind: str, level: schema.Level, tmp_path: Path, rng: np.random.Generator) -> None:
    data = dataclasses.replace(feature_kinds.data_of(kind, level), shuffle_records=0, frame_lengths=(3,))
    serialized, clips = feature_kinds.records(kind, level, rng, 10)
    shard = str(write_shard(tmp_path / "train0.tfrecord", serialized))
    first, second, third = evaluation_stream([shard], data, 4, faults=Faults())
    for batch, start in ((first, 0), (second, 4), (third, 8)):
        _expect(batch, clips[start : start + 4], data)
    assert third["valid"].numpy().tolist() == [True, True, False, False]
    batch = next(training_stream([shard], data, 5, seed=0, faults=Faults()))
    _expect({**batch, "id": tf.constant([clip.id for clip in clips[:5]])}, clips[:5], data)


def _changed(record: bytes, change: Any) -> bytes:
    message = tf.train.SequenceExample.FromString(record)
    change(message.context.feature, message.feature_lists.feature_list)
    return message.SerializeToString()


def _set_float(key: str, frame: int, place: int, value: float) -> Any:
    def change(context: Any, lists: Any) -> None:
        lists[key].feature[frame].float_list.value[place] = value

    return change


def _set_bytes(key: str, values: np.ndarray) -> Any:
    def change(context: Any, lists: Any) -> None:
        lists[key].feature[2].bytes_list.value[0] = values.tobytes()

    return change


def _drop(key: str) -> Any:
    def change(context: Any, lists: Any) -> None:
        del context[key]

    return change


def _drop_frames(key: str) -> Any:
    def change(context: Any, lists: Any) -> None:
        del lists[key].feature[2:]

    return change


_CLIP = "CLIP/feature/floats"
_PROBLEMS = {
    "NaN in a list": (
        ("clip_floats", {}),
        _set_float(_CLIP, 1, 4, np.nan),
        f"frame 1 of '{_CLIP}' contains nan at 4, 1 of 30 values are not finite; write the shard again",
    ),
    "infinity in bytes": (
        ("clip_bytes", {}),
        _set_bytes("clip", np.array([1, 2, np.inf, 3, np.nan, 1], np.float16)),
        "frame 2 of 'clip' contains inf at 2, 2 of 30 values are not finite; write the shard again",
    ),
    "out of range in bytes": (
        ("clip_bytes", {}),
        _set_bytes("clip", np.array([1, 2, 4.5, -4, 4, -9], np.float16)),
        "frame 2 of 'clip' contains 4.5 at 2, 2 of 30 values lie outside [-4, 4]; change data.features.clip.range, or"
        " write the shard again",
    ),
    "another size": (
        ("clip_bytes", {}),
        _set_bytes("clip", np.zeros(5, np.float16)),
        "frame 2 of 'clip' has 10 bytes, data.features says clip: 6; set data.features.clip: 5, or give other shards",
    ),
    "another dtype": (
        ("clip_bytes", {}),
        _set_bytes("clip", np.zeros(6, np.float32)),
        "frame 2 of 'clip' has 24 bytes, not 12 of float16; set data.features.clip.dtype: float32, or name the right"
        " key in data.keys.clip",
    ),
    "no whole number of values": (
        ("clip_bytes", {}),
        _set_bytes("clip", np.zeros(11, np.uint8)),
        "frame 2 of 'clip' has 11 bytes, not a whole number of float16; name the right key in data.keys.clip",
    ),
    "floats for codes": (
        ("mediapipe", {"features": {"rgb": 8}, "keys": {"id": "clip/data_path", "rgb": "RGB/feature/floats"}}),
        lambda context, lists: None,
        "frame 0 of 'RGB/feature/floats' is a list of 8 float values, not one of bytes; set data.features.rgb.dtype:"
        " float_list, or name the right key in data.keys.rgb",
    ),
    "codes for floats": (
        ("audioset", {"features": {"audio": FeatureConfig(5, "float_list")}}),
        lambda context, lists: None,
        "frame 0 of 'audio_embedding' is a list of 1 bytes value, not float; name the right key in data.keys.audio",
    ),
    "another key of the id": (
        ("clip_bytes", {}),
        _drop("key"),
        "no 'key' (it has: labels); name its key in data.keys.id, or give YouTube-8M shards",
    ),
    "no key of the id": (
        ("clip_bytes", {"keys": {}}),
        lambda context, lists: None,
        "neither 'id' nor 'video_id' (it has: key, labels); name its key in data.keys.id, or give YouTube-8M shards",
    ),
    "other numbers of frames": (
        ("mediapipe", {}),
        _drop_frames("RGB/feature/floats"),
        "features of different numbers of frames: 2 in 'RGB/feature/floats', 6 in 'AUDIO/feature/floats'; they may"
        " differ by data.max_frame_difference: 1; raise it if the shorter one is to count, or write the shard again",
    ),
    "a part of a frame": (
        ("one_list", {}),
        lambda context, lists: context["clip"].float_list.value.append(1.0),
        "'clip' has 31 values, not a multiple of 6; name the right key in data.keys.clip",
    ),
    "NaN in the context": (
        ("three", {}),
        lambda context, lists: context["text"].bytes_list.value.__setitem__(
            0, np.array([0, np.nan, 0, 0, 0, 0], "<f4").tobytes()
        ),
        "'text' contains nan at 1, 1 of 6 values are not finite; write the shard again",
    ),
}


@pytest.mark.parametrize("case", _PROBLEMS)
def test_records_and_features_that_do_not_fit_are_named(case: str, rng: np.random.Generator) -> None:
    """The mismatch is named, and neither parser accepts the record."""
    (kind, changes), change, message = _PROBLEMS[case]
    data = dataclasses.replace(feature_kinds.data_of(kind, "frame"), **changes)
    bad = _changed(feature_kinds.record(kind, "frame", rng, b"v1", [1])[0], change)
    assert check_record(bad, data, need_labels=False) == message
    assert any(f.in_context for f in data.stored.values()) or ClipParser(data, False).parse_batch([bad]) is None
    with pytest.raises(PARSE_FAILURES):
        parse_records(tf.constant([bad]), data)


@pytest.mark.parametrize("on_empty", ["error", "skip"])
def test_streams_name_the_record(on_empty: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """The fast reader and TensorFlow's parser, which is used if records may be left out, both name the record."""
    (kind, _), change, message = _PROBLEMS["out of range in bytes"]
    good = [feature_kinds.record(kind, "frame", rng, b"v%d" % i, [1])[0] for i in range(3)]
    shard = str(write_shard(tmp_path / "train0.tfrecord", [good[0], _changed(good[1], change), good[2]]))
    with pytest.raises(InputError) as caught:
        list(evaluation_stream([shard], feature_kinds.data_of(kind, "frame"), 3, faults=Faults(on_empty=on_empty)))
    assert str(caught.value) == f"{shard}: record 1, video 'v1': {message}"


def test_a_range_of_floats_and_a_sum_that_overflows(rng: np.random.Generator) -> None:
    """The sums overflow, of float16 values and of float32 values of 1e38; each value is finite."""
    data = DataConfig(level="frame", features={"a": FeatureConfig(4, "float16"), "b": FeatureConfig(3, "float32")})
    frames = {"a": np.full((40, 4), 60_000, "<f2"), "b": np.full((40, 3), 1e35, "<f4")}
    message = tf.train.SequenceExample()
    message.context.feature["id"].bytes_list.value.append(b"v")
    for name, values in frames.items():
        for row in values:
            message.feature_lists.feature_list[name].feature.add().bytes_list.value.append(row.tobytes())
    batch = parse_records(tf.constant([message.SerializeToString()]), data.records)
    for name, values in frames.items():
        np.testing.assert_array_equal(batch[name][0, :40], values)


def test_features_may_differ_in_length_if_allowed(rng: np.random.Generator) -> None:
    data = feature_kinds.data_of("mediapipe", "frame")
    record = _changed(feature_kinds.record("mediapipe", "frame", rng, b"v", [1])[0], _drop_frames("RGB/feature/floats"))
    for most in (4, None):
        own = dataclasses.replace(data, max_frame_difference=most)
        assert check_record(record, own, need_labels=True) is None
        assert parse_records(tf.constant([record]), own)["num_frames"].numpy().tolist() == [2]
        found = ClipParser(own, need_labels=True).parse_batch([record])
        assert found is not None and found["num_frames"].tolist() == [2]


def test_a_record_of_both_levels_is_read_at_either() -> None:
    message = tf.train.SequenceExample()
    message.context.feature["id"].bytes_list.value.append(b"v")
    message.context.feature["mean_rgb"].float_list.value.extend([0.5, 1.5])
    message.feature_lists.feature_list["rgb"].feature.add().bytes_list.value.append(b"\x01\x02")
    serialized = message.SerializeToString()
    for level in _LEVELS:
        data = DataConfig(level=level, features={"rgb": 2}).records
        assert check_record(serialized, data, need_labels=False) is None
        assert parse_records(tf.constant([serialized]), data)["rgb"].shape[-1] == 2


@pytest.mark.parametrize("name", ["random_segments", "cosine", "farthest_first", "crop", "every_nth", "random_frames"])
def test_frames_are_sampled_by_their_values(name: Any, rng: np.random.Generator) -> None:
    """Sampling of floats, and of codes of other ranges, depends only on the decoded values."""
    sampling = SamplingConfig(name=name, when="always", count=3, min_frames=2, max_frames=3)
    own = dataclasses.replace(feature_kinds.data_of("three", "frame"), frames=FramesConfig(sampling=sampling))
    floats = {n: FeatureConfig(size, "float32") for n, size in own.sizes.items()}
    plain = dataclasses.replace(own, features=floats)
    batch = parse_records(tf.constant(feature_kinds.records("three", "frame", rng, 5)[0]), own)
    decoded = {**batch, **decode_features(batch, own.spec)}
    found = decode_features(prepare_clips(batch, own.spec), own.spec)
    expected = prepare_clips(decoded, plain.spec)
    for feature in own.sizes:
        for row, count in enumerate(expected["num_frames"].numpy()):
            np.testing.assert_allclose(found[feature][row, :count], expected[feature][row, :count], atol=_EPSILON)


def test_frames_are_preprocessed_by_their_values(rng: np.random.Generator) -> None:
    frames = FramesConfig(preprocessing=PreprocessingConfig(name="moving_average", window=3))
    data = dataclasses.replace(feature_kinds.data_of("clip_bytes", "frame"), frames=frames)
    serialized, clips = feature_kinds.records("clip_bytes", "frame", rng, 4)
    found = decode_features(prepare_clips(parse_records(tf.constant(serialized), data), data.spec), data.spec)
    for row, clip in enumerate(clips):
        values = clip.features["clip"]
        expected = [v - values[max(i - 1, 0) : i + 2].mean(axis=0) for i, v in enumerate(values)]
        np.testing.assert_allclose(found["clip"][row, : len(values)], expected, atol=1e-5)
