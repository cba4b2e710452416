"""A run resumes only with the shards and soft labels that it was started with, and reports differences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.training import inputs, loop
from yt8m_tf.training.inputs import Inputs


def test_files_are_identified_by_name_and_size_not_by_directory(tmp_path: Path) -> None:
    for directory, size in (("a", 3), ("b", 5)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "x").write_bytes(b"0" * size)
    a, b = str(tmp_path / "a" / "x"), str(tmp_path / "b" / "x")
    found = inputs.look([b, a], [a], LabelsConfig(), "")
    assert found == Inputs({"x": (3, 5)}, {"x": (3,)}, "")
    shutil.move(tmp_path / "b", tmp_path / "c")
    assert not found.differences(inputs.look([a, str(tmp_path / "c" / "x")], [a], LabelsConfig(), ""))


def test_differences_are_named() -> None:
    old = Inputs({"a": (1,), "b": (2,), "c": (3,)}, {"v": (1,)}, "one")
    new = Inputs({"a": (1,), "b": (9,), **{f"n{i}": (1,) for i in range(5)}}, {"v": (1,)}, "other")
    assert old.differences(new) == [
        "training shards new: n0, n1, n2 and 2 more",
        "training shards gone: c",
        "training shards of a different size: b",
        "soft labels from different scores (labels.soft)",
    ]
    assert old.differences(old) == []


def test_soft_labels_are_known_by_their_fingerprint(tmp_path: Path) -> None:
    manifest = Manifest(("m",), "abc", 10, 3, "video")
    start(tmp_path / "soft", manifest)
    finish(tmp_path / "soft", manifest)
    assert inputs.look([], [], LabelsConfig(soft="soft"), str(tmp_path)).soft_labels == "abc"


def _train(data_dir: Path, workdir: Path, epochs: int, **options: Any) -> loop.TrainResult:
    data = {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50}
    train = {"batch_size": 16, "steps_per_epoch": 1, "epochs": epochs}
    experiment = parse_experiment({"model": {"name": "logistic"}, "data": data, "train": train})
    run = loop.RunOptions(str(data_dir), workdir, xla=False, steps_per_call=1, progress=False, **options)
    return loop.train(experiment, run, tf.distribute.get_strategy(), Faults())


@pytest.mark.end_to_end
def test_a_resumed_run_refuses_other_shards(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, run = learnable_shards(train=2, validate=1, each=16), tmp_path / "run"
    _train(data_dir, run, epochs=1)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))  # so that there are steps left to train
    shutil.copyfile(data_dir / "train0001.tfrecord", data_dir / "train0002.tfrecord")
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError) as caught:
        _train(data_dir, run, epochs=2)
    message = str(caught.value)
    assert "the run was started with other data (training shards new: train0002.tfrecord); restore it" in message
    accept = "with --on_changed_inputs=accept (the result then differs from that of an uninterrupted run)"
    assert "\n" not in message and message.endswith(accept) and sorted(run.rglob("*")) == before
    (data_dir / "train0002.tfrecord").unlink()
    shutil.move(data_dir, tmp_path / "moved")
    shutil.copytree(run, tmp_path / "other")
    assert _train(tmp_path / "moved", run, epochs=2).step == 2
    (tmp_path / "moved" / "train0001.tfrecord").unlink()
    assert _train(tmp_path / "moved", tmp_path / "other", epochs=2, on_changed_inputs="accept").step == 2


def test_a_run_of_a_release_that_stored_no_inputs_resumes(
    learnable_shards: Callable[..., Path], tmp_path: Path
) -> None:
    data_dir, run = learnable_shards(train=2, validate=1, each=16), tmp_path / "run"
    _train(data_dir, run, epochs=1)
    config, state = run / "config.yaml", run / "checkpoints" / "step_00000001" / "state.json"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))
    values = json.loads(state.read_text())
    state.write_text(json.dumps({k: values[k] for k in ("step", "best_step", "positions", "plateau")}))
    shutil.copyfile(data_dir / "train0001.tfrecord", data_dir / "train0002.tfrecord")
    assert _train(data_dir, run, epochs=2).step == 2
