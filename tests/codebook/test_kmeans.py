"""k-means over frames: the sample, the fit, the file, the command, and a model trained with it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import feature_kinds
import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from shards import frame_record, write_shard

from yt8m_tf import files, models
from yt8m_tf.codebook import centroids, kmeans
from yt8m_tf.codebook.centroids import Clustering
from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import checkpoints, loop

_FEATURES = {"rgb": 8, "audio": 4}
_OPTIONS = {"name": "cluster_resnet", "num_clusters": 30, "resnet": {"inner_size": 16, "dropout": 0.0}}


def _sample(shards: list[str], num_frames: int, **options: Any) -> np.ndarray:
    options = {"frames_per_clip": 3, "seed": 1, "faults": Faults(), "progress": False} | options
    data = RecordsConfig("frame", options.pop("features", _FEATURES))
    return kmeans.sample_frames(shards, data, num_frames, features_flag="--features=rgb:9", **options)


def _fit(sample: np.ndarray, num_clusters: int, **options: Any) -> Clustering:
    options = {"batch_size": 500, "num_passes": 5, "seed": 2, "progress": False} | options
    return kmeans.fit(sample, _FEATURES, num_clusters, **options)


def _shards(directory: Path, rng: np.random.Generator, lengths: list[list[int]]) -> tuple[list[str], list[np.ndarray]]:
    """Shards of clips of the given lengths, and the frames of each clip, [length, 12], shard by shard."""
    paths, clips = [], []
    for number, clip_lengths in enumerate(lengths):
        own = [rng.integers(0, 256, (length, 12), np.uint8) for length in clip_lengths]
        records = [frame_record(b"id", None, rgb=clip[:, :8], audio=clip[:, 8:]) for clip in own]
        paths.append(str(write_shard(directory / f"train{number}.tfrecord", records)))
        clips += own
    return paths, clips


def test_sample_is_even_over_shards_and_clips(tmp_path: Path, rng: np.random.Generator) -> None:
    lengths = [[5, 9, 3, 4, 8], [7, 2, 6], [4]]
    shards, clips = _shards(tmp_path, rng, lengths)
    sample = _sample(shards, 17)  # 6 clips of 3 frames: 2 of each shard
    expected = [(clips[i], min(3, len(clips[i]))) for i in (0, 1, 5, 6, 8)]
    assert sample.dtype == np.uint8 and sample.shape == (sum(count for _, count in expected), 12)
    start = 0
    for clip, count in expected:
        positions = [np.flatnonzero((clip == row).all(axis=1)).tolist() for row in sample[start : start + count]]
        assert all(len(found) == 1 for found in positions), "a row is not a frame of its clip"
        assert len({found[0] for found in positions}) == count, "a frame drawn twice"
        start += count
    np.testing.assert_array_equal(_sample(shards, 17), sample)
    assert not np.array_equal(_sample(shards, 17, seed=2), sample)
    assert len(_sample(shards, 10_000, frames_per_clip=100)) == sum(map(sum, lengths))


def test_fit_is_close_to_plain_k_means_and_its_error_is_right(rng: np.random.Generator) -> None:
    from sklearn.cluster import KMeans

    sample = rng.integers(0, 256, (3000, 12), np.uint8)
    result = _fit(sample, 20)
    x = sample * (4 / 255) + (4 / 512 - 2)
    distances = np.stack([np.sum((x - centroid) ** 2, axis=1) for centroid in result.centroids.astype("float64")])
    assert result.inertia == pytest.approx(distances.min(axis=0).sum(), rel=1e-5)
    assert result.total_inertia == pytest.approx(np.sum((x - x.mean(axis=0)) ** 2), rel=1e-5)
    assert result.mean_squared_distance == pytest.approx(result.inertia / 3000)
    assert result.explained == pytest.approx(1 - result.inertia / result.total_inertia) and result.num_empty == 0
    plain = KMeans(20, n_init=5, random_state=0).fit(x)
    assert plain.inertia_ * 0.98 < result.inertia < plain.inertia_ * 1.1
    assert result.centroids.dtype == np.float32 and result.centroids.shape == (20, 12)
    np.testing.assert_array_equal(_fit(sample, 20).centroids, result.centroids)


def test_clusters_without_frames_are_counted(rng: np.random.Generator) -> None:
    sample = rng.integers(0, 256, (3, 12), np.uint8)[np.arange(60) % 3]
    result = _fit(sample, 5)
    assert result.num_empty == 2 and result.explained == pytest.approx(1.0)


def test_fewer_frames_than_clusters_is_an_error(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"--num_clusters=30: the sample has 20 frames, fewer than clusters; raise"):
        _fit(rng.integers(0, 256, (20, 12), np.uint8), 30)


@pytest.mark.parametrize("items", [[], ["rgb"], ["rgb:0"], ["rgb:1.5"], [":8"]])
def test_features_are_checked(items: list[str]) -> None:
    with pytest.raises(InputError, match=r"--features: .* write it like rgb:1024,audio:128"):
        kmeans.parse_features(items)
    assert list(kmeans.parse_features(["audio:128", "rgb:1024"]).items()) == [("audio", 128), ("rgb", 1024)]


def test_records_of_another_kind_are_named(learnable_shards: Callable[..., Path]) -> None:
    video = str(learnable_shards("video", train=1) / "train0000.tfrecord")
    with pytest.raises(
        InputError, match=r"train0000.*a video-level record; yt8m-kmeans reads frame-level shards"
    ) as error:
        _sample([video], 10)
    assert "\n" not in str(error.value)
    frame = str(learnable_shards("frame", train=1) / "train0000.tfrecord")
    with pytest.raises(InputError, match="has 8 bytes, --features=rgb:9 says 9; give rgb:8 there"):
        _sample([frame], 10, features={"rgb": 9})


def _clustering(rng: np.random.Generator, **changes: Any) -> Clustering:
    values = rng.normal(size=(30, 12)).astype(np.float32)
    return dataclasses.replace(Clustering(values, _FEATURES, 100, 7, 12.5, 50.0, 0), **changes)


def test_the_file_has_the_stated_arrays_and_no_pickle(tmp_path: Path, rng: np.random.Generator) -> None:
    result = _clustering(rng)
    centroids.write(result, tmp_path / "centroids.npz")
    with np.load(tmp_path / "centroids.npz", allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    np.testing.assert_array_equal(content.pop("centroids"), result.centroids)
    assert {name: values.tolist() for name, values in content.items()} == {
        "feature_names": ["rgb", "audio"],
        "feature_sizes": [8, 4],
        "inertia": 12.5,
        "num_frames": 100,
        "seed": 7,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["centroids.npz"]


def test_output_that_cannot_be_written_is_named_before_the_work(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "centroids.npz", tmp_path):
        with pytest.raises(InputError, match=f"--output={output}: cannot be written .*; name another file"):
            files.check_writable(output, "--output")
    with pytest.raises(InputError, match=r"--output=.*: cannot be written"):
        centroids.write(_clustering(rng), tmp_path / "file" / "centroids.npz")
    files.check_writable(tmp_path / "new" / "centroids.npz", "--output")
    assert not list((tmp_path / "new").iterdir())


def test_shards_are_not_written_over(tmp_path: Path) -> None:
    shard = tmp_path / "train0.tfrecord"
    shard.write_bytes(b"")
    result = run_command("kmeans", f"--input={tmp_path}/train*", f"--output={tmp_path}/./train0.tfrecord")
    assert result.returncode == 1 and "would write over" in result.stderr and not shard.read_bytes()


def test_centroids_are_assigned_on_every_replica(
    tmp_path: Path, rng: np.random.Generator, two_replicas: tf.distribute.Strategy
) -> None:
    result = _clustering(rng)
    centroids.write(result, tmp_path / "centroids.npz")
    with two_replicas.scope():
        model = models.build_model(_OPTIONS, InputSpec("frame", _FEATURES, 10, 8))
        centroids.load_centroids(model, "centroids.npz", _FEATURES, str(tmp_path))
    copies = model.get_layer("codebook").centroids.value.values
    assert len(copies) == 2
    for copy in copies:
        np.testing.assert_array_equal(copy, result.centroids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            None,
            r"cannot be read \(no such file\); fit centroids with yt8m-kmeans --num_clusters=30 --features=rgb:8,au",
        ),
        ("text", "is not a file of centroids; name one that yt8m-kmeans wrote"),
        ("other", "is not a file of centroids"),
        (
            {"features": {"audio": 4, "rgb": 8}},
            r"features audio:4,rgb:8, data\.features has rgb:8,audio:4; make .* same",
        ),
        ({"features": {"rgb": 12}}, r"is of the features rgb:12, data\.features has rgb:8,audio:4;"),
        ({"centroids": np.zeros((20, 12), np.float32)}, r"contains 20 centroids, not model\.num_clusters: 30; set"),
    ],
)
def test_centroids_of_another_shape_give_a_one_line_error(
    changes: Any, message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "centroids.npz"
    if changes == "text":
        path.write_text("centroids")
    elif changes == "other":
        np.savez(path, centroids=np.zeros((30, 12)))
    elif changes is not None:
        centroids.write(_clustering(rng, **changes), path)
    model = models.build_model(_OPTIONS, InputSpec("frame", _FEATURES, 10, 8))
    with pytest.raises(InputError, match=message) as error:
        centroids.load_centroids(model, "centroids.npz", _FEATURES, str(tmp_path))
    assert str(error.value).startswith(f"configuration key 'model.centroids': '{path}'")
    assert "\n" not in str(error.value)


def _experiment() -> ExperimentConfig:
    return parse_experiment(
        {
            "model": _OPTIONS,
            "data": {
                "level": "frame",
                "features": _FEATURES,
                "num_classes": 10,
                "max_frames": 8,
                "shuffle_records": 50,
            },
            "optimizer": {"learning_rate": 0.02},
            "train": {"batch_size": 32, "steps_per_epoch": 20, "epochs": 2},
        }
    )


@pytest.mark.slow
def test_kmeans_train_evaluate(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, experiment = learnable_shards("frame"), _experiment()
    options = loop.RunOptions(str(data_dir), tmp_path / "run", evaluation_batch_size=64, xla=False, progress=False)

    def train() -> loop.TrainResult:
        return loop.train(experiment, options, tf.distribute.get_strategy(), Faults())

    with pytest.raises(InputError, match=r"'model\.centroids': .*no such file.*yt8m-kmeans"):
        train()
    result = _fit(_sample([str(path) for path in sorted(data_dir.glob("train*"))], 1000), 30)
    centroids.write(result, data_dir / "centroids.npz")
    trained_to = train()
    (data_dir / "centroids.npz").unlink()  # from here on, they are in the run's checkpoints
    assert train() == trained_to
    trained = checkpoints.load_trained(tmp_path / "run")
    np.testing.assert_array_equal(np.asarray(trained.model.get_layer("codebook").centroids), result.centroids)
    metrics = evaluate_trained(
        trained,
        ["validate*.tfrecord"],
        str(data_dir),
        batch_size=64,
        faults=Faults(),
        xla=False,
        progress=False,
    )
    assert metrics.gap == pytest.approx(trained_to.best_gap, abs=1e-4)
    assert metrics.gap > 0.5  # a random ranking: 0.2


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "yt8m_tf.bin.kmeans", *flags]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_command(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    pattern, output = learnable_shards("frame") / "train*.tfrecord", tmp_path / "new" / "centroids.npz"
    flags = (f"--input={pattern}", f"--output={output}", "--features=rgb:8,audio:4", "--num_frames=600")
    result = _run(*flags, "--num_clusters=25", "--batch_size=100")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{output}: 25 clusters of ") and result.stdout.count("\n") == 1
    assert "frames from 4 shards; mean squared distance 0." in result.stdout and "% of the variance" in result.stdout
    assert all(f"{phase}: 100%" in result.stderr for phase in ("fit", "measure"))
    with np.load(output) as archive:
        assert archive["centroids"].shape == (25, 12) and 300 < archive["num_frames"] <= 608  # of clips of 3 to 8


def test_help_has_an_example_and_imports_no_framework() -> None:
    code = (
        "import sys, absl.flags, yt8m_tf.bin.kmeans as kmeans\n"
        "print({'tensorflow', 'keras', 'sklearn'} & set(sys.modules), '  yt8m-kmeans --input=' in kmeans.__doc__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set() True\n"


@pytest.mark.parametrize("kind", ["clip_bytes", "three"])
def test_frames_of_other_kinds_are_sampled_decoded(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    data = feature_kinds.data_of(kind, "frame")
    records, clips = feature_kinds.records(kind, "frame", rng, 5)
    shard = str(write_shard(tmp_path / "train0.tfrecord", records))
    sample = kmeans.sample_frames([shard], data.records, 40, frames_per_clip=8, seed=1, faults=Faults(), progress=False)
    expected = []
    for clip in clips:  # 8 frames are the whole clip
        count = min(len(values) for name, values in clip.features.items() if not data.stored[name].in_context)
        wide = [np.broadcast_to(v, (count, v.shape[1])) if len(v) == 1 else v[:count] for v in clip.features.values()]
        expected.append(np.concatenate(wide, axis=1))
    expected = np.concatenate(expected)
    assert sample.dtype == np.float32 and sample.shape == expected.shape
    order, wanted = (np.lexsort(rows.T) for rows in (sample, expected))
    np.testing.assert_allclose(sample[order], expected[wanted], atol=1e-6)


def test_the_command_takes_features_from_one_place(tmp_path: Path) -> None:
    common = ("kmeans", f"--input={tmp_path}/x", f"--output={tmp_path}/y.npz")
    done = run_command(*common, "--config=first_level/nextvlad.yaml", "--features=rgb:8")
    assert done.returncode != 0 and "already gives the features; leave --features out" in done.stderr
    done = run_command(*common, "--config=first_level/logistic.yaml")
    assert done.returncode != 0 and "data.level is video, and only clips have frames" in done.stderr
