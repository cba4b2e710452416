"""Streams of batches: every record once a pass, exact resume, shares of workers and replicas, faults named."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import frame_record, video_record, write_shard

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import integrity
from yt8m_tf.data.batch_stream import BatchStream
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import evaluation_stream, limited, training_stream
from yt8m_tf.errors import InputError

_DATA = DataConfig(
    features={"rgb": 3, "audio": 2}, num_classes=1000, max_labels=3, shuffle_shards=3, shuffle_records=20
)
_FRAME = dataclasses.replace(_DATA, level="frame", max_frames=4, frame_lengths=(2,))


def _record(number: int, level: str = "video", num_frames: int | None = None) -> bytes:
    """A record whose first label is its number."""
    labels = [number, *range(990, 990 + number % 3)]
    if level == "video":
        rgb, audio = np.full(3, number, "float32"), np.array([number, 1], "float32")
        return video_record(f"v{number}".encode(), labels, rgb=rgb, audio=audio)
    length = 1 + number % 5 if num_frames is None else num_frames
    frames = (np.arange(length * 3).reshape(length, 3) + number).astype("uint8")
    return frame_record(f"v{number}".encode(), labels, rgb=frames, audio=frames[:, :2])


def _shards(directory: Path, sizes: Sequence[int], level: str = "video") -> list[str]:
    """Shards with the given numbers of records, which are numbered from 0 across all shards."""
    paths, first = [], 0
    for shard, size in enumerate(sizes):
        records = [_record(number, level) for number in range(first, first + size)]
        paths.append(str(write_shard(directory / f"train{shard:02d}.tfrecord", records)))
        first += size
    return paths


def _numbers(batch: dict[str, Any]) -> list[int]:
    """The numbers of a batch's records; asserts that the features belong to the same records."""
    numbers = np.asarray(batch["labels"])[..., 0]
    rgb = np.asarray(batch["rgb"])
    first = rgb[..., 0] if rgb.dtype == np.float32 else rgb[..., 0, 0]
    np.testing.assert_array_equal(first, numbers.astype(rgb.dtype))
    return numbers.ravel().tolist()


def _take(stream: BatchStream, num_batches: int) -> list[int]:
    return [number for _ in range(num_batches) for number in _numbers(next(stream))]


def _stream(shards: Sequence[str], data: DataConfig = _DATA, batch_size: int = 10, **options: Any) -> BatchStream:
    arguments: dict[str, Any] = {"seed": 1, "faults": Faults()} | options
    return training_stream(shards, data, batch_size, **arguments)


@pytest.mark.parametrize("data", [_DATA, _FRAME], ids=["video", "frame"])
def test_every_record_once_a_pass_in_a_new_order_each_time(data: DataConfig, tmp_path: Path) -> None:
    shards = _shards(tmp_path, [17, 30, 1, 0, 29, 23], data.level)  # 100 records
    stream = _stream(shards, data)
    passes = [_take(stream, 10) for _ in range(4)]
    assert all(sorted(numbers) == list(range(100)) for numbers in passes)
    assert len(set(map(tuple, passes))) == 4 and list(range(100)) not in passes
    tf.random.set_seed(77)  # the process's seed must not matter, before or while records are drawn
    again = _stream(shards, data)
    assert _take(again, 10) == passes[0]
    tf.random.set_seed(78)
    assert _take(again, 10) == passes[1]
    other = _stream(shards, data, seed=2)
    assert sorted(numbers := _take(other, 10)) == list(range(100)) and numbers not in passes


def test_the_process_keeps_its_own_seed(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [20])
    tf.random.set_seed(5)
    expected = tf.random.uniform([3]).numpy()
    tf.random.set_seed(5)
    _take(_stream(shards), 2)
    np.testing.assert_array_equal(tf.random.uniform([3]), expected)


