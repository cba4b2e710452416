"""The training examples stored by the models nearest_neighbors and kernel_ridge."""

from __future__ import annotations

import dataclasses
import glob

import keras
import numpy as np
import pytest
import tensorflow as tf
from sample_world import MAX_FRAMES, NUM_CLASSES, SIZES, Sample

from yt8m_tf import models
from yt8m_tf.config import experiment
from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.layers import kernel_solve
from yt8m_tf.models import registry
from yt8m_tf.training import memory

_NEIGHBORS = {"name": "nearest_neighbors", "capacity": 4000, "num_neighbors": 8}


def _data(level: str) -> experiment.DataConfig:
    data = {
        "level": level,
        "train": f"{level}/train*.tfrecord",
        "validation": f"{level}/validate*.tfrecord",
        "features": dict(SIZES),
        "num_classes": NUM_CLASSES,
        "max_frames": MAX_FRAMES,
    }
    return registry.parse_experiment({"model": {"name": "logistic"}, "data": data}).data


def _shards(sample: Sample, level: str) -> list[str]:
    return sorted(glob.glob(str(sample.directory / level / "train*.tfrecord")))


def _examples(shards: list[str]) -> list[tf.train.Example]:
    return [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(shards)]


def _filled(options: dict, sample: Sample, level: str = "video") -> keras.Model:
    data = _data(level)
    model = models.build_model(options, data.spec)
    memory.fill(model, _shards(sample, level), data, Faults())
    return model


def test_all_videos_when_there_is_room(sample: Sample) -> None:
    layer = _filled(_NEIGHBORS, sample).get_layer("memory")
    examples = _examples(_shards(sample, "video"))
    rgb, audio = (
        np.array([example.features.feature[f"mean_{name}"].float_list.value for example in examples], "float64")
        for name in SIZES
    )
    expected = []
    for values in (rgb, audio):
        centred = values - values.mean(axis=0)
        expected.append(centred / np.linalg.norm(centred, axis=1, keepdims=True))
    keys, labels = np.asarray(layer.keys), np.asarray(layer.labels)
    assert len(examples) < 4000 and not keys[len(examples) :].any() and (labels[len(examples) :] == -1).all()
    np.testing.assert_allclose(keys[: len(examples)], np.concatenate(expected, axis=1), atol=1e-5)
    for own, example in zip(labels, examples, strict=False):
        assert own[own >= 0].tolist() == sorted(example.features.feature["labels"].int64_list.value)


def test_videos_of_every_shard_when_there_is_no_room_for_all(sample: Sample) -> None:
    shards = _shards(sample, "video")
    layer = _filled(_NEIGHBORS | {"capacity": 2 * len(shards)}, sample).get_layer("memory")
    assert (np.asarray(layer.labels)[:, 0] >= 0).all()
    first = [_examples([shard])[:3] for shard in shards]
    given = [sorted(e.features.feature["labels"].int64_list.value) for examples in first for e in examples]
    assert all(sorted(own[own >= 0].tolist()) in given for own in np.asarray(layer.labels))


def test_means_over_frames(sample: Sample) -> None:
    """Tests a frame-level model, and a member of a weighted mean that reads a single feature."""
    alone = _filled(_NEIGHBORS, sample, "frame").get_layer("memory")
    assert np.linalg.norm(np.asarray(alone.keys), axis=1).max() == pytest.approx(2**0.5, rel=1e-5)
    mean = {"name": "weighted_mean", "members": [{"name": "logistic"}, _NEIGHBORS | {"features": ["audio"]}]}
    member = _filled(mean, sample, "frame").get_layer("member_1").get_layer("member_1_memory")
    size = SIZES["audio"]
    np.testing.assert_allclose(np.asarray(member.keys), np.asarray(alone.keys)[:, -size:], atol=1e-5)


def test_tags_come_after_the_classes(sample: Sample) -> None:
    data = _data("video")
    spec = dataclasses.replace(data.spec, num_tags=3)
    membership = np.zeros((NUM_CLASSES, 3))
    membership[::2, 1] = 1  # even classes
    model = models.build_model(_NEIGHBORS, spec)
    memory.fill(model, _shards(sample, "video"), data, Faults(), membership)
    for own in np.asarray(model.get_layer("memory").labels):
        classes, tags = own[(own >= 0) & (own < NUM_CLASSES)], own[own >= NUM_CLASSES]
        assert tags.tolist() == ([NUM_CLASSES + 1] if (classes % 2 == 0).any() else [])


@pytest.mark.parametrize("level", ["video", "frame"])
def test_duals_solve_the_system_of_all_videos(level: str, sample: Sample) -> None:
    """The keys are those of nearest_neighbors, scaled; duals are refitted to the labels that it stores."""
    options = {"name": "kernel_ridge", "capacity": 4000, "shares": {"audio": 0.6}, "gamma": 1.5, "ridge": 0.3}
    layer, other = (_filled(own, sample, level).get_layer("memory") for own in (options, _NEIGHBORS))
    count = len(_examples(_shards(sample, level)))
    scales = np.repeat([1.0, 0.6], [SIZES[name] for name in ("rgb", "audio")])
    keys = np.asarray(other.keys, "float64")[:count] * scales
    np.testing.assert_allclose(np.asarray(layer.keys)[:count], keys, atol=1e-5)
    targets = np.zeros((count, NUM_CLASSES))
    for row, own in zip(targets, np.asarray(other.labels), strict=False):
        row[own[own >= 0]] = 1
    squares = np.sum(keys**2, axis=1)
    kernel = np.exp(-0.75 * (squares[:, None] + squares - 2 * keys @ keys.T))
    inverse = np.linalg.inv(kernel + 0.3 * np.eye(count))
    np.testing.assert_allclose(np.asarray(layer.duals)[:count], inverse @ targets, atol=1e-3)
    np.testing.assert_allclose(np.asarray(layer.own)[:count], 1 / np.diag(inverse) - 0.3, rtol=1e-3)
    assert not np.asarray(layer.duals)[count:].any() and not np.asarray(layer.own)[count:].any()


def test_a_memory_that_is_too_large_gives_a_one_line_error(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(kernel_solve, "gaussian_kernel", fails)
    with pytest.raises(
        InputError, match=r"^configuration key 'model.capacity': .* of 300 videos needs 0\.0 GB .*lower"
    ):
        _filled({"name": "kernel_ridge", "capacity": 300}, sample)


def test_a_sparse_memory_scores_as_the_full_one_if_it_has_room(sample: Sample) -> None:
    """Tests with a dual for every video and class, and all components, so that only rounding differs."""
    common = {"capacity": 400, "shares": {"audio": 0.6}, "gamma": 1.5, "ridge": 0.3}
    full = _filled({"name": "kernel_ridge"} | common, sample)
    room = {"components": 1000, "centres": 20, "duals_per_video": NUM_CLASSES}
    sparse = _filled({"name": "sparse_kernel_ridge"} | common | room, sample)
    rng = np.random.default_rng(3)
    given = [rng.normal(size=(9, size)).astype("float32") for size in SIZES.values()]
    expected = full.get_layer("memory")(given)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(sparse.get_layer("memory")(given), expected, atol=5e-3)


@pytest.mark.parametrize("name", ["kernel_ridge", "sparse_kernel_ridge"])
def test_a_ridge_that_is_too_small_gives_a_one_line_error(name: str, sample: Sample) -> None:
    options = {"name": name, "capacity": 300, "gamma": 1e-9, "ridge": 1e-12}
    with pytest.raises(InputError, match=r"^configuration key 'model.ridge': .* raise model.ridge"):
        _filled(options, sample)
