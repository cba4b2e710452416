"""Damage is found at the exact byte and record, and bad records are named."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from shards import video_record

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import crc32c, integrity
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.integrity import find_bad_record, find_damage, scan_shard
from yt8m_tf.data.pipeline import evaluation_stream
from yt8m_tf.errors import InputError


def slow_crc32c(data):
    """CRC-32C, bit by bit, as RFC 3720 defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = slow_crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def walk(content):
    """Plain reader: the number of good records before the first damage, and the byte at which they end."""
    count, offset = 0, 0
    while offset < len(content):
        header = content[offset : offset + 12]
        if len(header) < 12 or struct.unpack("<I", header[8:])[0] != masked(header[:8]):
            break
        (length,) = struct.unpack("<Q", header[:8])
        data, footer = content[offset + 12 : offset + 12 + length], content[offset + 12 + length : offset + 16 + length]
        if len(footer) < 4 or struct.unpack("<I", footer)[0] != masked(data):
            break
        count, offset = count + 1, offset + 16 + length
    return count, offset


def write_shard(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def offsets_of(records):
    """The byte at which each record starts, and the end of the file."""
    return np.cumsum([0] + [len(record) + 16 for record in records]).tolist()


@pytest.fixture
def records(rng):
    # More than one batch of the scan, of different sizes, including an empty record.
    return [rng.bytes(size) for size in (5, 0, *rng.integers(1, 40, 198))]


VIDEO = DataConfig(features={"rgb": 2}, num_classes=10)


def video(video_id=b"abcd", label=3):
    """A record that fits VIDEO, unless the id is empty or the label too large."""
    example = tf.train.Example()
    if video_id:
        example.features.feature["id"].bytes_list.value.append(video_id)
    example.features.feature["labels"].int64_list.value.append(label)
    example.features.feature["mean_rgb"].float_list.value.extend([0.5, -0.5])
    return example.SerializeToString()


def test_crc_of_headers_agrees_with_the_definition(rng):
    assert slow_crc32c(b"123456789") == 0xE3069283  # the check value of RFC 3720's polynomial
    lengths = [struct.pack("<Q", int(n)) for n in rng.integers(0, 2**63, 50)]
    right = [length + struct.pack("<I", masked(length)) for length in lengths]
    wrong = [length + struct.pack("<I", masked(length) ^ 1 << i % 32) for i, length in enumerate(lengths)]
    headers = np.frombuffer(b"".join(right + wrong + right[:9]), np.uint8).reshape(-1, 12)
    assert crc32c.headers_match(headers).tolist() == [True] * 50 + [False] * 50 + [True] * 9
    assert crc32c.headers_match(headers[:0]).tolist() == []
    assert [crc32c.masked_crc(length) for length in lengths] == [masked(length) for length in lengths]


def test_sound_and_empty_shards_have_no_damage(tmp_path, records):
    path, empty = write_shard(tmp_path / "a", records), write_shard(tmp_path / "b", [])
    assert scan_shard(path) == integrity.ShardScan(path, 200, offsets_of(records)[-1], None)
    assert scan_shard(empty) == integrity.ShardScan(empty, 0, 0, None)
    assert find_damage([path, empty]) is None
    assert [crc32c.count_records(name) for name in (path, empty, str(tmp_path / "none"))] == [200, 0, 0]
    assert list(integrity.good_records(path)) == records


# Byte within the record (from the end if negative), and the reason.
@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (0, "length checksum does not match"),
        (7, "length checksum does not match"),
        (9, "length checksum does not match"),
        (12, "data checksum does not match"),
        (-5, "data checksum does not match"),
        (-1, "data checksum does not match"),
    ],
)
@pytest.mark.parametrize("number", [2, 63, 64, 100, 199])  # first and last of a batch, middle, last of the file
def test_flipped_byte(tmp_path, records, number, position, reason):
    records[number] = b"some data"
    offsets = offsets_of(records)
    path = tmp_path / "train0001.tfrecord"
    write_shard(path, records)
    content = bytearray(path.read_bytes())
    content[offsets[number + (position < 0)] + position] ^= 0x10
    path.write_bytes(content)
    assert walk(bytes(content)) == (number, offsets[number]) and crc32c.count_records(str(path)) == number
    damage = integrity.Damage(str(path), number, offsets[number], reason)
    assert scan_shard(str(path)) == integrity.ShardScan(str(path), number, offsets[-1], damage)
    assert str(damage) == f"{path}: damaged at byte {offsets[number]}, record {number} ({reason})"


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (1, "header truncated: the file ends after 1 of its 12 bytes"),
        (11, "header truncated: the file ends after 11 of its 12 bytes"),
        (12, "data truncated: the file ends after 12 of the record's 25 bytes"),
        (24, "data truncated: the file ends after 24 of the record's 25 bytes"),
    ],
)
def test_truncated(tmp_path, records, kept, reason):
    records[70] = b"some data"
    offsets = offsets_of(records)
    path = tmp_path / "a"
    write_shard(path, records)
    path.write_bytes(path.read_bytes()[: offsets[70] + kept])
    assert scan_shard(str(path)).damage == integrity.Damage(str(path), 70, offsets[70], reason)
    assert crc32c.count_records(str(path)) == 70


def test_truncated_between_records_is_sound(tmp_path, records):
    path = tmp_path / "a"
    write_shard(path, records)
    path.write_bytes(path.read_bytes()[: offsets_of(records)[70]])
    assert scan_shard(str(path)) == integrity.ShardScan(str(path), 70, offsets_of(records)[70], None)


