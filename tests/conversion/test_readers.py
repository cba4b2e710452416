"""Reading MediaPipe's files, arrays and tables; problems are reported separately for each video."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from yt8m_tf.conversion.sources import open_source
from yt8m_tf.conversion.videos import Problem, Video
from yt8m_tf.errors import InputError


def _read(
    *patterns: object, wanted: Sequence[str] | None = None, id_column: str = "id"
) -> tuple[dict[str, Mapping[str, np.ndarray]], dict[str, str]]:
    """The features of all videos by id, and the problems of the others by id or source."""
    reader, chunks = open_source([str(pattern) for pattern in patterns], wanted, id_column, ("labels", "split"))
    found = [video for chunk in chunks for video in reader.read(chunk)]
    videos = {video.id: video.features for video in found if isinstance(video, Video)}
    assert len(videos) + sum(isinstance(video, Problem) for video in found) == len(found)
    return videos, {video.id or video.source: video.problem for video in found if isinstance(video, Problem)}


def _mediapipe(path: Path, video_id: bytes | None = None, **features: np.ndarray) -> None:
    """Writes a file in the format of MediaPipe's extractor: float lists with timestamps, without an id."""
    lists = {}
    for name, frames in features.items():
        floats = [tf.train.Feature(float_list=tf.train.FloatList(value=row)) for row in frames]
        times = [tf.train.Feature(int64_list=tf.train.Int64List(value=[k * 1_000_000])) for k in range(len(frames))]
        lists[f"{name}/feature/floats"] = tf.train.FeatureList(feature=floats)
        lists[f"{name}/feature/timestamp"] = tf.train.FeatureList(feature=times)
    context = {} if video_id is None else {"id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[video_id]))}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        tf.train.SequenceExample(
            context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
        ).SerializeToString()
    )


def test_mediapipe(tmp_path: Path, rng: np.random.Generator) -> None:
    rgb, audio = rng.normal(size=[3, 4]).astype(np.float32), rng.normal(size=[2, 5]).astype(np.float32)
    _mediapipe(tmp_path / "one" / "features.pb", RGB=rgb, AUDIO=audio)
    _mediapipe(tmp_path / "two.pb", RGB=rgb)
    _mediapipe(tmp_path / "three.pb", b"its own", RGB=rgb, AUDIO=audio)
    (tmp_path / "four.pb").write_bytes(b"\xff no protobuf")
    _mediapipe(tmp_path / "five.pb")
    (tmp_path / "six.pb").write_bytes(b"")
    videos, problems = _read(tmp_path / "*.pb", tmp_path / "*" / "features.pb")
    assert {video_id: sorted(features) for video_id, features in videos.items()} == {
        "one": ["audio", "rgb"],
        "two": ["rgb"],
        "its own": ["audio", "rgb"],
    }
    np.testing.assert_array_equal(videos["one"]["rgb"], rgb)
    np.testing.assert_array_equal(videos["one"]["audio"], audio)
    assert problems["four"] == "not a serialized tf.train.SequenceExample"
    assert problems["five"].startswith("has no list of floats such as 'RGB/feature/floats'; it has: no lists")
    assert problems["six"].startswith("has no list of floats")
    assert list(_read(tmp_path / "two.pb", tmp_path / "three.pb", wanted=["rgb"])[0]["its own"]) == ["rgb"]


def test_mediapipe_with_frames_of_different_sizes(tmp_path: Path) -> None:
    row = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 2.0]))
    lists = {"RGB/feature/floats": tf.train.FeatureList(feature=[row, tf.train.Feature()])}
    clip = tf.train.SequenceExample(feature_lists=tf.train.FeatureLists(feature_list=lists))
    (tmp_path / "x.pb").write_bytes(clip.SerializeToString())
    assert _read(tmp_path / "x.pb")[1] == {"x": "'RGB/feature/floats' has frames of different sizes"}


