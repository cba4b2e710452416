"""The class prior against a direct count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shards import frame_record, video_record, write_shard

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.statistics import class_prior, target_weights, uniform_prior
from yt8m_tf.errors import InputError

_CLASSES = 8


def _data(level: str = "video") -> DataConfig:
    return DataConfig(level=level, features={"rgb": 2}, num_classes=_CLASSES)  # type: ignore[arg-type]


def _shards(directory: Path, labels: list[list[list[int] | None]], level: str = "video") -> list[str]:
    """Writes one shard for each list of records' labels."""
    paths = []
    for number, shard in enumerate(labels):
        if level == "video":
            records = [video_record(b"abcd", ids, rgb=np.zeros(2, "float32")) for ids in shard]
        else:
            records = [frame_record(b"abcd", ids, rgb=np.zeros((3, 2), "uint8")) for ids in shard]
        paths.append(str(write_shard(directory / f"train{number}.tfrecord", records)))
    return paths


def _random_labels(rng: np.random.Generator, sizes: list[int]) -> list[list[list[int] | None]]:
    return [[sorted(rng.choice(_CLASSES, rng.integers(1, 4), replace=False)) for _ in range(size)] for size in sizes]


def _expected(labels: list[list[int] | None]) -> np.ndarray:
    """The prior with one pseudo-video that has 3 / C of every class."""
    counts = [sum(c in (ids or []) for ids in labels) for c in range(_CLASSES)]
    return (np.array(counts) + 3 / _CLASSES) / (len(labels) + 1)


@pytest.mark.parametrize("level", ["video", "frame"])
def test_all_records(level: str, tmp_path: Path, rng: np.random.Generator) -> None:
    labels = _random_labels(rng, [30, 0, 300, 7])  # more than one batch, and an empty shard
    labels[0][3] = None
    shards = _shards(tmp_path, labels, level)
    prior = class_prior(shards, _data(level), 10_000, Faults())
    assert prior.shape == (_CLASSES,) and prior.dtype == np.float64
    np.testing.assert_allclose(prior, _expected([ids for shard in labels for ids in shard]), rtol=1e-12)


def test_the_first_records_of_every_shard(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = _random_labels(rng, [20, 20, 20])
    prior = class_prior(_shards(tmp_path, labels), _data(), 10, Faults())  # 4 of each shard, until there are 10
    np.testing.assert_allclose(prior, _expected([ids for shard in labels for ids in shard[:4]]), rtol=1e-12)
    few = class_prior(_shards(tmp_path, labels), _data(), 2, Faults())
    np.testing.assert_allclose(few, _expected([labels[0][0], labels[1][0]]), rtol=1e-12)


def test_smoothing_keeps_every_share_between_0_and_1(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [[[0]] * 50])
    prior = class_prior(shards, _data(), 100, Faults())
    assert prior[0] == pytest.approx((50 + 0.375) / 51) and prior[1] == pytest.approx(0.375 / 51)
    assert np.all((prior > 0) & (prior < 1))
    np.testing.assert_allclose(uniform_prior(6), [0.5] * 6)
    np.testing.assert_allclose(uniform_prior(2), [0.5] * 2)  # three labels of two classes would exceed 1
    assert uniform_prior(3862).sum() == pytest.approx(3.0)


def test_labels_out_of_range_are_not_counted(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [[[0, _CLASSES], [1, -1], [1]]])
    np.testing.assert_allclose(class_prior(shards, _data(), 100, Faults()), _expected([[0], [1], [1]]))


def test_no_labels(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [[None, None], [[]]])
    with pytest.raises(InputError, match=r"no labels in the 3 training records looked at, from '.*train0"):
        class_prior(shards, _data(), 100, Faults())


def test_damage(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = _random_labels(rng, [10, 10])
    shards = _shards(tmp_path, labels)
    content = Path(shards[0]).read_bytes()
    size = len(content) // 10 // 4 * 4
    Path(shards[0]).write_bytes(content[: 7 * size])  # within the sixth, seventh or eighth record
    with pytest.raises(InputError, match=rf"{shards[0]}: damaged at byte \d+, record \d.*fetch the shard again"):
        class_prior(shards, _data(), 100, Faults())
    # The first records are intact, and no more are needed.
    np.testing.assert_allclose(
        class_prior(shards, _data(), 8, Faults()), _expected([*labels[0][:4], *labels[1][:4]]), rtol=1e-12
    )
    prior = class_prior(shards, _data(), 100, Faults(on_damaged="skip"))
    good = [n for n in range(5, 9) if np.allclose(prior, _expected([*labels[0][:n], *labels[1]]))]
    assert len(good) == 1, "the good records before the damage count"


def test_a_shard_that_does_not_exist(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = _random_labels(rng, [5])
    shards = [str(tmp_path / "none.tfrecord"), *_shards(tmp_path, labels)]
    with pytest.raises(InputError, match=r"none\.tfrecord: damaged at byte 0.*cannot be read"):
        class_prior(shards, _data(), 100, Faults())
    prior = class_prior(shards, _data(), 100, Faults(on_damaged="skip"))
    np.testing.assert_allclose(prior, _expected(labels[0]), rtol=1e-12)


def test_a_record_that_is_not_an_example(tmp_path: Path) -> None:
    shard = str(write_shard(tmp_path / "train0.tfrecord", [b"\x0a\xff\xff"]))
    with pytest.raises(InputError, match=r"train0\.tfrecord: record 0: 3 bytes that are not a tf\.train\.Example"):
        class_prior([shard], _data(), 100, Faults())


def test_target_weights_computed_by_hand() -> None:
    prior = np.array([0.04, 0.01, 0.16])
    np.testing.assert_allclose(target_weights(prior, 0.5), [0.5, 1.0, 0.25])
    np.testing.assert_allclose(prior * target_weights(prior, 1.0), [0.01] * 3)  # all classes weigh the same
    np.testing.assert_array_equal(target_weights(prior, 0.0), [1.0] * 3)
