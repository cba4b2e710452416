"""Soft labels: joined by id in any order, mixed by the formula, and named if they are missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import video_record, write_shard

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import training_stream
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.losses import losses
from yt8m_tf.score_shards import records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.score_shards.soft_labels import beside

_CLASSES = 12


def _data(level: str = "video") -> DataConfig:
    return DataConfig(
        level=level,  # type: ignore[arg-type]
        features={"rgb": 8, "audio": 4},
        num_classes=_CLASSES,
        shuffle_shards=2,
        shuffle_records=20,
    )


def _write(
    directory: Path, shards: dict[str, Sequence[bytes]], rng: np.random.Generator
) -> dict[bytes, dict[int, float]]:
    """Writes score shards of the given videos; returns each video's soft labels."""
    soft: dict[bytes, dict[int, float]] = {}
    manifest = Manifest(("m",), "f", _CLASSES, 5, "video")
    start(directory, manifest)
    counts = {}
    for name, ids in shards.items():
        rows = []
        for video in ids:
            classes = rng.choice(_CLASSES, int(rng.integers(1, 6)), replace=False)
            scores = -np.sort(-rng.random(len(classes)).astype(np.float16))
            soft[video] = dict(zip(classes.tolist(), scores.astype(float).tolist(), strict=True))
            rows.append((video, classes, scores))
        counts[name] = records.write_shard(directory / name, rows)
    finish(directory, Manifest(("m",), "f", _CLASSES, 5, "video", shards=counts))
    return soft


def _ids(shard: str) -> list[bytes]:
    found = []
    for record in tf.data.TFRecordDataset(shard).as_numpy_iterator():
        found.append(tf.train.SequenceExample.FromString(record).context.feature["id"].bytes_list.value[0])
    return found


def _stream(shards: Sequence[str], directory: Path, level: str = "video", **options: Any) -> Any:
    labels = LabelsConfig(
        str(directory), **{name: options.pop(name) for name in ("missing_videos",) if name in options}
    )
    soft = beside(labels, "", _data(level))
    return training_stream(shards, _data(level), 16, seed=3, faults=Faults(), beside=soft, **options)


