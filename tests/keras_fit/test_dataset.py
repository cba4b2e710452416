"""Shards as datasets of (inputs, targets)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from shards import codes_of

from yt8m_tf.config.data import DataConfig, data_of
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.keras_fit.dataset import make_dataset

_SPEC = InputSpec(features={"rgb": 24, "audio": 12}, num_classes=20, max_frames=12)


def _records(sample: Any, level: str) -> list[Any]:
    """The records of the validation shards."""
    kind = tf.train.Example if level == "video" else tf.train.SequenceExample
    shards = sorted(str(path) for path in (sample.directory / level).glob("validate*.tfrecord"))
    return [kind.FromString(record.numpy()) for record in tf.data.TFRecordDataset(shards)]


def _labels(record: Any, level: str) -> list[int]:
    context = record.features if level == "video" else record.context
    return list(context.feature["labels"].int64_list.value)


def _spec(level: str) -> InputSpec:
    return InputSpec(level, _SPEC.features, 20, 12)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["video", "frame"])
def test_one_pass_in_order(level: str, sample: Any) -> None:
    dataset = make_dataset(str(sample.directory / level / "validate*.tfrecord"), _spec(level), 100)
    batches = list(dataset)
    assert dataset.cardinality() == len(batches)
    records = _records(sample, level)
    assert [len(targets) for _, targets in batches] == [100] * 5 + [12]
    targets = np.concatenate([targets for _, targets in batches])
    assert [np.flatnonzero(row).tolist() for row in targets] == [sorted(_labels(r, level)) for r in records]
    inputs = batches[0][0]
    if level == "video":
        stored = [record.features.feature["mean_rgb"].float_list.value for record in records[:100]]
        np.testing.assert_array_equal(inputs["rgb"], np.array(stored, np.float32))
        assert set(inputs) == {"rgb", "audio"}
    else:
        codes = codes_of(records[0])["rgb"][:12]
        count = int(inputs["num_frames"][0])
        np.testing.assert_allclose(inputs["rgb"][0, :count], codes[:count] * (4 / 255) + (4 / 512 - 2), atol=1e-6)


@pytest.mark.parametrize("level", ["video", pytest.param("frame", marks=pytest.mark.slow)])
def test_every_pass_has_each_video_once_in_another_order(level: str, sample: Any) -> None:
    pattern = str(sample.directory / level / "validate*.tfrecord")

    def passes() -> list[np.ndarray]:
        dataset = make_dataset([pattern], _spec(level), 200, seed=3)
        return [np.concatenate([targets for _, targets in dataset]) for _ in range(2)]

    first, second = passes()
    in_order = np.concatenate([targets for _, targets in make_dataset(pattern, _spec(level), 200)])
    for found in (first, second):
        assert len(found) == 512 and not np.array_equal(found, in_order)
        np.testing.assert_array_equal(np.sort(found @ 2.0 ** np.arange(20)), np.sort(in_order @ 2.0 ** np.arange(20)))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(passes(), [first, second])


def test_errors_name_their_cause(sample: Any, tmp_path: Path) -> None:
    shard = sample.directory / "video" / "validate0000.tfrecord"
    with pytest.raises(InputError, match=r"validate0000.tfrecord: record 0.*rgb"):
        make_dataset(str(shard), InputSpec(features={"rgb": 25}, num_classes=20), 10)
    with pytest.raises(InputError, match="no file matches"):
        make_dataset(str(tmp_path / "no*.tfrecord"), _SPEC, 10)
    with pytest.raises(InputError, match="batch_size"):
        make_dataset(str(shard), _SPEC, 0)
    with pytest.raises(InputError, match="yt8m-train"):
        make_dataset(str(shard), DataConfig(features=_SPEC.features, num_classes=20, verticals=3), 10)
    cut = tmp_path / "cut.tfrecord"
    cut.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cut.tfrecord.*record 511"):
        list(make_dataset(str(cut), _SPEC, 100))


def test_the_data_config_of_a_spec_has_that_spec() -> None:
    spec = InputSpec("frame", {"rgb": 8, "clip": 4}, 7, 30, ranges={"clip": (0.0, 1.0)})
    assert data_of(spec).spec == spec
