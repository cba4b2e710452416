"""The table and JSON of yt8m-inspect match the shards; damage gives exit status 1, bad arguments 2."""

import json

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command

from yt8m_tf.data import inspection
from yt8m_tf.errors import InputError


def ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def floats(size):
    return tf.train.Feature(float_list=tf.train.FloatList(value=np.zeros(size)))


def data(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def video(**fields):
    return tf.train.Example(features=tf.train.Features(feature=fields)).SerializeToString()


def clip(context, **frames):
    """A frame-level record; `frames` are (number of frames, bytes in each)."""
    lists = {key: tf.train.FeatureList(feature=[data(bytes(size))] * number) for key, (number, size) in frames.items()}
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
    ).SerializeToString()


RECORDS_2018 = [
    video(id=data(b"abcd"), labels=ints(7, 3, 12), mean_rgb=floats(6), mean_audio=floats(2)),
    video(id=data(b"efgh"), labels=ints(40), mean_rgb=floats(6), mean_audio=floats(2)),
    video(id=data(b"ijkl"), labels=ints(), mean_rgb=floats(5), mean_audio=floats(2)),
    video(id=data(b"mnop"), labels=ints(1, 2), mean_rgb=floats(6), mean_audio=floats(2)),
]
RECORDS_2017 = [video(video_id=data(b"abcdefghijk"), mean_rgb=floats(6))] * 2
SEGMENT = {
    "id": data(b"abcd"),
    "labels": ints(5),
    "segment_start_times": ints(5, 10),
    "segment_scores": floats(2),
}
RECORDS_2019 = [clip(SEGMENT, rgb=(4, 8), audio=(3, 2)), clip(SEGMENT, rgb=(8, 8), audio=(9, 2))]


@pytest.fixture
def shards(tmp_path):
    """Writes one shard of each version."""
    for name, records in (("2017", RECORDS_2017), ("2018", RECORDS_2018), ("2019", RECORDS_2019)):
        write(tmp_path / f"{name}.tfrecord", records)
    return tmp_path


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def inspect(capsys, *patterns, json_path=None, salvage_to=None):
    """Exit status, and the lines of output as lists of words."""
    status = inspection.run([str(p) for p in patterns], json_path and str(json_path), salvage_to and str(salvage_to))
    captured = capsys.readouterr()
    assert captured.err == ""
    return status, [line.split() for line in captured.out.splitlines()]


def test_table(shards, capsys):
    status, lines = inspect(capsys, shards / "*.tfrecord")
    sizes = [(shards / f"{name}.tfrecord").stat().st_size for name in (2017, 2018, 2019)]
    assert status == 0
    assert lines[0][:6] == ["shard", "records", "bytes", "level", "id", "features"]
    rows = [
        f"2017.tfrecord 2 {sizes[0]} video video_id mean_rgb:6 - 100.0% - - -",
        f"2018.tfrecord 4 {sizes[1]} video id mean_audio:2 mean_rgb:5,6 1/2.00/3 25.0% 1..40 - -",
        f"2019.tfrecord 2 {sizes[2]} frame id audio:2 rgb:8 1/1.00/1 0.0% 5..5 3/5.50/8 -",
        f"total (3) 8 {sum(sizes):,} frame+video id+video_id audio:2 mean_audio:2 mean_rgb:5,6 rgb:8"
        " 1/1.60/3 37.5% 1..40 3/5.50/8 -",
    ]
    assert lines[1 : lines.index([])] == [row.split() for row in rows]


