"""Frame sampling and preprocessing where they are used: training, evaluation, export; their configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from killed import killed_at

from yt8m_tf import run_dir
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.config.strict_yaml import merge
from yt8m_tf.data.clips import decode_features, prepare_clips
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.preprocessing import preprocess
from yt8m_tf.data.sampling import sample
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.trained import export_trained
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints, loop, step
from yt8m_tf.training.loop import RunOptions

_SEED = tf.constant([1, 2])


def _experiment(sampling: dict[str, Any], preprocessing: dict[str, Any] | None = None, **data: Any) -> ExperimentConfig:
    base = {"level": "frame", "features": {"rgb": 8, "audio": 4}, "num_classes": 10, "max_frames": 8}
    frames = {"frames": {"sampling": sampling, "preprocessing": preprocessing or {}}}
    values = {
        "model": {"name": "mean_fcn", "hidden_sizes": [16], "dropout": 0.1},
        "data": merge(base | frames, data) | {"shuffle_shards": 2, "shuffle_records": 50},
        "optimizer": {"learning_rate": 0.01},
        "train": {"batch_size": 32, "steps_per_epoch": 4, "epochs": 1, "mixup_alpha": 0.4},
    }
    return parse_experiment(values)


def _batch(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "rgb": tf.constant(rng.integers(0, 256, (5, 8, 8), np.uint8)),
        "audio": tf.constant(rng.integers(0, 256, (5, 8, 4), np.uint8)),
        "num_frames": tf.constant([1, 4, 8, 8, 7]),
        "labels": tf.constant(rng.integers(0, 10, (5, 3)), tf.int32),
    }


def _assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_training_options_leave_evaluation_unchanged(rng: np.random.Generator) -> None:
    spec = _experiment({"name": "crop", "min_frames": 1, "max_frames": 3}, {"name": "high_pass", "when": "training"})
    batch = _batch(rng)
    evaluated = prepare_clips(batch, spec.data.spec)
    _assert_equal(evaluated, batch)
    trained = prepare_clips(batch, spec.data.spec, _SEED)
    assert trained["rgb"].shape == (5, 4, 8) and trained["rgb"].dtype == tf.float32
    _assert_equal({"labels": trained["labels"]}, {"labels": batch["labels"]})


def test_sampling_comes_before_preprocessing(rng: np.random.Generator) -> None:
    data = _experiment({"name": "random_frames", "count": 6, "when": "always"}, {"name": "moving_average"}).data
    batch = _batch(rng)
    features = {name: batch[name] for name in ("rgb", "audio")}
    for seed in (None, _SEED):
        sampled, kept = sample(features, batch["num_frames"], data.frames.sampling, seed)
        decoded = decode_features(sampled | {"num_frames": kept}, data.spec)
        del decoded["num_frames"]
        expected, kept = preprocess(decoded, kept, data.frames.preprocessing)
        found = prepare_clips(batch, data.spec, seed)
        _assert_equal(found, batch | expected | {"num_frames": kept})
        _assert_equal(decode_features(found, data.spec), expected | {"num_frames": kept})


def test_nothing_to_do_changes_nothing(rng: np.random.Generator) -> None:
    batch = _batch(rng)
    _assert_equal(prepare_clips(batch, _experiment({}).data.spec, _SEED), batch)
    video = {"rgb": tf.constant(rng.normal(size=(5, 8)), tf.float32)}
    spec = parse_experiment({"model": {"name": "logistic"}, "data": {"features": {"rgb": 8}}}).data.spec
    _assert_equal(prepare_clips(video, spec, _SEED), video)


@pytest.mark.parametrize(
    ("sampling", "preprocessing", "longest"),
    [
        ({}, {}, 300),
        ({"name": "random_segments"}, {}, 300),  # evaluation uses all segments
        ({"name": "random_segments", "when": "always"}, {}, 30),
        ({"name": "random_frames", "count": 500}, {}, 500),
        ({"name": "random_frames", "count": 40, "when": "always"}, {"name": "high_pass"}, 22),
        ({"name": "crop", "when": "always"}, {}, 200),
        ({"name": "every_nth", "min_step": 7, "max_step": 9, "when": "always"}, {}, 43),
        ({"name": "every_nth", "min_step": 7, "max_step": 9}, {"name": "singular_vectors", "count": 50}, 50),
    ],
)
def test_models_receive_the_length_of_the_longest_clip(
    sampling: dict[str, Any], preprocessing: dict[str, Any], longest: int
) -> None:
    data = _experiment(sampling, preprocessing, max_frames=300).data
    assert data.spec.max_frames == longest and data.max_frames == 300


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({"sampling": {"name": "cosine", "count": 0}}, "'data.frames.sampling': count must be at least 1, got 0"),
        ({"sampling": {"min_frames": 0}}, "'data.frames.sampling': min_frames must be at least 1, got 0"),
        ({"sampling": {"max_frames": 60}}, "max_frames must not be below min_frames, got 60 and 100"),
        ({"sampling": {"min_step": 6}}, "max_step must not be below min_step, got 5 and 6"),
        ({"sampling": {"name": "cosin"}}, "'data.frames.sampling.name': 'cosin' is not one of none, crop"),
        ({"sampling": {"when": "never"}}, "'data.frames.sampling.when': 'never' is not one of training, always"),
        ({"preprocessing": {"count": -1}}, "'data.frames.preprocessing': count must be at least 1, got -1"),
        ({"preprocessing": {"window": 1}}, "'data.frames.preprocessing': window must be at least 2, got 1"),
        ({"preprocessing": {"iterations": 0}}, "'data.frames.preprocessing': iterations must be at least 1, got 0"),
        ({"preprocessing": {"part": "dense"}}, "'data.frames.preprocessing.part': 'dense' is not one of low_rank"),
        ({"samples": {}}, "unknown key 'data.frames.samples'; did you mean 'data.frames.sampling'?"),
    ],
)
def test_bad_values_give_a_one_line_error(frames: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_experiment({"model": {"name": "mean_fcn"}, "data": {"level": "frame", "frames": frames}})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_videos_have_no_frames() -> None:
    frames = {"sampling": {"name": "crop"}}
    with pytest.raises(InputError, match=r"data\.frames is for clips: leave it out, or set data\.level: frame"):
        parse_experiment({"model": {"name": "logistic"}, "data": {"frames": frames}})


def _train(experiment: ExperimentConfig, data_dir: Path, workdir: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Trains; returns the weights and all other variables of the last checkpoint."""
    strategy = changes.pop("strategy", tf.distribute.get_strategy())
    options = {
        "steps_per_call": 1,
        "xla": False,
        "checkpoint_minutes": 0.0,
        "evaluation_batch_size": 64,
        "progress": False,
    } | changes
    loop.train(experiment, RunOptions(str(data_dir), workdir, **options), strategy, Faults())
    state = checkpoints.latest_state(workdir)
    assert state is not None
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"step_{state.step:08d}" / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.slow
def test_a_killed_run_draws_the_same_frames(
    learnable_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = learnable_shards("frame", train=2, validate=1)
    experiment = _experiment({"name": "random_segments", "count": 4}, {"name": "singular_vectors", "count": 3})
    shapes = set()

    def prepare(batch: dict[str, Any], *arguments: Any) -> dict[str, Any]:
        prepared = prepare_clips(batch, *arguments)
        shapes.add(tuple(prepared["rgb"].shape))
        return prepared

    monkeypatch.setattr(step, "prepare_clips", prepare)
    whole = _train(experiment, data_dir, tmp_path / "whole")
    assert shapes == {(32, 3, 8)}
    with killed_at(2):  # in the middle of the epoch
        _train(experiment, data_dir, tmp_path / "killed")
    _assert_equal(whole, _train(experiment, data_dir, tmp_path / "killed"))


@pytest.mark.slow
def test_two_replicas(
    learnable_shards: Callable[..., Path], tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    experiment = _experiment({"name": "farthest_first", "count": 4}, {"name": "robust_pca", "when": "training"})
    weights = _train(experiment, learnable_shards("frame", 2, 1), tmp_path / "run", strategy=two_replicas)
    assert all(np.isfinite(value).all() for value in weights.values())


@pytest.mark.slow
def test_the_exported_model_samples_as_evaluation_does(
    learnable_shards: Callable[..., Path], tmp_path: Path, rng: np.random.Generator
) -> None:
    data_dir = learnable_shards("frame", train=2, validate=1)
    experiment = _experiment({"name": "random_frames", "count": 3, "when": "always"})
    _train(experiment, data_dir, tmp_path / "run")
    trained = checkpoints.load_trained(tmp_path / "run")
    report = export_trained(tmp_path / "run", tmp_path / "model", data_dir=str(data_dir), precision=FLOAT32)
    metrics = evaluate_trained(
        trained, ["validate*.tfrecord"], str(data_dir), batch_size=64, faults=Faults(), xla=False, progress=False
    )
    (best,) = [line for line in run_dir.read_history(tmp_path / "run") if line["step"] == trained.step]
    assert report.comparison.max_difference < 1e-6
    assert metrics.gap == pytest.approx(best["gap_at_20"], abs=1e-6)
    assert metrics.gap == pytest.approx(report.comparison.gap, abs=1e-6)

    batch = _batch(rng)
    del batch["labels"]
    served = tf.saved_model.load(str(tmp_path / "model")).signatures["features"](**batch)["predictions"]
    evenly = [[0, 0, 0], [0, 2, 3], [1, 4, 6], [1, 4, 6], [1, 3, 5]]  # the frames in the middle of each third
    inputs = {"num_frames": np.full(5, 3, np.int32)}
    for name in ("rgb", "audio"):
        codes = np.take_along_axis(batch[name].numpy(), np.array(evenly)[:, :, None], axis=1)
        inputs[name] = codes.astype(np.float32) * (4 / 255) + (4 / 512 - 2)
    np.testing.assert_allclose(served, tf.sigmoid(trained.model(inputs, training=False)), atol=1e-6)