@pytest.mark.parametrize(
    "data", [dataclasses.replace(_DATA, shuffle_records=150), _FRAME], ids=["wide window", "interleaved clips"]
)
def test_shards_and_records_are_mixed(data: DataConfig, tmp_path: Path) -> None:
    """The records of a group come from all its shards; clips are mixed within a small window too."""
    shards = _shards(tmp_path, [50, 50, 50], data.level)
    numbers = np.array(_take(_stream(shards, data), 15))
    assert len(set(numbers[:50] // 50)) == 3
    within = numbers[numbers < 50]
    assert np.mean(np.diff(within) == 1) < 0.5


def test_without_shuffling_records_they_keep_their_order(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [20, 20, 20, 20])
    numbers = _take(_stream(shards, dataclasses.replace(_DATA, shuffle_records=0)), 8)
    first = numbers[::20]
    assert sorted(first) == [0, 20, 40, 60]
    assert numbers == [start + i for start in first for i in range(20)]


_COMPARED = 16  # batches: more than two passes


def _equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize("data", [_DATA, _FRAME], ids=["video", "frame"])
@pytest.mark.parametrize(
    ("window", "batch_size", "sizes"),
    [
        (20, 5, (9, 12, 4, 7, 3)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, 4, (6, 6)), (7, 11, (5,)))),
    ],
)
def test_resuming_from_any_position_gives_the_same_batches(
    data: DataConfig, window: int, batch_size: int, sizes: Sequence[int], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Over several passes and group borders; in one of the cases, batches span passes."""
    data = dataclasses.replace(data, shuffle_records=window, shuffle_shards=2)
    shards = _shards(tmp_path, sizes, data.level)
    whole = _stream(shards, data, batch_size)
    positions, batches = [0], []
    for _ in range(_COMPARED):
        batches.append(next(whole))
        positions.append(whole.position)
    assert len(set(positions)) == len(positions) and positions == sorted(positions)
    some = rng.choice(np.arange(1, _COMPARED - 1), 2, replace=False)  # `test_order` tries all kinds of positions
    for start in (_COMPARED - 1, *some):
        resumed = _stream(shards, data, batch_size, position=positions[start])
        for k in range(start, _COMPARED):
            _equal(next(resumed), batches[k])
            assert resumed.position == positions[k + 1]


@pytest.mark.parametrize("data", [_DATA, _FRAME], ids=["video", "frame"])
@pytest.mark.parametrize("num_workers", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_split_by_record_gives_slices_of_the_one_batch(data: DataConfig, num_workers: int, tmp_path: Path) -> None:
    data = dataclasses.replace(data, split="record", frame_lengths=())
    shards = _shards(tmp_path, [17, 13, 8], data.level)
    whole = _stream(shards, data)
    workers = [_stream(shards, data, worker=w, num_workers=num_workers) for w in range(num_workers)]
    for _ in range(5):  # into the second pass
        batch, parts = next(whole), [next(worker) for worker in workers]
        for name, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
        assert {worker.position for worker in workers} == {whole.position}


def test_split_by_shard_is_a_partition(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [10] * 6)
    workers = [_stream(shards, batch_size=10, worker=w, num_workers=2) for w in range(2)]
    numbers = [_take(worker, 6) for worker in workers]  # 5 of each batch of 10
    assert [len(set(own)) for own in numbers] == [30, 30]
    assert sorted(numbers[0] + numbers[1]) == list(range(60))
    assert {number // 10 for number in numbers[0]} == {0, 2, 4}


def test_batches_that_cannot_be_shared(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [5, 5])
    with pytest.raises(
        InputError, match=r"10 examples cannot be shared evenly by 4 replicas; change train\.batch_size"
    ):
        _stream(shards, num_workers=2, replicas=2)
    with pytest.raises(InputError, match=r"2 training shards cannot be split over 5 workers; use data\.split=record"):
        _stream(shards, num_workers=5)


@pytest.mark.parametrize("data", [_DATA, _FRAME], ids=["video", "frame"])
@pytest.mark.parametrize("batch_size", [4, 7, 100])
def test_evaluation_is_one_pass_in_order(data: DataConfig, batch_size: int, tmp_path: Path) -> None:
    shards = _shards(tmp_path, [5, 0, 8, 1], data.level)
    numbers, ids = [], []
    for batch in evaluation_stream(shards, data, batch_size, faults=Faults()):
        valid = batch["valid"].numpy()
        assert all(value.shape[0] == batch_size for value in batch.values())
        assert not np.any(np.diff(valid.astype(int)) > 0) and valid[0]  # valid rows come first
        numbers += np.array(_numbers(batch))[valid].tolist()
        ids += batch["id"].numpy()[valid].tolist()
        for name in ("rgb", "labels", "id"):  # the others are copies of the first row
            rest = batch[name].numpy()[~valid]
            np.testing.assert_array_equal(rest, np.repeat(batch[name].numpy()[:1], len(rest), axis=0))
    assert numbers == list(range(14)) and ids == [f"v{number}".encode() for number in range(14)]


def test_evaluation_without_labels(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "test.tfrecord", [video_record(b"a", None, rgb=np.zeros(3, "float32"))])
    data = dataclasses.replace(_DATA, features={"rgb": 3})
    with_labels = next(evaluation_stream([str(shard)], data, 2, faults=Faults(on_unlabelled="negative")))
    assert with_labels["labels"].numpy().tolist() == [[-1] * 3] * 2
    assert "labels" not in next(evaluation_stream([str(shard)], data.records, 2, faults=Faults()))


def _damage(path: str, record: int, record_bytes: Sequence[int]) -> int:
    """Flips a bit in the data of a record; returns the byte at which the record starts."""
    offset = sum(size + 16 for size in record_bytes[:record])
    content = bytearray(Path(path).read_bytes())
    content[offset + 14] ^= 1
    Path(path).write_bytes(content)
    return offset


def _damaged_shards(directory: Path, records: dict[int, int], level: str = "video") -> tuple[list[str], dict[int, int]]:
    """Five shards of 20 records; `records` maps the numbers of shards to that of their damaged record."""
    shards = _shards(directory, [20] * 5, level)
    offsets = {}
    for shard, record in records.items():
        sizes = [len(_record(20 * shard + i, level)) for i in range(20)]
        offsets[shard] = _damage(shards[shard], record, sizes)
    return shards, offsets


def _read_all(stream: BatchStream, num_batches: int) -> None:
    for _ in range(num_batches):
        next(stream)


@pytest.mark.parametrize("data", [_DATA, _FRAME], ids=["video", "frame"])
@pytest.mark.parametrize("endless", [False, True], ids=["evaluation", "training"])
def test_damage_is_named(data: DataConfig, endless: bool, tmp_path: Path) -> None:
    shards, offsets = _damaged_shards(tmp_path, {3: 11}, data.level)
    stream = _stream(shards, data) if endless else evaluation_stream(shards, data, 10, faults=Faults())
    with pytest.raises(InputError) as caught:
        _read_all(stream, 11)
    assert str(caught.value) == (
        f"{shards[3]}: damaged at byte {offsets[3]}, record 11 (data checksum does not match);"
        " fetch the shard again, or salvage its good records with yt8m-inspect"
    )


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("records", [{0: 11}, {1: 0, 3: 19}, {0: 5, 2: 6, 4: 7}], ids=str)
def test_skipping_damage_in_evaluation(batch_size: int, records: dict[int, int], tmp_path: Path) -> None:
    shards, offsets = _damaged_shards(tmp_path, records)
    faults = Faults(on_damaged="skip")
    numbers = []
    for batch in evaluation_stream(shards, _DATA, batch_size, faults=faults):
        numbers += np.array(_numbers(batch))[batch["valid"].numpy()].tolist()
    assert numbers == [20 * s + i for s in range(5) for i in range(records.get(s, 20))]
    assert {shards.index(path): (d.record, d.offset) for path, d in faults.damaged.items()} == {
        shard: (record, offsets[shard]) for shard, record in records.items()
    }
    assert faults.summary() == [
        f"skipped the rest of a damaged shard: {shards[shard]}: damaged at byte {offsets[shard]}, record {record}"
        " (data checksum does not match)"
        for shard, record in sorted(records.items())
    ]


@pytest.mark.parametrize("shuffle_records", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 500))])
@pytest.mark.parametrize("records", [pytest.param({0: 11}, marks=pytest.mark.slow), {0: 5, 2: 0, 4: 7}], ids=str)
def test_skipping_damage_in_training(records: dict[int, int], shuffle_records: int, tmp_path: Path) -> None:
    """Every good record before the damage comes once a pass, including the pass in which the damage is found.

    This is also true of a run that is killed later, resumes, and finds the damage again.
    """
    shards, _ = _damaged_shards(tmp_path, records)
    good = [20 * s + i for s in range(5) for i in range(records.get(s, 20))]
    data, faults = dataclasses.replace(_DATA, shuffle_records=shuffle_records), Faults(on_damaged="skip")
    stream = _stream(shards, data, 1, faults=faults)
    numbers, positions = [], [0]
    for _ in range(2 * len(good)):
        numbers += _numbers(next(stream))
        positions.append(stream.position)
    assert sorted(numbers[: len(good)]) == sorted(numbers[len(good) :]) == good
    assert len(faults.damaged) == len(records) == len(faults.summary())
    for start in (13, len(good) - 5):
        resumed = _stream(shards, data, 10, faults=Faults(on_damaged="skip"), position=positions[start])
        assert _take(resumed, 2) == numbers[start : start + 20]


def test_a_shard_that_vanishes_is_damage(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [5, 5])
    os.remove(shards[1])
    with pytest.raises(InputError, match=r"train01\.tfrecord: damaged at byte 0, record 0 \(cannot be read: .*No such"):
        _read_all(evaluation_stream(shards, _DATA, 4, faults=Faults()), 5)
    faults = Faults(on_damaged="skip")
    assert len(list(evaluation_stream(shards, _DATA, 5, faults=faults))) == 1
    assert list(faults.damaged) == [shards[1]]


@pytest.mark.parametrize("on_damaged", ["error", "skip"])
@pytest.mark.parametrize("endless", [False, True], ids=["evaluation", "training"])
def test_damage_at_the_start_of_all_shards(on_damaged: Any, endless: bool, tmp_path: Path) -> None:
    shards, _ = _damaged_shards(tmp_path, dict.fromkeys(range(5), 0))
    faults = Faults(on_damaged=on_damaged)
    with pytest.raises(InputError, match=r"train\d\d\.tfrecord: damaged at byte 0, record 0"):
        _read_all(_stream(shards, faults=faults) if endless else evaluation_stream(shards, _DATA, 5, faults=faults), 1)


@pytest.mark.parametrize("faults", [Faults(), Faults(on_damaged="skip", on_empty="skip")], ids=["error", "skip"])
def test_shards_without_any_record_are_an_error_not_a_hang(faults: Faults, tmp_path: Path) -> None:
    shards = _shards(tmp_path, [0, 0, 0])
    with pytest.raises(InputError, match=r"data\.train: no usable record in 3 shards \(.*00\.tfrecord' is empty\)"):
        _stream(shards, faults=faults)
    shards, _ = _damaged_shards(tmp_path, dict.fromkeys(range(5), 0))
    Path(shards[2]).write_bytes(b"")  # an empty shard among damaged ones
    with pytest.raises(InputError, match=r"no usable record in 5 shards \(.*damaged at byte 0"):
        _stream(shards, faults=faults)
    assert list(evaluation_stream(_shards(tmp_path, [0, 0]), _DATA, 5, faults=faults)) == []


def _with_empty_clips(directory: Path, empty: set[int]) -> list[str]:
    records = [_record(number, "frame", num_frames=0 if number in empty else None) for number in range(75)]
    return [
        str(write_shard(directory / f"train{shard}.tfrecord", records[25 * shard : 25 * shard + 25]))
        for shard in range(3)
    ]


def test_clips_without_frames(tmp_path: Path) -> None:
    empty = {0, 7, 24, 25, 74}
    shards, rest = _with_empty_clips(tmp_path, empty), [number for number in range(75) if number not in empty]
    for stream in (_stream(shards, _FRAME), evaluation_stream(shards, _FRAME, 10, faults=Faults())):
        with pytest.raises(InputError, match=r"train\d\.tfrecord: record \d+, video 'v\d+': no frames at all"):
            _read_all(stream, 8)
    faults = Faults(on_empty="skip")
    numbers = []
    for batch in evaluation_stream(shards, _FRAME, 10, faults=faults):
        assert np.all(batch["num_frames"].numpy() > 0)
        numbers += np.array(_numbers(batch))[batch["valid"].numpy()].tolist()
    assert numbers == rest
    assert faults.num_empty == 5 and faults.summary() == ["left out 5 clips without frames"]
    faults = Faults(on_empty="skip")
    stream = _stream(shards, _FRAME, 5, faults=faults)
    assert sorted(_take(stream, 14)) == rest
    assert faults.num_empty == 5  # each once, although the next pass is read ahead
    numbers, position = [], stream.position
    for _ in range(5):  # the position counts records, but not those left out
        numbers += _numbers(next(stream))
    assert _take(_stream(shards, _FRAME, 5, faults=faults, position=position), 5) == numbers


def test_nothing_but_clips_without_frames(tmp_path: Path) -> None:
    shards = _with_empty_clips(tmp_path, set(range(75)))
    with pytest.raises(InputError, match=r"no usable record in 3 shards \(.*: 75 clips without frames\)"):
        _stream(shards, _FRAME, faults=Faults(on_empty="skip"))


@pytest.mark.parametrize("on_empty", ["error", "skip"])
@pytest.mark.parametrize("endless", [False, True], ids=["evaluation", "training"])
def test_a_missing_feature_is_not_an_empty_clip(on_empty: Any, endless: bool, tmp_path: Path) -> None:
    records = [frame_record(b"v", [1], rgb=np.ones((2, 3), "uint8")) for _ in range(9)]
    shards, faults = [str(write_shard(tmp_path / "train0.tfrecord", records))], Faults(on_empty=on_empty)
    with pytest.raises(
        InputError, match=r"train0\.tfrecord: record 0, video 'v': no 'audio' \(it has: rgb\); name the"
    ):
        _read_all(
            _stream(shards, _FRAME, 5, faults=faults)
            if endless
            else evaluation_stream(shards, _FRAME, 5, faults=faults),
            1,
        )


def _video(**changes: Any) -> bytes:
    values = {"rgb": np.ones(3, "float32"), "audio": np.ones(2, "float32")} | changes
    return video_record(b"bad", values.pop("labels", [1]), **values)


def _frames(**changes: Any) -> bytes:
    values = {"rgb": np.ones((2, 3), "uint8"), "audio": np.ones((2, 2), "uint8")} | changes
    return frame_record(b"bad", values.pop("labels", [1]), **values)


_BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "other level": ("video", _frames, "video 'bad': a frame-level record; set data.level: frame"),
    "video at frame level": ("frame", _video, "video 'bad': a video-level record; set data.level: video"),
    "size": ("video", lambda: _video(rgb=np.ones(4, "float32")), "'mean_rgb' has 4 values, data.features says rgb: 3"),
    "frame size": ("frame", lambda: _frames(rgb=np.ones((2, 4), "uint8")), "frame 0 of 'rgb' has 4 bytes"),
    "label": ("video", lambda: _video(labels=[1000]), "label 1000 is not below data.num_classes: 1000"),
    "frame label": ("frame", lambda: _frames(labels=[1000]), "label 1000 is not below data.num_classes: 1000"),
    "labels": ("video", lambda: _video(labels=[1, 2, 3, 4]), "4 labels, more than data.max_labels: 3"),
    "nan": ("video", lambda: _video(rgb=np.array([1, np.nan, 1], "float32")), "'mean_rgb' contains nan at 1"),
    "no record": ("video", lambda: b"\x0a\xff\xff", "3 bytes that are not a tf.train.Example"),
    "no clip": ("frame", lambda: b"\x0a\xff\xff", "3 bytes that are not a tf.train.Example"),
}


_BAD_IN_TRAINING = ("nan", "frame size", "no clip")
# One case for each parser and reason is enough here; `test_records` and `test_record_check` have all reasons.
_ALSO_BAD = (*_BAD_IN_TRAINING, "size", "labels", "frame label")


@pytest.mark.parametrize(
    ("name", "endless"),
    [
        *((name, True) for name in _BAD_IN_TRAINING),
        *((name, False) for name in _BAD if name not in _ALSO_BAD),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in _ALSO_BAD),
    ],
)
def test_bad_records_are_named(name: str, endless: bool, tmp_path: Path) -> None:
    level, make, message = _BAD[name]
    data = dataclasses.replace(_DATA if level == "video" else _FRAME, shuffle_shards=1)
    shards = _shards(tmp_path, [20] * 3, level)
    records = [_record(20 + i, level) for i in range(20)]
    write_shard(Path(shards[1]), [*records[:13], make(), *records[13:]])
    # Another shard is damaged; it is skipped, and must not be taken for the reason.
    content = Path(shards[0]).read_bytes()
    Path(shards[0]).write_bytes(content[:-1])
    faults = Faults(on_damaged="skip", on_empty="skip")
    stream = _stream(shards, data, faults=faults) if endless else evaluation_stream(shards, data, 10, faults=faults)
    with pytest.raises(InputError) as caught:
        _read_all(stream, 7)
    assert str(caught.value).startswith(f"{shards[1]}: record 13") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unexplained_failure_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _shards(tmp_path, [20])
    monkeypatch.setattr(integrity, "find_bad_record", lambda *arguments, **options: None)
    write_shard(Path(shards[0]), [_video(labels=[1000])] * 10)
    with pytest.raises(tf.errors.InvalidArgumentError):
        next(_stream(shards))


def test_waiting_is_measured(tmp_path: Path) -> None:
    stream = _stream(_shards(tmp_path, [20]))
    assert stream.seconds_waited == 0.0
    next(stream)
    first = stream.seconds_waited
    next(stream)
    assert 0.0 < first < stream.seconds_waited


def _resident_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("endless", [False, True], ids=["evaluation", "training"])
def test_memory_does_not_grow_with_the_number_of_shards(endless: bool, tmp_path: Path) -> None:
    data = DataConfig(features={"rgb": 1024}, num_classes=10, shuffle_records=64, shuffle_shards=4)
    vector = np.ones(1024, "float32")
    first = write_shard(tmp_path / "train0000.tfrecord", [video_record(b"a", [1], rgb=vector) for _ in range(128)])
    shards = [str(first)]
    for number in range(1, 256):  # 128 MiB of features in all
        os.link(first, tmp_path / f"train{number:04d}.tfrecord")
        shards.append(str(tmp_path / f"train{number:04d}.tfrecord"))

    def growth(num_shards: int) -> int:
        before, peak = _resident_bytes(), 0
        some = shards[:num_shards]
        stream = _stream(some, data, 64) if endless else evaluation_stream(some, data, 64, faults=Faults())
        for number in range(2 * num_shards):
            next(stream)
            if number % 16 == 0:
                peak = max(peak, _resident_bytes())
        return max(peak, _resident_bytes()) - before

    growth(64)
    assert growth(256) - max(0, growth(64)) < 32 * 2**20


def test_batches_up_to_a_number_of_videos() -> None:
    batches = [{"valid": tf.constant(valid)} for valid in ([True, True, False], [False, True, True], [True] * 3)]
    kept = [batch["valid"].numpy().tolist() for batch in limited(batches, 3)]
    assert kept == [[True, True, False], [False, True, False]]
    assert len(list(limited(batches, 100))) == len(list(limited(batches, None))) == 3