def test_arrays(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("rgb", "clip"):
        (tmp_path / name).mkdir()
        for video in ("a", "b"):
            np.save(tmp_path / name / f"{video}.npy", rng.normal(size=[2, 3]))
    np.save(tmp_path / "rgb" / "c.npy", np.arange(3))
    videos, problems = _read(f"rgb={tmp_path}/rgb/*.npy", f"clip={tmp_path}/clip/*.npy")
    assert not problems and {name: sorted(found) for name, found in videos.items()} == {
        "a": ["clip", "rgb"],
        "b": ["clip", "rgb"],
        "c": ["rgb"],
    }
    np.testing.assert_array_equal(videos["a"]["clip"], np.load(tmp_path / "clip" / "a.npy"))
    np.savez(tmp_path / "x.npz", rgb=np.ones([2, 3]), text=np.zeros(4))
    videos, _ = _read(tmp_path / "x.npz")
    assert {name: array.shape for name, array in videos["x"].items()} == {"rgb": (2, 3), "text": (4,)}
    assert list(_read(tmp_path / "x.npz", wanted=["text"])[0]["x"]) == ["text"]


class _Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was read",)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    """Pickles are refused, whether named as pickles, named as arrays, or within arrays of objects."""
    trap = pickle.dumps(_Trap())
    for name in ("x.pkl", "x.pickle", "x.pt"):
        (tmp_path / name).write_bytes(trap)
        with pytest.raises(InputError, match=r"--input=.*x\.p.*: a pickle: reading it would run whatever"):
            _read(tmp_path / name)
    objects = np.empty(1, object)
    objects[0] = _Trap()
    (tmp_path / "fake.npy").write_bytes(trap)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "archive.npz", rgb=objects, allow_pickle=True)
    problems = _read(f"x={tmp_path}/*.npy")[1] | _read(tmp_path / "archive.npz")[1]
    assert problems.keys() == {"fake", "objects", "archive"}
    assert all(problem.startswith("a pickle: reading it would run") for problem in problems.values())


def test_damaged_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "cut.npy", np.ones([100, 8]))
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:500])
    (tmp_path / "header.npy").write_bytes(whole[:20])
    (tmp_path / "huge.npy").write_bytes(whole.replace(b"(100, 8), }" + b" " * 9, b"(999999999999, 8), }"))
    (tmp_path / "text.npy").write_bytes(b"0.5 0.25")
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04 no more")
    problems = _read(f"x={tmp_path}/*.npy")[1] | _read(tmp_path / "*.npz")[1]
    assert problems["text"] == "not a NumPy file: its first bytes differ"
    assert all(problems[name].startswith("damaged: ") for name in ("cut", "header", "huge", "zip"))
    assert all("\n" not in problem for problem in problems.values())


def test_two_files_of_one_id(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", np.ones(2))
    videos, problems = _read(f"f={tmp_path}/*/x.npy")
    assert not videos and problems == {"x": f"f of this id is in {tmp_path}/a/x.npy, too; rename one of them"}


_FRAMES = [[0.5, -1.0], [0.25, 2.0], [1.0, 3.0]]


def test_parquet_of_lists(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["a", "b", "c", "d", None],
            "rgb": [_FRAMES, _FRAMES[:1], [[1.0], [1.0, 2.0]], None, _FRAMES],
            "mean": pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float32(), 2)),
            "labels": [["x"]] * 5,
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    _, chunks = open_source([str(tmp_path / "t.parquet")], None, "id", ("labels", "split"))
    assert [chunk.num_videos for chunk in chunks] == [2, 2, 1]
    videos, problems = _read(tmp_path / "t.parquet")
    np.testing.assert_array_equal(videos["a"]["rgb"], _FRAMES)
    np.testing.assert_array_equal(videos["b"]["rgb"], _FRAMES[:1])
    np.testing.assert_array_equal(videos["b"]["mean"], [1.0, 2.0])
    assert problems == {
        "c": "frames of different sizes",
        "d": "an empty cell",
        f"{tmp_path}/t.parquet: row 5": "no id in column 'id'",
    }


def test_csv_of_lists_and_of_columns(tmp_path: Path) -> None:
    """Lists in JSON format, and vectors as NumPy prints them."""
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "labels", "rgb", "text_0", "text_1", "text_2", "year2020"])
        writer.writerow(["a", "x", json.dumps(_FRAMES), 1, 2, 3, 7])
        writer.writerow(["b", "x", "[0.5 -1. \n 2.]", 1, 2, 3, 7])
        writer.writerow(["c", "x", "[0.5, 1.0]", 1, "?", 3, 7])
        writer.writerow(["d", "x", "[0.5 ... 1.0]", 1, 2, 3, 7])
    videos, problems = _read(tmp_path / "t.csv", id_column="video")
    np.testing.assert_array_equal(videos["a"]["rgb"], _FRAMES)
    np.testing.assert_array_equal(videos["a"]["text"], [1, 2, 3])
    np.testing.assert_array_equal(videos["b"]["rgb"], [0.5, -1, 2])
    assert videos["a"].keys() == {"rgb", "text"}
    assert problems == {
        "c": "not a number in each of text_0 to text_2",
        "d": "not lists of numbers, all of the same size",
    }
    assert list(_read(tmp_path / "t.csv", id_column="video", wanted=["text"])[0]["d"]) == ["text"]


def test_a_file_with_several_names_is_read_once(tmp_path: Path) -> None:
    """A link to the file under another video's name is read, too; a broken link is a problem of its video."""
    (tmp_path / "own").mkdir()
    np.save(tmp_path / "own" / "a.npy", np.ones([2, 3]))
    (tmp_path / "link").symlink_to("own")
    (tmp_path / "own" / "b.npy").symlink_to("a.npy")
    (tmp_path / "own" / "c.npy").symlink_to("gone.npy")
    videos, problems = _read(f"f={tmp_path}/own/*.npy", f"f={tmp_path}/link/*.npy", f"f={tmp_path}/./own/a.npy")
    assert videos.keys() == {"a", "b"} and problems == {"c": "cannot be read: No such file or directory"}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["none*.npy"], "--input=.*none.*: matches no file"),
        (["x.npz", "y.npz"], "y.npz: matches no file; .*; write a path with a comma in double quotes"),
        (["x.npy"], "--input=.*x.npy: does not name its feature; write NAME=PATTERN"),
        (["f=x.npz"], "--input=f=...: only .npy files are named; leave 'f=' out"),
        (["f=x.pb"], "--input=f=...: only .npy files are named; leave 'f=' out"),
        (["x.pb", "x.npz"], "--input: .*x.pb and .*x.npz are of different kinds"),
        (["x.mp4"], r"--input=.*x.mp4: features are read from .pb, .npy, .npz, .csv, .parquet files"),
        (["x.csv"], "--input=.*x.csv: no column contains a feature; the columns are: id, a; store a feature as lists"),
        (["y.csv"], "--input=.*y.csv: has no column 'id'; did you mean 'ids'.; name the ids' column with --id_column"),
    ],
)
def test_inputs_that_cannot_be_used(patterns: list[str], message: str, tmp_path: Path) -> None:
    for name in ("x.npy", "x.npz", "x.pb", "x.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "x.csv").write_text("id,a\nx,1\n")
    (tmp_path / "y.csv").write_text("ids,a\nx,1\n")
    given = [f"{p[:2]}{tmp_path}/{p[2:]}" if p[1] == "=" else f"{tmp_path}/{p}" for p in patterns]
    with pytest.raises(InputError, match=message):
        _read(*given)
    with pytest.raises(InputError, match="--input=: names nothing; give files of features"):
        _read()


def test_features_that_a_table_lacks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,clip\nx,"[1, 2]"\n')
    with pytest.raises(InputError, match=r"--features=clap: .*t.csv has no such feature; did you mean 'clip'"):
        _read(tmp_path / "t.csv", wanted=["clap"])
