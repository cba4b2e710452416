"""Clips parsed in place equal the result of TensorFlow's parser, or are left to it."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import frame_record, video_record, write_shard

from yt8m_tf.config.data import DataConfig, RecordsConfig
from yt8m_tf.data import integrity, pipeline
from yt8m_tf.data.clip_records import ClipParser
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream, training_stream
from yt8m_tf.data.records import PARSE_FAILURES, parse_records
from yt8m_tf.errors import InputError

_SIZES = {"rgb": 200, "audio": 17}  # with lengths encoded in two bytes and in one
_DATA = DataConfig(
    level="frame",
    features=_SIZES,
    num_classes=300,
    max_frames=9,
    frame_lengths=(4,),
    max_frame_difference=None,
    max_labels=5,
)


def _clip(rng: np.random.Generator, **changes: int) -> bytes:
    frames = {n: rng.integers(0, 256, (int(rng.integers(1, 12)), s)).astype(np.uint8) for n, s in _SIZES.items()}
    labels = rng.integers(0, 300, rng.integers(1, 6)).tolist()
    return frame_record(b"v%d" % rng.integers(1000), labels, **frames)


def _expect_the_same(parser: ClipParser, records: list[bytes], data: RecordsConfig) -> bool:
    """Compares a batch with TensorFlow's parser; returns whether it was parsed in place."""
    found = parser.parse_batch(records)
    if found is None:
        return False
    expected = parse_records(tf.constant(records), data)  # raises if TensorFlow's parser refuses a record
    assert found.keys() == expected.keys()
    _expect_equal(found, expected)
    return True


