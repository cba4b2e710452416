"""From a folder of videos and a table to shards: their contents, the report, and work that is not repeated."""

from __future__ import annotations

import csv
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from backbones import write_picture_model
from shards import codes_of, decoded_mean
from videos import Clip, grey, steady, write_video

from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.conversion.encoding import Storage
from yt8m_tf.conversion.tables import LabelTable, Row
from yt8m_tf.data import records
from yt8m_tf.errors import InputError
from yt8m_tf.extraction import extract as module
from yt8m_tf.extraction import workers
from yt8m_tf.extraction.backbones import Recipe, load_backbones
from yt8m_tf.extraction.extract import Extraction, Options, extract
from yt8m_tf.extraction.features import extract_features
from yt8m_tf.extraction.video_files import find_videos
from yt8m_tf.extraction.workers import Outcome, Task, run_tasks

_QUIET = Options(jobs=0, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, one without sound, and files that are not videos."""
    root = tmp_path_factory.mktemp("videos")
    for number, shape in enumerate(("disc", "square", "cross")):
        Clip(shape, 300.0 * 3**number, number).write(root / f"v{number}.mp4")
    write_video(root / "below" / "silent.mp4", steady(5, 3), lambda n: grey(n, 48))
    (root / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    (root / "notes.txt").write_text("no video\n" * 50)
    (root / ".hidden.mp4").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe of a small model with random weights, and log-mel spectra, stored as codes."""
    model = write_picture_model(tmp_path_factory.mktemp("model") / "small.keras")
    return Recipe({"rgb": f"keras:{model}", "audio": "log_mel"}, storage=Storage("uint8", -5.0, 5.0))


_TABLE = LabelTable(
    {
        "v0": Row((0, 2), "train"),
        "v1": Row((1,), "train"),
        "v2": Row((), "validate"),
        "silent": Row(None, "test"),
        "gone": Row((1,), "train"),
        "noise": Row((1,), "train"),
    },
    ("a", "b", "c"),
)


def _run(folder: Path, recipe: Recipe, output: Path, table: LabelTable | None = _TABLE, **options: Any) -> Extraction:
    videos = find_videos([str(folder)], table, output)
    return extract(videos, table, recipe, output, dataclasses.replace(_QUIET, **options))


def _records(path: Path, kind: Any) -> dict[str, Any]:
    found = [kind.FromString(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    context = "context" if kind is tf.train.SequenceExample else "features"
    return {getattr(record, context).feature["id"].bytes_list.value[0].decode(): record for record in found}


def _contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_contents_of_shards_and_of_the_report(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    result = _run(folder, recipe, tmp_path)
    assert result.written.num_videos == {"train": 2, "validate": 1, "test": 1}
    backbones = load_backbones(recipe)
    for split, ids in (("train", {"v0", "v1"}), ("validate", {"v2"}), ("test", {"silent"})):
        clips = _records(tmp_path / "frame" / f"{split}0000.tfrecord", tf.train.SequenceExample)
        videos = _records(tmp_path / "video" / f"{split}0000.tfrecord", tf.train.Example)
        assert clips.keys() == videos.keys() == ids
        for video_id in ids:
            (path,) = folder.rglob(f"{video_id}.mp4")
            wanted = extract_features(path, backbones, recipe).frames
            codes = codes_of(clips[video_id])
            for name, values in wanted.items():
                # Truncated: a code is the lower end of its interval.
                np.testing.assert_array_equal(codes[name], np.floor((np.clip(values, -5, 5) + 5) * 255 / 10))
                mean = videos[video_id].features.feature[f"mean_{name}"].float_list.value
                decoded = (codes[name].astype(np.float64) * (10 / 255) + (10 / 512 - 5)).mean(axis=0)
                np.testing.assert_allclose(mean, decoded, atol=1e-6)
            labels = _TABLE.rows[video_id].labels
            for features in (clips[video_id].context.feature, videos[video_id].features.feature):
                assert ("labels" in features) == (labels is not None)
                assert list(features["labels"].int64_list.value) == list(labels or ())
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {video_id: row["status"] for video_id, row in rows.items()} == {
        **dict.fromkeys(("v0", "v1", "v2", "silent"), "written"),
        "noise": "failed",
        "notes": "unlisted",
        "gone": "missing",
    }
    assert [rows["v0"][column] for column in ("frames", "sound", "notes")] == ["2", "yes", ""]
    assert float(rows["v0"]["seconds"]) == pytest.approx(2, abs=0.1)  # a packet of sound is longer
    assert rows["silent"]["sound"] == "no" and rows["silent"]["notes"] == "no sound: its features are those of silence"
    assert rows["noise"]["notes"].startswith("cannot be opened") and rows["gone"]["notes"] == "no such file"
    assert not (tmp_path / ".features").exists()


def test_the_datasets_own_quantisation(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Without --range, the codes are those of YouTube-8M, and its formula decodes them."""
    own = dataclasses.replace(recipe, storage=Storage())
    result = _run(folder, own, tmp_path)
    codes = codes_of(_records(tmp_path / "frame" / "test0000.tfrecord", tf.train.SequenceExample)["silent"])
    video = _records(tmp_path / "video" / "test0000.tfrecord", tf.train.Example)["silent"]
    means = video.features.feature["mean_rgb"].float_list.value
    np.testing.assert_allclose(means, decoded_mean(codes["rgb"]), atol=1e-6)
    # The log of silence, -4.6, is out of range.
    assert set(codes["audio"].flat) == {0} and 0 < result.outside["audio"] < 1


@pytest.mark.parametrize("storage", [Storage("uint8", -5.0, 5.0), Storage("float16"), Storage()])
def test_the_datas_own_section_reads_the_shards(storage: Storage, folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    own = dataclasses.replace(recipe, storage=storage)
    extract({"v0": folder / "v0.mp4"}, None, own, tmp_path, _QUIET)
    wanted = extract_features(folder / "v0.mp4", load_backbones(recipe), recipe).frames
    for level in ("video", "frame"):
        section = yaml.safe_load((tmp_path / level / "data.yaml").read_text())["data"]
        data = strict_yaml.parse(RecordsConfig, section, "data")
        (serialized,) = tf.data.TFRecordDataset(str(tmp_path / level / "test0000.tfrecord")).batch(4)
        parsed = records.parse_records(serialized, data)
        assert parsed["id"].numpy().tolist() == [b"v0"]
        for name, values in wanted.items():
            assert parsed[name].shape[-1] == values.shape[1]
            if level == "frame" and storage.dtype == "float16":
                np.testing.assert_array_equal(parsed[name][0, :2], values.astype(np.float16))


def test_without_a_table_all_are_for_testing(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    result = _run(folder, recipe, tmp_path, None)
    assert result.written.num_videos == {"train": 0, "validate": 0, "test": 4}
    assert {row.video_id for row in result.report if row.status == "failed"} == {"noise", "notes"}


def test_an_interrupted_run_continues_after_the_last_video(
    folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(folder, recipe, tmp_path / "whole")
    made: list[str] = []
    original = workers.run_task

    def counted(task: Task, recipe: Recipe) -> Outcome:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(Path(task.path).name)
        return original(task, recipe)

    monkeypatch.setattr(workers, "run_task", counted)
    with pytest.raises(KeyboardInterrupt):
        _run(folder, recipe, tmp_path / "cut")
    first, made = made, []
    # A damaged part counts as missing.
    part = next((tmp_path / "cut" / ".features").glob("*.npz"))
    part.write_bytes(part.read_bytes()[:100])
    monkeypatch.setattr(
        workers, "run_task", lambda task, own: (made.append(Path(task.path).name), original(task, own))[1]
    )
    _run(folder, recipe, tmp_path / "cut")
    assert len(first) == 2 and len(made) == 5 - (2 - ("noise.mp4" in first)) + 1
    assert _contents(tmp_path / "cut") == _contents(tmp_path / "whole")


def test_nothing_is_made_twice(folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(folder, recipe, tmp_path, keep_features=True)
    before = _contents(tmp_path)
    made: list[str] = []
    original = workers.run_task
    monkeypatch.setattr(
        workers, "run_task", lambda task, own: (made.append(Path(task.path).stem), original(task, own))[1]
    )
    assert not _run(folder, recipe, tmp_path, keep_features=True).report and not made
    assert _contents(tmp_path) == before
    # Different labels: new shards from the existing features.
    other = LabelTable({**_TABLE.rows, "v1": Row((2,), "train")}, _TABLE.class_names)
    with pytest.raises(InputError, match="add --overwrite"):
        _run(folder, recipe, tmp_path, other, keep_features=True)
    _run(folder, recipe, tmp_path, other, keep_features=True, overwrite=True)
    assert made == ["noise"]  # videos that failed are tried again
    record = _records(tmp_path / "video" / "train0000.tfrecord", tf.train.Example)["v1"]
    assert list(record.features.feature["labels"].int64_list.value) == [2]


def test_no_usable_video_is_an_error(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"none of the 1 files can be used \(.*noise.mp4: cannot be opened.*report.csv"
    ):
        extract({"noise": folder / "noise.mp4"}, None, recipe, tmp_path, _QUIET)
    assert "noise" in (tmp_path / "report.csv").read_text()
    with pytest.raises(InputError, match="the table names none of them"):
        extract({"v0": folder / "v0.mp4"}, LabelTable({}, ()), recipe, tmp_path, _QUIET)


def test_features_that_cannot_be_stored_are_a_row(folder: Path, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input([48, 48, 3])
    values = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1e6)(inputs))
    keras.Model(inputs, values).save(tmp_path / "large.keras")
    recipe = Recipe({"rgb": f"keras:{tmp_path}/large.keras"}, storage=Storage("float16"))
    with pytest.raises(InputError, match=r"features that cannot be stored: rgb: .* are too large for float16"):
        extract({"v0": folder / "v0.mp4"}, None, recipe, tmp_path / "out", _QUIET)


@pytest.mark.parametrize("features", [{}, {"rgb": "inceptoin"}, {"rgb": "keras:none.keras"}, {"rgb": "inception"}])
def test_missing_backbones_are_reported_first(features: dict[str, str], folder: Path, tmp_path: Path) -> None:
    """Before processes are started or a directory is created."""
    with pytest.raises(InputError, match=r"none are named|no such backbone|no such file or|needs --inception=DIR"):
        extract({"v0": folder / "v0.mp4"}, None, Recipe(features), tmp_path / "out", _QUIET)
    assert not (tmp_path / "out").exists()


def test_a_failed_load_of_a_backbone_leaves_no_output(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.keras").write_bytes(b"noise")
    with pytest.raises(InputError, match="cannot be loaded"):
        extract(
            {"v0": folder / "v0.mp4"}, None, Recipe({"x": f"keras:{tmp_path}/noise.keras"}), tmp_path / "out", _QUIET
        )
    assert not (tmp_path / "out").exists()


def test_find_videos_in_directories_patterns_and_links(tmp_path: Path) -> None:
    for name in ("a.mp4", "b/c.mov", "b/.d.mp4", ".e/f.mp4", "out/g.mp4", "labels.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    left_out = tmp_path / "out"
    assert find_videos([str(tmp_path)], None, left_out) == {"a": tmp_path / "a.mp4", "c": tmp_path / "b/c.mov"}
    assert find_videos([f"{tmp_path}/*.mp4"], None, left_out) == {"a": tmp_path / "a.mp4"}
    with_suffix = LabelTable({"a.mp4": Row(None, "test")}, ())
    assert find_videos([f"{tmp_path}/a.mp4"], with_suffix, left_out) == {"a.mp4": tmp_path / "a.mp4"}
    (tmp_path / "link.mp4").symlink_to("b", target_is_directory=True)
    assert find_videos([f"{tmp_path}/b", f"{tmp_path}/link.mp4"], None, left_out).keys() == {"c"}  # one file, two names
    (tmp_path / "link.mp4").unlink()
    (tmp_path / "gone.mp4").symlink_to("away.mp4")
    for pattern, message in (
        ("none.mp4", r"--input=.*none\.mp4: no such file or directory; check the path; write a path with a comma in"),
        ("none*", r"--input=.*none\*: no such file or directory"),
        ("gone.mp4", r"--input=.*gone\.mp4: a link to 'away\.mp4', which does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            find_videos([str(tmp_path / "a.mp4"), str(tmp_path / pattern)], None, left_out)
    with pytest.raises(InputError, match=r"none\.mp4: no such file; name videos, a directory of them, or a pattern"):
        find_videos([str(tmp_path / "none.mp4")], None, left_out)
    (tmp_path / "gone.mp4").unlink()
    (tmp_path / "b" / "a.avi").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.mp4 and .*a\.avi have the same id, 'a'; rename one"):
        find_videos([str(tmp_path)], None, left_out)
    with pytest.raises(InputError, match="no file there"):
        find_videos([str(tmp_path / "out")], None, left_out)


@pytest.mark.slow
def test_processes_make_the_same_shards_as_one(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    for jobs in (0, 2):
        _run(folder, recipe, tmp_path / str(jobs), jobs=jobs)
    assert _contents(tmp_path / "0") == _contents(tmp_path / "2")


@pytest.mark.slow
def test_a_process_that_dies_costs_one_video(folder: Path, tmp_path: Path) -> None:
    """A process is killed while it has the second of three videos open."""
    long = write_video(tmp_path / "long.mp4", steady(25, 300), lambda n: grey(n % 200, 64))
    paths = [folder / "v0.mp4", long, folder / "v1.mp4"]
    tasks = [Task(str(path), tmp_path / f"{number}.npz") for number, path in enumerate(paths)]
    model = write_picture_model(tmp_path / "a.keras")

    def kill() -> None:
        while True:
            for process in multiprocessing.active_children():
                try:
                    directory = f"/proc/{process.pid}/fd"
                    opened = [os.readlink(os.path.join(directory, name)) for name in os.listdir(directory)]
                except OSError:
                    continue
                if str(long) in opened:
                    os.kill(process.pid or 0, signal.SIGKILL)
                    return
            time.sleep(0.005)

    threading.Thread(target=kill, daemon=True).start()
    outcomes = [outcome for _, outcome in run_tasks(tasks, Recipe({"rgb": f"keras:{model}"}, max_seconds=300), 1)]
    assert [outcome.problem for outcome in outcomes] == [
        None,
        "the process that decoded it was killed, or crashed",
        None,
    ]
    assert [task.part.exists() for task in tasks] == [True, False, True]


def test_the_report_is_written_before_the_shards(
    folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module, "write_dataset", fail)
    with pytest.raises(OSError, match="disk full"):
        _run(folder, recipe, tmp_path)
    assert (tmp_path / "report.csv").exists() and len(list((tmp_path / ".features").iterdir())) == 4
