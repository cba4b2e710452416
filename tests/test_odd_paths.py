"""Odd paths: brackets, stars, spaces, commas and links in the names of directories and shards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from yt8m_tf import files, run_dir
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.shards import list_shards, split_shards
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.trained import export_trained
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.serving.inference import infer
from yt8m_tf.training import checkpoints, loop

_OLD = Path(__file__).resolve().parent / "old_runs" / "video"
# Each name has a part that TensorFlow, fnmatch or a shell could interpret.
_NAMES = ("x [1]", "a?b*", "one, two", "back\\slash", "ünï ~")


def _files(directory: Path, *names: str) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"")
    return [str(directory / name) for name in names]


@pytest.mark.parametrize("name", _NAMES)
def test_directories_are_literal_and_names_of_shards_are_patterns(name: str, tmp_path: Path) -> None:
    own = _files(tmp_path / name, "train0.tfrecord", "train1.tfrecord")
    for other in ("x 1", "aab", "one", "backslash"):
        _files(tmp_path / other, "train0.tfrecord")
    assert list_shards(["train*"], str(tmp_path / name)) == own
    assert list_shards([f"{name}/train?.tfrecord"], str(tmp_path)) == own
    assert list_shards([f"{tmp_path}/{name}/train[01]*"], "elsewhere") == own


def test_a_literal_name_wins(tmp_path: Path) -> None:
    literal, other = _files(tmp_path, "train[0].tfrecord", "train0.tfrecord")
    assert list_shards(["train[0].tfrecord"], str(tmp_path)) == [literal]
    os.remove(literal)
    assert list_shards(["train[0].tfrecord"], str(tmp_path)) == [other]


def test_patterns_of_directories_without_a_literal_match(tmp_path: Path) -> None:
    for name in ("b", "a", "c[1]", ".hidden"):
        _files(tmp_path / "runs" / name / "fold_0", "x")
    found = [tmp_path / "runs" / name / "fold_0" for name in ("a", "b", "c[1]")]
    assert files.matching([f"{tmp_path}/runs/*/fold_0"], "--model") == found
    assert files.matching([f"{tmp_path}/runs/c[1]/fold_*"], "--model") == [found[2]]
    assert files.matching([f"{tmp_path}/none*"], "--model") == [tmp_path / "none*"]  # for the reader's message
    with pytest.raises(InputError, match=r"--model=.*/c: no such file.* in double quotes: --model='\"a,b\"'"):
        files.matching([f"{tmp_path}/runs/c", "d"], "--model")
    with pytest.raises(InputError, match="--model: names nothing"):
        files.matching([], "--model")


def test_a_file_with_several_names_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _files(tmp_path / "data", "train0.tfrecord", "train1.tfrecord")
    os.symlink(tmp_path / "data", tmp_path / "link")
    os.symlink("train0.tfrecord", tmp_path / "data" / "train2.tfrecord")
    monkeypatch.chdir(tmp_path)
    patterns = ["data/train0*", "./data/../data/train*", f"{tmp_path}/data/train1*", "link/train*"]
    assert {os.path.realpath(path) for path in list_shards(patterns)} == {
        str(tmp_path / "data" / f"train{i}.tfrecord") for i in (0, 1)
    }
    assert len(list_shards(patterns)) == 2


def test_a_shard_to_train_and_to_validate_on_is_refused(tmp_path: Path) -> None:
    _files(tmp_path, "train0.tfrecord", "validate0.tfrecord")
    os.symlink("train0.tfrecord", tmp_path / "validate1.tfrecord")
    with pytest.raises(InputError, match=r"data\.train and data\.validation both match '.*validate1\.tfrecord'; "):
        split_shards(DataConfig(), str(tmp_path))
    with pytest.raises(InputError, match=r"both match '.*validate0\.tfrecord' and 1 more; "):
        split_shards(DataConfig(train=("*",)), str(tmp_path))


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    os.symlink("gone.tfrecord", tmp_path / "train0.tfrecord")
    for pattern in ("train0.tfrecord", "train*"):
        with pytest.raises(
            InputError, match=r"'.*train0\.tfrecord' is a link to 'gone\.tfrecord', which does not exist"
        ):
            list_shards([pattern], str(tmp_path), "--input")


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", _NAMES)
def test_runs_and_exports_are_read_where_they_were_written(name: str, tmp_path: Path) -> None:
    workdir, model = tmp_path / name / "run", tmp_path / name / "model"
    (tmp_path / name).mkdir()
    shutil.copytree(_OLD / "run", workdir)
    shutil.copytree(_OLD / "data", tmp_path / name / "data")
    data_dir = str(tmp_path / name / "data")
    trained = checkpoints.load_trained(workdir)
    if name == _NAMES[0]:  # the other names differ only in how paths are read
        metrics = evaluate_trained(trained, ["validate*"], data_dir, faults=Faults(), xla=False, progress=False)
        assert metrics.num_videos == 24
        experiment = run_dir.read_experiment(workdir, parse_experiment)
        options = loop.RunOptions(data_dir=data_dir, workdir=workdir, xla=False, progress=False)
        assert loop.train(experiment, options, tf.distribute.get_strategy(), Faults()).step == 20
        export_trained(workdir, model, data_dir=data_dir, precision=FLOAT32, progress=False)
        infer(str(model), list_shards(["validate*"], data_dir), tmp_path / name / "out.csv", progress=False)
        assert len((tmp_path / name / "out.csv").read_text().splitlines()) == 25


def test_unreadable_files_are_not_called_damaged(tmp_path: Path) -> None:
    shutil.copytree(_OLD / "run", tmp_path / "run")
    step = tmp_path / "run" / "checkpoints" / "step_00000010"
    data = step / "variables.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:1000])
    with pytest.raises(InputError, match=r"step_00000010' is damaged .*; move it away"):
        checkpoints.load_trained(tmp_path / "run")
    data.write_bytes(whole)
    (step / "variables.index").rename(step / "away")
    with pytest.raises(InputError, match=r"step_00000010' is incomplete: 'variables\.index' is missing; move it away"):
        checkpoints.load_trained(tmp_path / "run")


def test_an_empty_pattern_matches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _files(tmp_path, "train0.tfrecord")
    monkeypatch.chdir(tmp_path)
    assert files.find("") == files.find("", str(tmp_path)) == []
    with pytest.raises(InputError, match="--input: no file matches ''"):
        list_shards([""], source="--input")