def _expect_equal(mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Compares batches, ignoring the codes after `num_frames`, which are undefined."""
    lengths = np.asarray(other["num_frames"])
    for name, values in other.items():
        pair = [np.asarray(mine[name]), np.asarray(values)]
        assert pair[0].shape == pair[1].shape
        if name in _SIZES:
            inside = np.arange(pair[0].shape[1]) < lengths[:, None]
            pair = [codes[inside] for codes in pair]
        np.testing.assert_array_equal(*pair, err_msg=name)


@pytest.mark.parametrize("data", [_DATA, _DATA.records, dataclasses.replace(_DATA, features={"audio": 17})])
def test_batches(data: RecordsConfig, rng: np.random.Generator) -> None:
    for _ in range(20):
        assert _expect_the_same(ClipParser(data, True), [_clip(rng) for _ in range(5)], data)


def _reordered(record: bytes, rng: np.random.Generator) -> bytes:
    """The same record, encoded by hand with its map entries in another order, and labels not packed."""
    parsed = tf.train.SequenceExample.FromString(record)

    def piece(number: int, content: bytes) -> bytes:
        length, encoded = len(content), bytearray()
        while length > 127:
            encoded.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *encoded, length]) + content

    def message(entries: list[tuple[bytes, bytes]]) -> bytes:
        order = rng.permutation(len(entries))
        return b"".join(piece(1, piece(1, entries[i][0]) + piece(2, entries[i][1])) for i in order)

    context = [(key.encode(), f.SerializeToString()) for key, f in parsed.context.feature.items() if key != "labels"]
    single = b"".join(bytes([0x08, n & 127 | 128, n >> 7]) for n in parsed.context.feature["labels"].int64_list.value)
    context += [(b"labels", piece(3, single)), (b"more", tf.train.Feature().SerializeToString())]
    lists = [(key.encode(), value.SerializeToString()) for key, value in parsed.feature_lists.feature_list.items()]
    parts = [piece(1, message(context)), piece(2, message([*lists, (b"other", lists[0][1])]))]
    return b"".join(parts[i] for i in rng.permutation(2))


def test_the_order_of_entries_does_not_matter(rng: np.random.Generator) -> None:
    records = [_clip(rng) for _ in range(6)]
    others = [_reordered(record, rng) for record in records]
    assert _expect_the_same(ClipParser(_DATA, True), others, _DATA)
    first, second = (ClipParser(_DATA, True).parse_batch(batch) for batch in (records, others))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def _changed(record: bytes, change: Callable[[tf.train.SequenceExample], object]) -> bytes:
    parsed = tf.train.SequenceExample.FromString(record)
    change(parsed)
    return parsed.SerializeToString()


@pytest.mark.parametrize(
    "change",
    {
        "two values in a frame": lambda r: r.feature_lists.feature_list["rgb"].feature[0].bytes_list.value.append(b"x"),
        "a frame of another size": lambda r: (
            r.feature_lists.feature_list["rgb"].feature.add().bytes_list.value.append(b"x")
        ),
        "floats": lambda r: r.feature_lists.feature_list["rgb"].feature[0].float_list.value.append(1.0),
        "no frames": lambda r: r.feature_lists.feature_list["rgb"].ClearField("feature"),
        "no feature": lambda r: r.feature_lists.feature_list.pop("audio"),
        "no lists": lambda r: r.ClearField("feature_lists"),
        "no id": lambda r: r.context.feature.pop("id"),
        "two ids": lambda r: r.context.feature["id"].bytes_list.value.append(b"x"),
        "a number for an id": lambda r: r.context.feature["id"].int64_list.value.append(1),
        "a label out of range": lambda r: r.context.feature["labels"].int64_list.value.append(300),
        "a negative label": lambda r: r.context.feature["labels"].int64_list.value.append(-1),
        "too many labels": lambda r: r.context.feature["labels"].int64_list.value.extend(range(100, 106)),
        "no labels": lambda r: r.context.feature.pop("labels"),
    }.items(),
    ids=lambda item: item[0],
)
def test_records_of_unusual_form_are_left_to_tensorflow(
    change: tuple[str, Callable[[tf.train.SequenceExample], object]], rng: np.random.Generator
) -> None:
    records = [_clip(rng), _changed(_clip(rng), change[1])]
    assert ClipParser(_DATA, True).parse_batch(records) is None
    assert ClipParser(_DATA, True).parse_batch([video_record(b"v", [1], rgb=np.ones(4, np.float32))]) is None


def test_an_id_of_2017(rng: np.random.Generator) -> None:
    record = _changed(_clip(rng), lambda r: r.context.feature["video_id"].CopyFrom(r.context.feature.pop("id")))
    assert _expect_the_same(ClipParser(_DATA, True), [record], _DATA)


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_records_have_the_same_values_or_are_left_to_tensorflow(count: int, rng: np.random.Generator) -> None:
    """Bytes are replaced, removed, inserted or cut off; most mutations hit the headers, which have few bytes."""
    in_place = 0
    for _ in range(count):
        record = bytearray(_clip(rng))
        marks = [i for i, byte in enumerate(record) if byte in (0x0A, 0x12, 0x1A)] if rng.random() < 0.5 else None
        for _ in range(int(rng.integers(1, 3))):
            at = int(rng.choice(marks)) if marks else int(rng.integers(len(record)))
            at = min(len(record) - 1, max(0, at + int(rng.integers(-1, 3))))
            kind = rng.integers(4)
            if kind == 0:
                record[at] = rng.integers(256)
            elif kind == 1:
                del record[at : at + int(rng.integers(1, 4))]
            elif kind == 2:
                record[at:at] = rng.bytes(int(rng.integers(1, 4)))
            elif rng.random() < 0.1:
                del record[at:]
            if not record:
                break
        in_place += _expect_the_same(ClipParser(_DATA, False), [bytes(record)], _DATA)
    assert 0.1 * count < in_place < 0.9 * count


def _both_ways(patch: pytest.MonkeyPatch, make: Callable[[], pipeline.BatchStream]) -> list[pipeline.BatchStream]:
    """The stream by default, and with TensorFlow's parser."""
    streams = [make()]
    with patch.context() as own:
        own.setattr(pipeline, "reads_directly", lambda *_: False)
        return [*streams, make()]


def _same_batches(first: object, second: object, count: int) -> None:
    for _ in range(count):
        mine, other = next(first), next(second)  # type: ignore[call-overload]
        assert mine.keys() == other.keys()
        # Evaluation positions of the two readers have different meanings and are not compared.
        assert "valid" in mine or first.position == second.position  # type: ignore[attr-defined]
        _expect_equal(mine, other)


class _Told:
    """Attaches to each record the name of its shard and its id, by which values are looked up."""

    replaces_labels = False

    def __init__(self, shards: Sequence[str]):
        self._names = np.array([Path(shard).name.encode() for shard in shards], object)

    def look_up(self, shards: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        return {"name": self._names[shards], "looked_up": ids}


def test_streams_give_the_same_batches(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training from any position, also with attached values, and evaluation. One clip has another
    layout."""
    shards = []
    for number, size in enumerate((17, 5, 23)):
        records = [_clip(rng) for _ in range(size)]
        if number == 0:  # labels not packed, in a feature that occurs twice: only TensorFlow's parser reads it
            records[2] += _changed(records[2], lambda r: r.ClearField("feature_lists"))
        shards.append(str(write_shard(tmp_path / f"{number}.tfrecord", records)))
    for window in (0, 8):
        data = dataclasses.replace(_DATA, shuffle_records=window, shuffle_shards=2)

        def stream(position: int = 0, data: DataConfig = data) -> pipeline.BatchStream:
            beside = _Told if data.shuffle_records else None
            return training_stream(shards, data, 4, seed=3, faults=Faults(), position=position, beside=beside)

        directly, parsed = _both_ways(monkeypatch, stream)
        _same_batches(directly, parsed, 25)
        _same_batches(stream(parsed.position), parsed, 5)
    streams = _both_ways(monkeypatch, lambda: evaluation_stream(shards, _DATA, 4, faults=Faults()))
    _same_batches(*streams, -(-45 // 4))
    for stream in streams:
        with pytest.raises(StopIteration):
            next(stream)


@pytest.mark.slow  # in the fast set, test_pipeline.py and test_unlabelled_videos.py check what is left out
def test_streams_leave_out_the_same_clips(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips with no frames in one or both features, some without labels, and other clips without labels."""
    records = [_clip(rng) for _ in range(30)]
    nothing = {name: np.zeros((0, size), np.uint8) for name, size in _SIZES.items()}
    for row in (0, 1, 13):
        records[row] = frame_record(b"empty%d" % row, [1], **nothing)
    records[7] = _changed(records[7], lambda r: r.feature_lists.feature_list["audio"].ClearField("feature"))
    for row in (7, 8, 29):
        records[row] = _changed(records[row], lambda r: r.context.feature.pop("labels"))
    shards = [str(write_shard(tmp_path / str(part), records[15 * part : 15 * part + 15])) for part in range(2)]
    found = []

    def evaluation() -> pipeline.BatchStream:
        found.append(Faults(on_empty="skip", on_unlabelled="negative"))
        return evaluation_stream(shards, _DATA, 4, faults=found[-1])

    def training(position: int = 0) -> pipeline.BatchStream:
        data = dataclasses.replace(_DATA, shuffle_records=4, shuffle_shards=2)
        faults = Faults(on_empty="skip", on_unlabelled="skip")
        return training_stream(shards, data, 4, seed=3, faults=faults, position=position)

    _same_batches(*_both_ways(monkeypatch, evaluation), -(-26 // 4))
    assert [(faults.num_empty, faults.num_unlabelled) for faults in found] == [(4, 2)] * 2
    directly, parsed = _both_ways(monkeypatch, training)
    _same_batches(directly, parsed, 9)  # into the second pass of 24 clips
    _same_batches(training(parsed.position), parsed, 5)


def test_the_real_clips(real_data_dir: Path) -> None:
    data = DataConfig(level="frame")
    (shard,) = (real_data_dir / "yt8m_2018_frame").glob("*.tfrecord")
    assert _expect_the_same(ClipParser(data, False), list(integrity.good_records(str(shard))), data)


def test_tensorflows_parser_refuses_damaged_clips(rng: np.random.Generator) -> None:
    """The comparison with TensorFlow's parser relies on this."""
    with pytest.raises(PARSE_FAILURES):
        parse_records(tf.constant([_clip(rng)[:-3]]), _DATA)


@pytest.mark.parametrize("endless", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("damage", ["a header", "the end", "all of it"])
def test_shards_that_cannot_be_read_to_their_end(
    damage: str, endless: bool, rng: np.random.Generator, tmp_path: Path
) -> None:
    """The shard is named in an error, or skipped after reading its records before the damage, and all other shards."""
    clips = [{name: np.ones((2, size), np.uint8) for name, size in _SIZES.items()}] * 6
    shards = [
        str(write_shard(tmp_path / name, [frame_record(b"v%d" % i, [i], **clip) for i, clip in enumerate(clips)]))
        for name in ("a", "b")
    ]
    content = bytearray(Path(shards[0]).read_bytes())
    size, good = len(content) // 6, 0 if damage == "all of it" else 4
    if damage == "a header":
        content[4 * size + 2] ^= 1
    elif damage == "the end":
        del content[5 * size - 9 :]
    else:
        content[:] = bytes(len(content))
    Path(shards[0]).write_bytes(content)

    def stream(faults: Faults) -> pipeline.BatchStream:
        if endless:
            return training_stream(shards, dataclasses.replace(_DATA, shuffle_records=3), 2, seed=1, faults=faults)
        return evaluation_stream(shards, _DATA, 4, faults=faults)

    with pytest.raises(InputError, match=re.escape(shards[0])):
        list(itertools.islice(stream(Faults()), 7))
    faults = Faults(on_damaged="skip")
    batches = list(itertools.islice(stream(faults), 12))
    assert list(faults.damaged) == [shards[0]] and faults.damaged[shards[0]].record == good
    if not endless:
        found = [video for batch in batches for video in batch["id"].numpy()[batch["valid"].numpy()].tolist()]
        assert found == [b"v%d" % i for i in (*range(good), *range(6))]