def test_json_has_the_same_content(shards, tmp_path, capsys):
    status, _ = inspect(capsys, shards / "2018.tfrecord", json_path=tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    expected = {
        "records": 4,
        "bytes": (shards / "2018.tfrecord").stat().st_size,
        "unparsable_records": 0,
        "levels": ["video"],
        "id_keys": ["id"],
        "features": {"mean_audio": [2], "mean_rgb": [5, 6]},
        "labels_per_labelled_video": {"min": 1, "mean": 2.0, "max": 3},
        "share_unlabelled": 0.25,
        "label_ids": [1, 40],
        "frames_per_clip": None,
        "damage": None,
    }
    assert status == 0
    assert report["shards"] == [{"path": str(shards / "2018.tfrecord")} | expected]
    assert report["total"] == {"shards": 1, "damaged": 0} | expected
    assert [*tmp_path.glob("*.partial"), *tmp_path.glob(".*.tmp")] == []


def test_damage_is_reported_after_the_table_and_salvaged(shards, tmp_path, capsys):
    path = shards / "2018.tfrecord"
    content = bytearray(path.read_bytes())
    offset = len(RECORDS_2018[0]) + 16
    content[offset + 20] ^= 1
    path.write_bytes(content)
    status, lines = inspect(capsys, shards / "*.tfrecord")
    found = f"byte {offset}, record 1: data checksum does not match".split()
    assert status == 1
    assert lines[2][1] == "1" and lines[2][-len(found) :] == found  # one record before the damage
    assert " ".join(lines[-1]) == "1 of 3 shards are damaged; --salvage_to=DIR saves their good records"

    saved = tmp_path / "saved"
    status, lines = inspect(capsys, shards / "*.tfrecord", salvage_to=saved)
    assert status == 1 and " ".join(lines[-1]) == "1 of 3 shards are damaged"
    lost = len(RECORDS_2018[1]) + 16
    assert f"3 good records of {path}; {lost} bytes lost in 1 place" in " ".join(lines[-2])
    assert [file.name for file in saved.iterdir()] == ["2018.tfrecord"]
    records = list(tf.data.TFRecordDataset(str(saved / "2018.tfrecord")).as_numpy_iterator())
    assert records == RECORDS_2018[:1] + RECORDS_2018[2:]


def test_records_of_other_files_and_empty_shards(tmp_path, capsys):
    write(tmp_path / "a", [b"\x07\x07"])
    write(tmp_path / "b", [])
    status, lines = inspect(capsys, tmp_path / "a", tmp_path / "b")
    assert status == 0
    assert lines[1] == ["a", "1", "18", "unparsable", "-", "-", "-", "100.0%", "-", "-", "-"]
    assert lines[2] == ["b", "0", "0"] + ["-"] * 8


def test_shards_of_the_same_name(tmp_path, capsys):
    for directory in ("x", "y"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "a").write_bytes(b"no shard at all")
    _, lines = inspect(capsys, tmp_path / "*" / "a")
    assert [line[0] for line in lines[1:3]] == [str(tmp_path / "x" / "a"), str(tmp_path / "y" / "a")]
    with pytest.raises(InputError, match="two damaged shards are called a; salvage them one by one"):
        inspect(capsys, tmp_path / "*" / "a", salvage_to=tmp_path / "saved")


@pytest.mark.parametrize(
    ("patterns", "message"), [([], "no shards given"), (["."], "is a directory"), (["none*"], "no file matches")]
)
def test_bad_arguments(tmp_path, capsys, patterns, message):
    with pytest.raises(InputError, match=message) as raised:
        inspect(capsys, *(tmp_path / pattern for pattern in patterns))
    assert "\n" not in str(raised.value)


def test_output_that_cannot_be_written(shards, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "a.json"
    with pytest.raises(InputError, match=rf"--json={path}: cannot be written \(.*\); name another file"):
        inspect(capsys, shards / "2018.tfrecord", json_path=path)
    assert not capsys.readouterr().out  # before any shard is read
    (shards / "2018.tfrecord").write_bytes(b"no shard at all")
    with pytest.raises(InputError, match=f"--salvage_to={path}: cannot be created"):
        inspect(capsys, shards / "*.tfrecord", salvage_to=path)


def test_shards_are_not_written_over(shards, tmp_path, capsys):
    path = shards / "2018.tfrecord"
    whole = path.read_bytes()
    with pytest.raises(InputError, match=rf"--json={path}: would write over '{path}', which is to be read"):
        inspect(capsys, shards / "*.tfrecord", json_path=path)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / path.name).write_bytes(whole)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=rf"--salvage_to={saved}: {saved / path.name} already exists; name another"):
        inspect(capsys, path, salvage_to=saved)
    assert (saved / path.name).read_bytes() == whole and path.read_bytes() == whole[:-1]


def test_salvage_is_not_suggested_for_a_file_that_is_not_a_shard(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("id,labels\na,cat\nb,dog\n")
    status, lines = inspect(capsys, tmp_path / "a.csv")
    assert status == 1 and " ".join(lines[-1]) == "1 of 1 shards are damaged"


def test_command(shards):
    """Runs the command: the table on standard output, progress and errors on standard error, exit status."""
    for number in range(4):
        write(shards / f"more{number}.tfrecord", RECORDS_2017)
    (shards / "cut.tfrecord").write_bytes((shards / "2018.tfrecord").read_bytes()[:-1])
    done = run_command("inspect", shards / "*.tfrecord")
    assert done.returncode == 1, done.stderr
    assert "8/8" in done.stderr and done.stdout.splitlines()[-1].startswith("1 of 8 shards are damaged")


def test_command_with_bad_arguments(tmp_path):
    for arguments in ((tmp_path,), ()):
        done = run_command("inspect", *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("yt8m-inspect: error: ") and done.stderr.count("\n") == 1


def test_real_shards(real_data_dir, capsys):
    real = real_data_dir / "yt8m_2018" / "validate" / "validate0000.tfrecord"
    old = real_data_dir / "yt8m_2017" / "*.tfrecord"
    status, lines = inspect(capsys, real, old)
    rows = {line[0]: line for line in lines if line}
    assert status == 0
    assert rows["validate0000.tfrecord"][1] == "284"
    assert rows["validate0000.tfrecord"][3:7] == ["video", "id", "mean_audio:128", "mean_rgb:1024"]
    assert rows["validatea0.tfrecord"][3:5] == ["video", "video_id"]
    assert rows["testa0.tfrecord"][7:9] == ["-", "100.0%"]
