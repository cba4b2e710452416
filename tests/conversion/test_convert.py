"""The command: shards from features and a table, the same bytes in any order of work, and a row for every bad video."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from commands import Result, run_command
from shards import codes_of

from yt8m_tf import schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.conversion import array_files, staging
from yt8m_tf.data import integrity, records
from yt8m_tf.vocabulary import chosen_vocabulary, load_vocabulary

_NAMES = ("rgb", "audio")


def _make(where: Path, count: int = 30) -> None:
    """Arrays of two features, with 4 and 2 values per frame, and a table of labels."""
    rng = np.random.default_rng(2)
    for name, size in zip(_NAMES, (4, 2), strict=True):
        (where / name).mkdir(parents=True)
        for i in range(count):
            np.save(where / name / f"v{i}.npy", rng.normal(size=[2 + i % 5, size]))
    lines = [f"v{i},{['cat', 'dog', 'cat;dog'][i % 3]},{'validate' if i % 4 == 0 else 'train'}" for i in range(count)]
    (where / "labels.csv").write_text("\n".join(["id,labels,split", *lines]) + "\n")


def _flags(where: Path, output: Path, *flags: str) -> list[str]:
    inputs = ",".join(f"{name}={where}/{name}/*.npy" for name in _NAMES)
    return [
        f"--input={inputs}",
        f"--labels={where}/labels.csv",
        f"--output_dir={output}",
        "--videos_per_shard=8",
        *flags,
    ]


def _convert(where: Path, output: Path, *flags: str) -> Result:
    return run_command("convert", *_flags(where, output, *flags))


def _contents(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def _clips(output: Path) -> dict[str, tf.train.SequenceExample]:
    paths = sorted(map(str, output.glob("frame/*.tfrecord")))
    clips = map(tf.train.SequenceExample.FromString, tf.data.TFRecordDataset(paths).as_numpy_iterator())
    return {clip.context.feature["id"].bytes_list.value[0].decode(): clip for clip in clips}


def _report(output: Path) -> list[list[str]]:
    with (output / "report.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_files, "_VIDEOS", 4)


def test_arrays_become_shards(tmp_path: Path) -> None:
    _make(tmp_path)
    result = _convert(tmp_path, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    first, outside, _, following = result.stdout.splitlines()
    assert first == f"{tmp_path}/out: 30 videos (train 22, validate 8) in 4 shards at video and frame level"
    values = np.concatenate([np.load(path).ravel() for path in tmp_path.glob("rgb/*.npy")])
    counted = (
        f"rgb: {np.sum(np.abs(values) > 2)} of {values.size} values were outside [-2, 2] and were clipped; --range="
    )
    assert outside.startswith(counted)
    clips = _clips(tmp_path / "out")
    assert len(clips) == 30 and not (tmp_path / "out" / ".staging").exists()
    for video_id, clip in clips.items():
        for name, codes in codes_of(clip).items():
            values = np.clip(np.load(tmp_path / name / f"{video_id}.npy"), -2, 2)
            np.testing.assert_array_equal(codes, np.floor((values + 2) * 255 / 4))
        labels = list(clip.context.feature["labels"].int64_list.value)
        assert labels == [[0], [1], [0, 1]][int(video_id[1:]) % 3]
    assert (tmp_path / "out" / "vocabulary.csv").read_text() == "Index,TrainVideoCount,Name\n0,15,cat\n1,15,dog\n"
    section = yaml.safe_load((tmp_path / "out" / "frame" / "data.yaml").read_text())["data"]
    assert section == {
        **{"level": "frame", "features": {"rgb": 4, "audio": 2}, "num_classes": 2},
        "vocabulary": "../vocabulary.csv",
    }
    _, command, *flags = shlex.split(following)
    assert command == "yt8m-train" and f"--data_dir={tmp_path}/out/video" in flags
    assert (
        "--set=data={level: video, features: {rgb: 4, audio: 2}, num_classes: 2, vocabulary: ../vocabulary.csv}"
        in flags
    )


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ((), 0.51 * 4 / 255),  # half a step, plus the effect of 512 in place of 510 in the dataset's formula
        (("--range=-8,8",), 0.51 * 16 / 255),
        (("--dtype=float16",), 2e-3),  # half a unit in the last place of 4
        (("--dtype=float32",), 0),
    ],
)
def test_the_section_that_is_written_reads_the_shards(flags: Sequence[str], error: float, tmp_path: Path) -> None:
    _make(tmp_path)
    assert _convert(tmp_path, tmp_path / "out", *flags).returncode == 0
    limit = 2 if not flags else 8
    for level in ("video", "frame"):
        values = yaml.safe_load((tmp_path / "out" / level / "data.yaml").read_text())["data"]
        data = strict_yaml.parse(DataConfig, values, "data")
        shards = sorted(map(str, (tmp_path / "out" / level).glob("*.tfrecord")))
        assert data.level == level and len(shards) == 4
        found = chosen_vocabulary(None, data.vocabulary, data.num_classes, str(tmp_path / "out" / level))
        assert found is not None and load_vocabulary(found) == ["cat", "dog"]
        assert integrity.find_bad_record(shards, data, need_labels=True) is None
        serialized = tf.constant([*tf.data.TFRecordDataset(shards).as_numpy_iterator()])
        batch = records.parse_records(serialized, data)
        for name in _NAMES:
            found = batch[name].numpy()
            if found.dtype == np.uint8:
                found = np.asarray(schema.dequantise(found, data.stored[name].range))
            for row, video_id in enumerate(batch["id"].numpy()):
                frames = np.clip(np.load(tmp_path / name / f"{video_id.decode()}.npy"), -limit, limit)
                expected = frames if level == "frame" else frames.mean(axis=0)
                np.testing.assert_allclose(found[row][: len(expected)], expected, rtol=0, atol=error + 1e-6)


@pytest.mark.slow
def test_the_printed_command_trains(tmp_path: Path) -> None:
    _make(tmp_path)
    *_, following = _convert(tmp_path, tmp_path / "out").stdout.splitlines()
    small = ("--set=train={batch_size: 8, epochs: 1, steps_per_epoch: 1}", "--xla=false", "--steps_per_call=1")
    flags = [flag for flag in shlex.split(following)[2:] if not flag.startswith("--workdir")]
    result = run_command("train", *flags, f"--workdir={tmp_path}/run", *small)
    assert result.returncode == 0, result.stderr


def test_the_same_bytes_with_several_processes_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(tmp_path)
    assert _convert(tmp_path, tmp_path / "one").returncode == 0
    expected = _contents(tmp_path / "one")
    make, made = staging.Staging.make, list[str]()

    def make_some(self: staging.Staging, chunk: object, key: str) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(key)
        make(self, chunk, key)  # type: ignore[arg-type]

    monkeypatch.setattr(staging.Staging, "make", make_some)
    result = _convert(tmp_path, tmp_path / "two")
    assert result.returncode == 130 and "interrupted; run the same command again to continue" in result.stderr
    assert not list((tmp_path / "two").rglob("*.tfrecord"))
    monkeypatch.undo()
    monkeypatch.setattr(array_files, "_VIDEOS", 4)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "two" / ".staging").iterdir()}
    assert len(kept) == 6
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    result = _convert(tmp_path, tmp_path / "two", "--jobs=2")
    assert result.returncode == 0, result.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    found = {name: content for name, content in _contents(tmp_path / "two").items() if ".staging" not in name}
    assert found == expected


def test_existing_output_is_neither_made_again_nor_replaced(tmp_path: Path) -> None:
    _make(tmp_path)
    _convert(tmp_path, tmp_path / "out")
    before = _contents(tmp_path / "out")
    assert _convert(tmp_path, tmp_path / "out").stdout.splitlines()[0].endswith("level (already there)")
    other = _convert(tmp_path, tmp_path / "out", "--dtype=float32")
    assert (
        other.returncode == 1
        and "contains shards that were made from other input or with other options" in other.stderr
    )
    assert _contents(tmp_path / "out") == before
    assert _convert(tmp_path, tmp_path / "out", "--dtype=float32", "--overwrite", "--levels=frame").returncode == 0
    clip = _clips(tmp_path / "out")["v7"].feature_lists.feature_list["rgb"].feature[0].bytes_list.value[0]
    np.testing.assert_array_equal(np.frombuffer(clip, "<f4"), np.load(tmp_path / "rgb" / "v7.npy")[0].astype("<f4"))
    assert not list(tmp_path.glob("out/video/*.tfrecord"))
    section = yaml.safe_load((tmp_path / "out" / "frame" / "data.yaml").read_text())["data"]
    assert section["features"]["rgb"] == {"size": 4, "dtype": "float32"}


def test_every_bad_video_is_a_row_of_the_report(tmp_path: Path) -> None:
    _make(tmp_path)
    rgb = tmp_path / "rgb"
    np.save(rgb / "v0.npy", np.full([2, 4], np.nan))
    np.save(rgb / "v1.npy", np.ones([9, 4]))
    np.save(rgb / "v2.npy", np.ones([4, 5]))
    np.save(rgb / "v3.npy", np.array([[object()]]), allow_pickle=True)
    (rgb / "v4.npy").write_bytes(b"x")
    (rgb / "v5.npy").unlink()
    np.save(rgb / "stranger.npy", np.ones([2, 4]))
    np.save(tmp_path / "audio" / "stranger.npy", np.ones([2, 2]))
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("lost,cat,train\n")
    result = _convert(tmp_path, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert f"left out: 8 videos; {tmp_path}/out/report.csv says why" in result.stdout
    assert "24 videos" in result.stdout and len(_clips(tmp_path / "out")) == 24
    problems = {video_id: problem for _, video_id, problem in _report(tmp_path / "out")}
    assert problems == {
        "v0": "rgb: 8 of 8 values are not finite numbers (NaN or infinite)",
        "v1": "the numbers of frames differ by more than one: rgb 9, audio 3",
        "v2": "rgb has 5 values, and others have 4",
        "v3": "a pickle: reading it would run whatever code is in it; save plain arrays of numbers",
        "v4": "not a NumPy file: its first bytes differ",
        "v5": "has the features audio, and others have audio, rgb",
        "stranger": "not in the table of labels",
        "lost": "no features",
    }


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    _make(tmp_path, 3)
    (tmp_path / "labels.csv").write_text("id,labels\nother,cat\n")
    result = _convert(tmp_path, tmp_path / "out")
    assert result.returncode == 1
    assert "--input: nothing to write: no video can be used: " in result.stderr
    assert "v0.npy: not in the table of labels" in result.stderr
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(b"x")
    result = _convert(tmp_path, tmp_path / "out2")
    assert "--input: no features in any of the files; " in result.stderr and not (tmp_path / "out2").exists()


def test_without_a_table_all_is_for_test(tmp_path: Path) -> None:
    _make(tmp_path, 5)
    flags = [flag for flag in _flags(tmp_path, tmp_path / "out") if not flag.startswith("--labels")]
    result = run_command("convert", *flags, "--levels=frame")
    assert result.returncode == 0 and "5 videos (test 5) in 1 shards at frame level" in result.stdout
    assert f"next: yt8m-inspect '{tmp_path}/out/frame/*.tfrecord'" in result.stdout
    assert not any("labels" in clip.context.feature for clip in _clips(tmp_path / "out").values())
    assert not (tmp_path / "out" / "vocabulary.csv").exists()


def test_a_table_of_vectors(tmp_path: Path) -> None:
    """Features and labels in one CSV file, at video level only."""
    rows = [f"v{i},{i % 3},{i},{-i}" for i in range(9)]
    (tmp_path / "t.csv").write_text("\n".join(["id,labels,clip_0,clip_1", *rows]) + "\n")
    flags = (f"--input={tmp_path}/t.csv", f"--labels={tmp_path}/t.csv", f"--output_dir={tmp_path}/out")
    result = run_command("convert", *flags, "--validate_share=0")
    assert result.returncode == 0 and "9 videos (train 9) in 1 shards at video level" in result.stdout
    (shard,) = tmp_path.glob("out/video/*.tfrecord")
    for serialized in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        number = int(features["id"].bytes_list.value[0][1:])
        assert list(features["mean_clip"].float_list.value) == [number, -number]
        assert list(features["labels"].int64_list.value) == [number % 3]
    result = run_command("convert", *flags, "--levels=frame", "--overwrite")
    assert "--levels=frame: the features have no frames, but a vector for each video; take video" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--levels=both",), "--levels=both: must be video, frame or both"),
        (("--range=2,-2",), "--range=2,-2: must be LOW,HIGH, such as -2,2"),
        (("--range=1",), "--range=1: must be LOW,HIGH"),
    ],
)
def test_flags_that_cannot_be_used(flags: Sequence[str], message: str, tmp_path: Path) -> None:
    result = _convert(tmp_path, tmp_path / "out", *flags)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and message in result.stderr


@pytest.mark.slow
def test_killed_in_a_separate_process(tmp_path: Path) -> None:
    _make(tmp_path, 400)
    assert _convert(tmp_path, tmp_path / "one").returncode == 0
    command = [sys.executable, "-m", "yt8m_tf.bin.convert", *_flags(tmp_path, tmp_path / "two", "--jobs=2")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "two").glob(".staging/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert subprocess.run(command, capture_output=True).returncode == 0
    one, two = _contents(tmp_path / "one"), _contents(tmp_path / "two")
    # Two processes make smaller parts; the record contains a hash of these.
    assert {**one, "shards.json": b""} == {**two, "shards.json": b""}
