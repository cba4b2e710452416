"""The order of records depends only on the seed and the position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from shards import write_shard

from yt8m_tf.data.order import ShardGroups, group_of, serialized_records


def _shards(directory: Path, sizes: Sequence[int]) -> list[str]:
    return [
        str(write_shard(directory / f"{shard}.tfrecord", [f"{shard}:{i}".encode() for i in range(size)]))
        for shard, size in enumerate(sizes)
    ]


def _groups(shards: list[str], group_size: int, seed: int | None, passes: int) -> list[list[list[int]]]:
    """The shards of each group of each pass."""
    groups = ShardGroups(shards, group_size, seed)
    numbers = iter(range(passes * groups.per_pass))
    return [
        [groups.indices(tf.constant(next(numbers), tf.int64)).numpy().tolist() for _ in range(groups.per_pass)]
        for _ in range(passes)
    ]


@pytest.mark.parametrize(("group_size", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (50, [7])])
def test_every_shard_is_in_one_group_of_a_pass(group_size: int, sizes: list[int]) -> None:
    shards = [f"s{number}" for number in range(7)]
    passes = _groups(shards, group_size, 3, 20)
    for groups in passes:
        assert [len(group) for group in groups] == sizes
        assert sorted(index for group in groups for index in group) == list(range(7))
    assert len({str(groups) for groups in passes}) > 15  # in a new order each time
    assert passes == _groups(shards, group_size, 3, 20) != _groups(shards, group_size, 4, 20)
    in_order = [index for group in _groups(shards, group_size, None, 1)[0] for index in group]
    assert in_order == list(range(7))


@pytest.mark.parametrize("group", [0, 1, 2, 5])
def test_following_names_every_shard_once_in_the_order_of_reading(group: int) -> None:
    groups = ShardGroups([f"s{number}" for number in range(7)], 3, 1)
    following = list(groups.following(group))
    assert sorted(following) == sorted(groups.shards)
    now = groups.indices(tf.constant(group, tf.int64)).numpy()
    assert following[: len(now)] == [f"s{index}" for index in now]


def _read(
    shards: list[str],
    position: int,
    window: int,
    number: int,
    good_records: Sequence[int] = (),
    seed: int | None = 1,
    interleave: bool = True,
) -> list[tuple[int, bytes]]:
    groups = ShardGroups(shards, 2, seed)
    good = good_records or [-1] * len(shards)
    dataset = serialized_records(groups, position, window, good, interleave=interleave)
    return list(dataset.take(number).as_numpy_iterator())


@pytest.mark.parametrize(
    ("window", "interleave"),
    [(0, True), (5, False), *(pytest.param(window, True, marks=pytest.mark.slow) for window in (1, 5, 1000))],
)
def test_the_rest_is_the_same_from_any_position(
    window: int, interleave: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    sizes = [9, 12, 4, 7, 0, 3, 1]  # groups of two, and a group of one at the end of a pass
    shards = _shards(tmp_path, sizes)
    whole = _read(shards, 0, window, 160, interleave=interleave)
    names = [name for _, name in whole]
    expected = sorted(f"{shard}:{i}".encode() for shard, size in enumerate(sizes) for i in range(size))
    for start in (0, 36, 72):
        assert sorted(names[start : start + 36]) == expected
    assert names[:36] != names[36:72] != names[72:108]
    groups = np.array([group_of(position) for position, _ in whole])
    borders = np.flatnonzero(np.diff(groups))  # the last record of every group
    assert len(borders) >= 15
    some = {*rng.choice(borders, 3), *(rng.choice(borders[:-1], 2) + 1), *rng.choice(155, 4)}
    for last in sorted(some):
        rest = _read(shards, whole[last][0], window, 159 - last, interleave=interleave)
        assert rest == whole[last + 1 :]


def test_records_after_a_limit_are_not_read(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [5, 5, 5])
    names = [name for _, name in _read(shards, 0, 4, 18, good_records=[2, -1, 0])]
    once = sorted([b"0:0", b"0:1", *(f"1:{i}".encode() for i in range(5))])
    assert sorted(names[:7]) == sorted(names[7:14]) == once


def test_the_files_order_without_a_seed_and_a_window(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [3, 2, 1])
    names = [name.decode() for _, name in _read(shards, 0, 0, 8, seed=None)]
    assert names == ["0:0", "0:1", "0:2", "1:0", "1:1", "2:0", "0:0", "0:1"]
    groups = ShardGroups(shards, 1, None)
    one_pass = serialized_records(groups, 0, 0, [-1] * 3, num_groups=3)
    assert [name.decode() for _, name in one_pass.as_numpy_iterator()] == names[:6]


def test_each_seed_gives_another_order(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [27])  # a single shard, so only records are shuffled
    orders = [tuple(name for _, name in _read(shards, 0, 30, 27, seed=seed)) for seed in (0, 1, 2**31 + 5, 2**62 + 3)]
    assert len(set(orders)) == 4 and all(len(set(order)) == 27 for order in orders)
    assert tuple(name for _, name in _read(shards, 0, 30, 54, seed=0)[27:]) not in orders  # so does every pass


def test_the_seed_of_the_process_does_not_matter(tmp_path: Path) -> None:
    shards, found = _shards(tmp_path, [9, 9, 9]), []
    for seed in (5, 6):
        tf.random.set_seed(seed)
        found.append(_read(shards, 0, 30, 60))
    assert found[0] == found[1]
