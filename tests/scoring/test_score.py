"""Scoring: out of fold, resumable, shared among processes, from run directories and SavedModels."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import video_record, write_shard
from tiny_models import empty_clip, tiny_data, tiny_model, tiny_records
from tiny_models import write_shard as write_tiny_shard

from yt8m_tf import run_dir
from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.records import parse_records
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.locks import Claims
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import ShardScores, read_shard
from yt8m_tf.scoring import score
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.training import loop
from yt8m_tf.training.checkpoints import load_trained

_BASE: dict[str, Any] = {
    "model": {"name": "logistic"},
    "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50},
    "optimizer": {"learning_rate": 0.1},
    "train": {"batch_size": 16, "steps_per_epoch": 2, "epochs": 1},
}


def _train(data_dir: Path, workdir: Path, **data: Any) -> Path:
    experiment = parse_experiment(merge(_BASE, {"data": data}))
    options = loop.RunOptions(str(data_dir), workdir, xla=False, progress=False)
    loop.train(experiment, options, tf.distribute.get_strategy(), Faults())
    return workdir


@pytest.fixture(scope="module")
def folds(
    make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Path]]:
    """Six training and two validation shards, and three runs, each of which holds out one fold of the training shards.

    The tests only read them.
    """
    root = tmp_path_factory.mktemp("folds")
    data_dir = make_learnable_shards(root, train=6, each=20)
    runs = [_train(data_dir, root / "runs" / f"fold_{fold}", num_folds=3, fold=fold) for fold in range(3)]
    return data_dir, runs


def _score(runs: Sequence[Path], shards: Sequence[str], output: Path, **options: Any) -> score.ScoringSummary:
    predictors = [find_predictor(run, xla=False) for run in runs]
    return score.score(predictors, shards, output, progress=False, **{"batch_size": 16, "xla": False} | options)


def test_a_shard_that_another_process_scores_is_waited_for(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data_dir, runs = folds
    shards = list_shards(["validate*.tfrecord"], str(data_dir))
    whole = _score(runs, shards, tmp_path / "whole").manifest
    output, name = tmp_path / "scores", os.path.basename(shards[0])
    output.mkdir()
    with Claims(output) as other, ThreadPoolExecutor(1) as threads:
        other.take(name)
        scoring = threads.submit(_score, runs, shards, output)
        while not scoring.done() and len(list(output.glob("*.tfrecord"))) < len(shards) - 1:
            time.sleep(0.01)
        with pytest.raises(TimeoutError):
            scoring.result(timeout=0.2)
        shutil.copy(tmp_path / "whole" / name, output / name)
        other.release(name)
        summary = scoring.result()
    assert summary.manifest.shards == whole.shards and summary.num_scored == sum(whole.shards.values()) - 20


def _read(output: Path, name: str) -> ShardScores:
    return read_shard(output, name, read_manifest(output, "--x"))


def _expected(runs: Sequence[Path], shard: str) -> np.ndarray:
    """Mean probabilities [N, C], computed in NumPy from the weights."""
    total = 0.0
    for run in runs:
        trained = load_trained(run)
        serialized = tf.constant(list(tf.data.TFRecordDataset(shard).as_numpy_iterator()))
        batch = parse_records(serialized, trained.experiment.data)
        kernel, bias = (variable.numpy().astype(np.float64) for variable in trained.model.trainable_variables)
        x = np.concatenate([batch["rgb"], batch["audio"]], axis=1)
        total = total + 1 / (1 + np.exp(-(x @ kernel + bias)))
    return total / len(runs)


def test_out_of_fold_and_mean_of_folds(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data_dir, runs = folds
    shards = list_shards(["*.tfrecord"], str(data_dir))
    summary = _score(runs, shards, tmp_path / "scores", top_k=4)
    assert summary.num_scored == 8 * 20
    assert dict(summary.manifest.shards) == {f"train{i:04d}.tfrecord": 20 for i in range(6)} | {
        f"validate{i:04d}.tfrecord": 20 for i in range(2)
    }
    dealt = run_dir.read_folds(runs[0])
    assert sorted(dealt.values()) == [0, 0, 1, 1, 2, 2]
    for shard in shards:
        name = os.path.basename(shard)
        expected = _expected([runs[dealt[name]]] if name in dealt else runs, shard)
        found = _read(tmp_path / "scores", name)
        assert found.classes.shape == (len(expected), 4)
        np.testing.assert_allclose(found.scores, -np.sort(-expected)[:, :4], atol=2e-3)
        listed = np.take_along_axis(expected, found.classes, axis=1)
        np.testing.assert_allclose(found.scores, listed, atol=5e-4, rtol=1e-3)  # float16, and float32 arithmetic
    assert not list((tmp_path / "scores").glob(".*"))


def test_a_model_never_reads_its_fold(folds: tuple[Path, list[Path]]) -> None:
    data_dir, runs = folds
    dealt = run_dir.read_folds(runs[0])
    for fold, run in enumerate(runs):
        options = loop.RunOptions(str(data_dir), run, progress=False)
        training = loop._Run(run_dir.read_experiment(run), options, tf.distribute.get_strategy(), Faults())
        read = {os.path.basename(shard) for shard in training.stream._groups.shards}
        assert read == {name for name, own in dealt.items() if own != fold}
        held_out = {os.path.basename(shard) for shard in training.validation_shards}
        assert held_out == {name for name, own in dealt.items() if own == fold}


@pytest.mark.end_to_end
def test_only_missing_shards_are_scored(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data_dir, runs = folds
    shards = list_shards(["train*.tfrecord"], str(data_dir))
    _score(runs, shards, tmp_path / "whole")
    output = tmp_path / "scores"
    with pytest.MonkeyPatch.context() as patch:
        real, written = score_records.write_shard, []

        def interrupted(path: Path, rows: Any) -> int:
            if len(written) == 3:
                raise KeyboardInterrupt
            written.append(path.name)
            return real(path, rows)

        patch.setattr(score_records, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _score(runs, shards, output)
    assert {path.name for path in output.glob("*.tfrecord")} == set(written)
    assert not (output / "scores.json").exists()
    kept = {name: (output / name).stat().st_mtime_ns for name in written}
    assert _score(runs, shards, output).num_scored == 3 * 20
    assert {name: (output / name).stat().st_mtime_ns for name in written} == kept
    for shard in (tmp_path / "whole").glob("*"):
        assert (output / shard.name).read_bytes() == shard.read_bytes()
    assert _score(runs, shards, output).num_scored == 0
    assert _score(runs, list_shards(["*.tfrecord"], str(data_dir)), output).num_scored == 2 * 20  # more shards


def test_batches_in_flight_share_one_model(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """Two threads score batches; the model is loaded once, although loading it takes longer than reading."""
    data_dir, runs = folds
    predictor, loads = find_predictor(runs[0]), []

    def load() -> Any:
        loads.append(1)
        time.sleep(0.3)
        return predictor.load()

    slow = dataclasses.replace(predictor, folds={}, load=load)
    shards = list_shards(["*.tfrecord"], str(data_dir))
    score.score([slow], shards, tmp_path / "scores", top_k=5, batch_size=8, progress=False)
    assert len(loads) == 1


@pytest.mark.slow
def test_two_at_a_time_share_the_work(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data_dir, runs = folds
    shards = list_shards(["*.tfrecord"], str(data_dir))
    _score(runs, shards, tmp_path / "one")
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(_score, runs, shards, tmp_path / "two") for _ in range(2)]
    assert sum(summary.result().num_scored for summary in done) == 8 * 20
    for shard in (tmp_path / "one").glob("*"):
        assert (tmp_path / "two" / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.slow
def test_two_processes_share_the_work(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data_dir, runs = folds
    shards = list_shards(["*.tfrecord"], str(data_dir))
    _score(runs, shards, tmp_path / "one")
    command = [sys.executable, "-m", "yt8m_tf.bin.score", f"--model={runs[0].parent}/fold_*", f"--data_dir={data_dir}"]
    command += ["--input=*.tfrecord", f"--output={tmp_path}/two", "--batch_size=16", "--noxla"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    for shard in (tmp_path / "one").glob("*"):
        assert (tmp_path / "two" / shard.name).read_bytes() == shard.read_bytes()
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


def test_models_that_do_not_belong_together(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data_dir, runs = folds
    shards = list_shards(["train*.tfrecord"], str(data_dir))
    output = tmp_path / "scores"
    with pytest.raises(
        InputError, match=r"no model of fold 1 of 3 is given: only it has not seen its shards; train it with --fold"
    ):
        _score([runs[0], runs[2]], shards, output)
    with pytest.raises(
        InputError, match="no model of fold 1 of 3 is given: shards outside all folds are scored by all"
    ):
        _score([runs[0], runs[2]], list_shards(["validate*.tfrecord"], str(data_dir)), output)
    with pytest.raises(InputError, match="are of the same fold"):
        _score([runs[0], runs[0], runs[1], runs[2]], shards, output)
    single = _train(data_dir, tmp_path / "single")
    with pytest.raises(InputError, match=r"single and .* are without folds"):
        _score([single, single], shards, output)
    with pytest.raises(InputError, match=r"has data\.num_folds 0, .* 3"):
        _score([single, *runs], shards, output)
    with pytest.raises(InputError, match="neither a run directory of yt8m-train nor a SavedModel"):
        _score([tmp_path], shards, output)
    with pytest.raises(InputError, match="two shards are named 'train0000"):
        _score(runs, [*shards, shards[0].replace("train0000", "../video/train0000")], output)
    assert not output.exists()
    _score([single], shards, output)
    with pytest.raises(InputError, match="contains scores of another model"):
        _score(runs, shards, output)


def test_more_classes_than_score_shards_store(folds: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data_dir, runs = folds
    predictor = find_predictor(runs[0])
    large = dataclasses.replace(predictor, data=dataclasses.replace(predictor.data, num_classes=2**16 + 1))
    shards = list_shards(["validate*.tfrecord"], str(data_dir))
    with pytest.raises(InputError, match=r"a model of 65,537 classes, .* at most 65,536; .* yt8m-infer"):
        score.score([large], shards, tmp_path / "scores", top_k=5, progress=False)
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("level", ["video", "frame"])
def test_a_saved_model(level: str, rng: np.random.Generator, tmp_path: Path) -> None:
    data = tiny_data(level)
    model = tiny_model(data, rng)
    export_saved_model(model, data, tmp_path / "model", precision=FLOAT32)
    shard = write_tiny_shard(tmp_path / "a.tfrecord", tiny_records(data, rng, 21))
    _score([tmp_path / "model"], [shard], tmp_path / "scores", xla=level == "video")
    found = _read(tmp_path / "scores", "a.tfrecord")
    batch = parse_records(tf.constant(tiny_serialized(shard)), data)
    features = tf.saved_model.load(str(tmp_path / "model")).signatures["features"]
    names = features.structured_input_signature[1]
    expected = features(**{name: batch[name] for name in names})["predictions"].numpy()
    assert found.classes.shape == (21, 30)
    np.testing.assert_allclose(np.take_along_axis(expected, found.classes, axis=1), found.scores, atol=1e-3)


def tiny_serialized(shard: str) -> list[bytes]:
    return list(tf.data.TFRecordDataset(shard).as_numpy_iterator())


def test_clips_without_frames(rng: np.random.Generator, tmp_path: Path) -> None:
    data = tiny_data("frame")
    export_saved_model(tiny_model(data, rng), data, tmp_path / "model")
    clips = tiny_records(data, rng, 5)
    shard = write_tiny_shard(tmp_path / "a.tfrecord", [*clips[:2], empty_clip(b"none"), *clips[2:]])
    with pytest.raises(InputError, match=r"a\.tfrecord: record 2, video 'none': no frames at all"):
        _score([tmp_path / "model"], [shard], tmp_path / "scores")
    faults = Faults(on_empty="skip")
    _score([tmp_path / "model"], [shard], tmp_path / "scores", faults=faults)
    assert faults.num_empty == 1
    assert _read(tmp_path / "scores", "a.tfrecord").ids.tolist() == [f"v{i}".encode() for i in range(5)]


def test_bad_records_and_damage(folds: tuple[Path, list[Path]], rng: np.random.Generator, tmp_path: Path) -> None:
    _, runs = folds
    good = [
        video_record(f"v{i}".encode(), [1], rgb=np.ones(8, np.float32), audio=np.ones(4, np.float32)) for i in range(9)
    ]
    bad = video_record(b"short", [1], rgb=np.ones(8, np.float32), audio=np.ones(3, np.float32))
    shard = str(write_shard(tmp_path / "bad.tfrecord", [*good[:3], bad]))
    with pytest.raises(InputError, match=r"bad\.tfrecord: record 3, video 'short'"):
        _score(runs, [shard], tmp_path / "scores")
    damaged = write_shard(tmp_path / "cut.tfrecord", good)
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"cut\.tfrecord: damaged at byte .*fetch the shard again"):
        _score(runs, [str(damaged)], tmp_path / "scores")
    faults = Faults(on_damaged="skip")
    assert _score(runs, [str(damaged)], tmp_path / "scores", faults=faults).num_scored == 8
    assert str(damaged) in faults.damaged