def test_files_that_are_not_shards(tmp_path, records):
    text, packed, missing = tmp_path / "a.csv", tmp_path / "a.gz", tmp_path / "missing"
    text.write_text("VideoId,LabelConfidencePairs\n")
    packed.write_bytes(gzip.compress(Path(write_shard(tmp_path / "a", records)).read_bytes()))
    for path, reason in (
        (text, "a CSV file: make shards of it with yt8m-convert"),
        (packed, "compressed with gzip: unpack it"),
        (tmp_path, f"cannot be read: {tmp_path}; Is a directory"),
    ):
        damage = scan_shard(str(path)).damage
        assert (damage.record, damage.offset, damage.reason) == (0, 0, reason)
    reason = scan_shard(str(missing)).damage.reason
    assert reason.startswith("cannot be read: ") and "No such file" in reason and "\n" not in reason


def test_find_damage_is_the_first_in_order(tmp_path, records):
    sound, cut, text = write_shard(tmp_path / "a", records), tmp_path / "b", tmp_path / "c"
    cut.write_bytes(Path(sound).read_bytes()[:-1])
    text.write_text("no shard at all")
    assert find_damage([sound, str(cut), str(text)]) == scan_shard(str(cut)).damage
    assert find_damage([str(text), str(cut)]) == scan_shard(str(text)).damage


def test_random_damage_agrees_with_the_plain_reader(tmp_path, records, rng):
    path = tmp_path / "a"
    sound = Path(write_shard(path, records)).read_bytes()
    for trial in range(40):
        content = bytearray(sound)
        for position in rng.integers(0, len(content), rng.integers(1, 4)):
            content[position] = rng.integers(256)  # possibly the same value
        cut, start, size = rng.integers(4), *rng.integers(0, len(content), 2)
        if cut == 0:
            del content[start:]
        elif cut == 1:
            del content[start : start + size % 50]
        path.write_bytes(content)
        count, offset = walk(bytes(content))
        scan = scan_shard(str(path))
        found = (scan.num_records, scan.damage.offset if scan.damage else len(content))
        assert found == (count, offset), f"trial {trial}"
        assert crc32c.count_records(str(path)) == count, f"trial {trial}"
        assert scan.damage is None or scan.damage.record == count


def test_find_bad_record_names_shard_record_and_video(tmp_path):
    sound = write_shard(tmp_path / "a", [video()] * 3)
    bad = write_shard(tmp_path / "b", [video()] * 70 + [video(b"xyzw", label=10)])
    unnamed = write_shard(tmp_path / "c", [video(None)])
    cut = tmp_path / "d"
    cut.write_bytes(Path(sound).read_bytes()[:-1])
    assert find_bad_record([sound], VIDEO, need_labels=True) is None
    assert find_bad_record([sound, bad, unnamed], VIDEO, need_labels=True).startswith(
        f"{bad}: record 70, video 'xyzw': label 10 is not below data.num_classes: 10; "
    )
    assert find_bad_record([unnamed], VIDEO, need_labels=True).startswith(f"{unnamed}: record 0: neither 'id'")
    damaged = find_bad_record([sound, str(cut)], VIDEO, need_labels=True)
    assert damaged.startswith(f"{cut}: damaged at byte {len(video()) * 2 + 32}, record 2 (data truncated: ")
    assert damaged.endswith("; fetch the shard again, or salvage its good records with yt8m-inspect")
    assert "No such file" in find_bad_record([str(tmp_path / "none")], VIDEO, need_labels=True)


def test_real_shards(real_data_dir):
    shards = sorted(real_data_dir.glob("yt8m_2018/validate/validate000[0-2].tfrecord"))
    scans = [scan_shard(str(path)) for path in shards]
    assert [scan.num_records for scan in scans] == [walk_lengths(path) for path in shards] == [284, 305, 313]
    assert all(scan.damage is None for scan in scans)
    assert find_bad_record([str(shards[0])], DataConfig(), need_labels=True) is None
    message = find_bad_record(map(str, shards), DataConfig(level="frame"), need_labels=True)
    assert message.startswith(f"{shards[0]}: record 0, video '") and "a video-level record; set data.level" in message


@pytest.mark.slow
def test_all_real_shards(real_data_dir):
    shards = sorted(map(str, real_data_dir.glob("yt8m_2018/validate/*.tfrecord")))
    scans = [scan_shard(path) for path in shards]
    assert len(shards) == 140 and sum(scan.num_records for scan in scans) == 40_549
    assert find_bad_record(shards, DataConfig(), need_labels=True) is None


def walk_lengths(path):
    """The number of records, from only the record lengths."""
    content, count, offset = path.read_bytes(), 0, 0
    while offset < len(content):
        count, offset = count + 1, offset + 16 + struct.unpack_from("<Q", content, offset)[0]
    assert offset == len(content)
    return count


def test_records_that_only_tensorflow_refuses_are_named(tmp_path):
    sound = video_record(b"good", [1], rgb=np.zeros(4, np.float32), audio=np.zeros(2, np.float32))
    # Labels with a field that Feature lacks: Python's parser skips it, TensorFlow's reports damage.
    odd = sound + b"\x0a\x13\x0a\x11\x0a\x06labels\x12\x07\x10\x01\x1a\x03\x0a\x01\x01"
    path = str(tmp_path / "odd.tfrecord")
    write_shard(path, [sound] * 70 + [odd, sound])
    wanted = f"{path}: record 70, video 'good': a damaged tf.train.Example or SequenceExample ("
    data = DataConfig(features={"rgb": 4, "audio": 2}, num_classes=5)
    assert find_bad_record([path], data, need_labels=False).startswith(wanted)
    with pytest.raises(InputError, match=r"odd\.tfrecord: record 70, video 'good': a damaged"):
        list(evaluation_stream([path], data, 8, faults=Faults()))
