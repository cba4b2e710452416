"""Lists of shards, folds, and the workers' shares of shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from yt8m_tf.data.shards import assign_folds, list_shards, size_of, worker_share
from yt8m_tf.errors import InputError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("train02", "train00", "train01", "validate00"):
        (tmp_path / f"{name}.tfrecord").write_bytes(b"")
    (tmp_path / "train_old.tfrecord").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["train*.tfrecord"], ["train00", "train01", "train02"]),  # sorted, and without the directory
        (["train0[12].tfrecord", "train00.tfrecord"], ["train00", "train01", "train02"]),
        (["train0?.tfrecord", "*00.tfrecord"], ["train00", "train01", "train02", "validate00"]),  # each only once
    ],
)
def test_patterns(patterns: list[str], expected: list[str], directory: Path) -> None:
    paths = [str(directory / f"{name}.tfrecord") for name in expected]
    assert list_shards(patterns, str(directory)) == paths
    assert list_shards([str(directory / pattern) for pattern in patterns], "/elsewhere") == paths


def test_home_and_other_file_systems(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(directory.parent))
    home = f"~/{directory.name}"
    paths = [str(directory / "validate00.tfrecord")]
    assert list_shards([f"{home}/val*"], "/elsewhere") == list_shards(["val*"], home) == paths
    # A scheme makes a pattern absolute, as "gs://" does.
    assert list_shards([f"file://{directory}/val*"], "/elsewhere") == [f"file://{paths[0]}"]
    assert size_of(f"file://{paths[0]}") == size_of(paths[0]) == Path(paths[0]).stat().st_size


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("test*.tfrecord", r"data\.test: no file matches '{dir}/test\*\.tfrecord'; check --data_dir"),
        (".", r"'{dir}/\.' is a directory; give a pattern for the shards in it, such as '{dir}/\./\*\.tfrecord'"),
        ("train_*", "train_.*' is a directory"),
        ("none/*", "no file matches"),
    ],
)
def test_patterns_that_match_no_file(pattern: str, message: str, directory: Path) -> None:
    with pytest.raises(InputError, match=message.replace("{dir}", str(directory))):
        list_shards([pattern], str(directory), "data.test")
    with pytest.raises(InputError):  # also next to a good pattern
        list_shards(["train0*", pattern], str(directory), "data.test")


def test_a_data_dir_that_is_too_high_is_reported(tmp_path: Path) -> None:
    for name in ("2/video", "2/frame"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "train00.tfrecord").touch()
    two = tmp_path / "2"
    for top, listed in ((two, "frame/, video/"), (tmp_path, "2/frame/, 2/video/")):
        with pytest.raises(
            InputError, match=rf"no file matches .*; below it .* in {listed}; give --data_dir={two}/fra"
        ):
            list_shards(["train*"], str(top), "data.train")
        with pytest.raises(InputError, match=rf"in {listed}; give '{two}/frame/train\*'"):
            list_shards([f"{top}/train*"], "", "--input")
    with pytest.raises(InputError, match="check --data_dir and the pattern"):
        list_shards(["test*"], str(tmp_path), "data.train")


def test_no_pattern() -> None:
    with pytest.raises(InputError, match=r"data\.train: no pattern"):
        list_shards([], "", "data.train")


def test_folds_of_three_shards_by_hand() -> None:
    # sha256sum of the base names: 3c6565... for train01, 3d1396... for train02, f0e8f5... for train00.
    shards = ["/a/train00.tfrecord", "/a/train01.tfrecord", "/b/train02.tfrecord"]
    assert assign_folds(shards, 2) == {"train01.tfrecord": 0, "train02.tfrecord": 1, "train00.tfrecord": 0}
    assert assign_folds(shards, 3) == {"train01.tfrecord": 0, "train02.tfrecord": 1, "train00.tfrecord": 2}


@pytest.mark.parametrize("num_folds", [2, 5, 7])
def test_folds_are_even_and_do_not_depend_on_the_order_of_the_listing(num_folds: int, rng: np.random.Generator) -> None:
    shards = [f"/data/train{number:04d}.tfrecord" for number in range(123)]
    folds = assign_folds(shards, num_folds)
    assert sorted(folds) == sorted(path.rsplit("/")[-1] for path in shards)
    sizes = np.bincount(list(folds.values()))
    assert len(sizes) == num_folds and sizes.max() - sizes.min() <= 1
    shuffled = [f"/elsewhere/{path.rsplit('/')[-1]}" for path in rng.permutation(shards)]
    assert assign_folds(shuffled, num_folds) == folds
    runs = [folds[f"train{number:04d}.tfrecord"] for number in range(123)]
    assert runs != sorted(runs) and runs != [number % num_folds for number in range(123)]


@pytest.mark.parametrize(
    ("shards", "num_folds", "message"),
    [
        (["a", "b"], 1, "from 2 to the number of shards, 2; got 1"),
        (["a", "b"], 3, "from 2 to the number of shards, 2; got 3"),
        (["x/a", "y/a", "b"], 2, "two shards are named 'a'"),
    ],
)
def test_folds_that_cannot_be_made(shards: list[str], num_folds: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assign_folds(shards, num_folds)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 10, 12])
def test_workers_share_all_shards(num_workers: int) -> None:
    shards = [f"s{number}" for number in range(10)]
    shares = [worker_share(shards, worker, num_workers) for worker in range(num_workers)]
    assert sorted(shard for share in shares for shard in share) == shards
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
