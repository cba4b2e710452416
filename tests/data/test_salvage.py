"""Salvaging saves exactly the good records of a damaged shard."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.data import crc32c
from yt8m_tf.data.integrity import scan_shard
from yt8m_tf.data.salvage import salvage
from yt8m_tf.errors import InputError


@pytest.fixture
def records(rng):
    # Runs of zero bytes, as in float features, look like the upper half of a length.
    return [rng.bytes(int(size)) + bytes(int(size)) for size in rng.integers(0, 60, 40)]


@pytest.fixture(params=[64, crc32c._SEARCHED_BYTES])
def chunk_bytes(request, monkeypatch):
    """The search works in chunks; small ones put their edges everywhere."""
    monkeypatch.setattr(crc32c, "_SEARCHED_BYTES", request.param)


def write_shard(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path.read_bytes()


def starts_of(records):
    return np.cumsum([0] + [len(record) + 16 for record in records])


def salvaged(path, content):
    """Writes `content`, salvages it, and reads the result with TensorFlow."""
    path.write_bytes(content)
    output = path.with_name("saved")
    report = salvage(str(path), str(output))
    assert list(path.parent.glob("*.partial")) == []
    if not report.num_records:
        assert not output.exists()
        return report, []
    assert scan_shard(str(output)).damage is None
    return report, list(tf.data.TFRecordDataset(str(output)).as_numpy_iterator())


@pytest.mark.parametrize("number", [0, 39, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 20))])
@pytest.mark.parametrize("position", [0, 6, 8, 11, 12, -1])  # within the record; from its end if negative
def test_all_but_the_damaged_record(tmp_path, records, number, position):
    records[number] = b"some data"
    starts = starts_of(records)
    content = bytearray(write_shard(tmp_path / "a", records))
    content[starts[number + (position < 0)] + position] ^= 1
    report, found = salvaged(tmp_path / "a", content)
    assert found == records[:number] + records[number + 1 :]
    assert (report.num_records, report.lost_bytes) == (39, 25)
    assert [(damage.record, damage.offset) for damage in report.damages] == [(number, starts[number])]
    assert str(report).endswith("saved: 39 good records of " + str(tmp_path / "a") + "; 25 bytes lost in 1 place")


def test_random_damage_in_many_records(tmp_path, records, chunk_bytes, rng):
    starts = starts_of(records)
    sound = write_shard(tmp_path / "a", records)
    for trial in range(3):
        content = bytearray(sound)
        positions = rng.choice(len(content), rng.integers(1, 12), replace=False)
        for position in positions:
            content[position] ^= rng.integers(1, 256)
        hit = set((np.searchsorted(starts, positions, side="right") - 1).tolist())
        report, found = salvaged(tmp_path / "a", content)
        message = f"trial {trial}"
        assert found == [record for number, record in enumerate(records) if number not in hit], message
        assert report.lost_bytes == sum(len(records[number]) + 16 for number in hit), message
        assert len(report.damages) == sum(number - 1 not in hit for number in hit), message


def test_lost_inserted_and_truncated_bytes(tmp_path, records, chunk_bytes):
    records[19:22] = [b"some data"] * 3
    starts = starts_of(records)
    sound = write_shard(tmp_path / "a", records)
    start = starts[20]
    lost = sound[: start + 14] + sound[start + 17 :]
    assert salvaged(tmp_path / "a", lost)[1] == records[:20] + records[21:]
    # A hole from the middle of record 20 to the middle of record 30.
    hole = sound[: start + 14] + sound[starts[30] + 5 :]
    assert salvaged(tmp_path / "a", hole)[1] == records[:20] + records[31:]
    inserted = sound[:start] + b"\0" * 1000 + sound[start:]
    report, found = salvaged(tmp_path / "a", inserted)
    assert found == records and report.lost_bytes == 1000
    cut = sound[: start + 14]
    report, found = salvaged(tmp_path / "a", cut)
    assert found == records[:20] and report.lost_bytes == 14


def test_sound_shard_is_copied(tmp_path, records):
    report, found = salvaged(tmp_path / "a", write_shard(tmp_path / "a", records))
    assert found == records and report.damages == () and report.lost_bytes == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "saved").read_bytes()


def test_a_file_without_good_records_writes_nothing(tmp_path):
    report, _ = salvaged(tmp_path / "a.csv", b"VideoId,LabelConfidencePairs\n" * 10)
    assert report.num_records == 0 and str(report) == f"{tmp_path / 'a.csv'}: no good records, nothing written"


def test_errors_name_the_file_and_leave_nothing(tmp_path, records):
    write_shard(tmp_path / "a", records)
    path = str(tmp_path / "a")
    with pytest.raises(InputError, match="cannot replace the damaged one"):
        salvage(path, str(tmp_path / "." / "a"))
    with pytest.raises(InputError, match=r"missing: cannot be read: .*No such file"):
        salvage(str(tmp_path / "missing"), str(tmp_path / "saved"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"file/saved: salvaging {path} failed: "):
        salvage(path, str(tmp_path / "file" / "saved"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "file"]