@pytest.mark.parametrize(("level", "shuffled"), [("video", True), ("frame", False)])
def test_each_video_gets_its_own_soft_labels(
    level: str, shuffled: bool, learnable_shards: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    """Batches have no ids: videos are identified by their features."""
    shards = list_shards(["train*"], str(learnable_shards(level, train=3, each=40)))
    ids = {Path(shard).name: list(rng.permutation(_ids(shard)) if shuffled else _ids(shard)) for shard in shards}
    soft = _write(tmp_path / "soft", ids, rng)
    key = {}
    for shard in shards:
        for record in tf.data.TFRecordDataset(shard).as_numpy_iterator():
            example = tf.train.SequenceExample.FromString(record)
            video = example.context.feature["id"].bytes_list.value[0]
            if level == "video":
                key[tuple(example.context.feature["mean_rgb"].float_list.value)] = video
            else:
                key[example.feature_lists.feature_list["rgb"].feature[0].bytes_list.value[0]] = video
    stream, seen = _stream(shards, tmp_path / "soft", level), set()
    for _ in range(120 // 16 * 2):
        batch = {name: value.numpy() for name, value in next(stream).items()}
        assert batch["soft_classes"].shape == batch["soft_scores"].shape == (16, 5)
        for row in range(16):
            rgb = batch["rgb"][row]
            video = key[tuple(rgb.tolist())] if level == "video" else key[rgb[0].tobytes()]
            seen.add(video)
            found = {
                int(c): float(s)
                for c, s in zip(batch["soft_classes"][row], batch["soft_scores"][row], strict=True)
                if c >= 0
            }
            assert found == soft[video]
    assert len(seen) > 100


def test_a_stream_continues_at_its_position(
    learnable_shards: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    shards = list_shards(["train*"], str(learnable_shards(train=3, each=40)))
    _write(tmp_path / "soft", {Path(shard).name: _ids(shard) for shard in shards}, rng)
    stream = _stream(shards, tmp_path / "soft")
    for _ in range(4):
        next(stream)
    later = _stream(shards, tmp_path / "soft", position=stream.position)
    for _ in range(3):
        tf.nest.map_structure(np.testing.assert_array_equal, next(stream), next(later))


def test_missing_videos(learnable_shards: Callable[..., Path], rng: np.random.Generator, tmp_path: Path) -> None:
    shards = list_shards(["train*"], str(learnable_shards(train=2, each=40)))
    ids = {Path(shard).name: _ids(shard) for shard in shards}
    left_out = ids["train0001.tfrecord"].pop(7)
    ids["train0001.tfrecord"].append(b"stranger")
    soft = _write(tmp_path / "soft", ids, rng)
    stream = _stream(shards, tmp_path / "soft")
    with pytest.raises(InputError, match=rf"train0001\.tfrecord: 1 of 40 videos have no soft .*'{left_out.decode()}'"):
        for _ in range(10):
            next(stream)
    stream = _stream(shards, tmp_path / "soft", missing_videos="hard")
    counts = [int(np.sum(np.max(next(stream)["soft_classes"], axis=1) < 0)) for _ in range(80 // 16)]
    assert sum(counts) == 1 and left_out not in soft


def test_missing_shards_and_other_scores(
    learnable_shards: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    shards = list_shards(["train*"], str(learnable_shards(train=3, each=16)))
    with pytest.raises(InputError, match=r"labels\.soft=.*: no scores there"):
        _stream(shards, tmp_path / "none")
    _write(tmp_path / "soft", {Path(shard).name: _ids(shard) for shard in shards[:1]}, rng)
    with pytest.raises(
        InputError, match=r"no soft labels for 2 of 3 training shards, for example '.*train0001\.tfrecord'"
    ):
        _stream(shards, tmp_path / "soft")
    stream = _stream(shards, tmp_path / "soft", missing_videos="hard")
    assert sum(int(np.sum(np.max(next(stream)["soft_classes"], axis=1) < 0)) for _ in range(3)) == 32
    other = dataclasses.replace(_data(), num_classes=11)
    with pytest.raises(InputError, match="scores of 12 classes; the data has 11"):
        soft = beside(LabelsConfig(str(tmp_path / "soft")), "", other)
        training_stream(shards, other, 16, seed=3, faults=Faults(), beside=soft)


def test_a_truncated_score_shard(
    learnable_shards: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    shards = list_shards(["train*"], str(learnable_shards(train=1, each=40)))
    _write(tmp_path / "soft", {Path(shard).name: _ids(shard) for shard in shards}, rng)
    path = tmp_path / "soft" / "train0000.tfrecord"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"soft/train0000\.tfrecord: damaged .*make the scores of this shard again"):
        next(_stream(shards, tmp_path / "soft"))


def test_a_video_without_id(rng: np.random.Generator, tmp_path: Path) -> None:
    means = {"rgb": np.ones(8, np.float32), "audio": np.ones(4, np.float32)}
    shard = write_shard(tmp_path / "a", [video_record(b"", [1], **means)] * 16)
    _write(tmp_path / "soft", {"a": [b"x"]}, rng)
    with pytest.raises(InputError, match=r"a: record 0: .id. is empty"):
        next(_stream([str(shard)], tmp_path / "soft"))


@pytest.mark.parametrize("unlisted_hard", [False, True])
@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_soften_by_loops(weight: float, unlisted_hard: bool, rng: np.random.Generator) -> None:
    """Rows without soft labels stay hard."""
    hard = (rng.random((6, _CLASSES)) < 0.3).astype(np.float32)
    classes = np.stack([rng.permutation(_CLASSES)[:5] for _ in range(6)]).astype(np.int32)
    classes[1, 2:], classes[4] = -1, -1
    scores = rng.random((6, 5)).astype(np.float16)
    expected = hard.astype(np.float64).copy()
    for row in range(6):
        if row != 4:
            soft = hard[row].copy() if unlisted_hard else np.zeros(_CLASSES)
            for c, s in zip(classes[row], scores[row], strict=True):
                if c >= 0:
                    soft[c] = s
            expected[row] = weight * soft + (1 - weight) * hard[row]
    found = losses.soften(tf.constant(hard), tf.constant(classes), tf.constant(scores), weight, unlisted_hard)
    np.testing.assert_allclose(found, expected, atol=1e-6)
