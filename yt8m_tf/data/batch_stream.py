"""An iterator over batches that knows its position and names what is wrong with a record.

Failures are told from the inside: when TensorFlow's reader or parser fails, a slow and exact search over the shards
that were being read (`integrity`) names the shard, the record and the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import tensorflow as tf

from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.data import integrity, records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.order import ShardGroups, group_of
from yt8m_tf.errors import InputError

Batch = dict[str, Any]


class BesideRecords(Protocol):
    """Data that a training stream reads beside the records, such as soft labels (`score_shards.soft_labels`).

    Attributes:
      replaces_labels: whether the labels of the records do not matter.
    """

    @property
    def replaces_labels(self) -> bool: ...

    def attach(self, index: tf.Tensor, serialized: tf.data.Dataset) -> tf.data.Dataset:
        """The records of shard `index`, each as a tuple of itself and of strings beside it."""

    def decode(self, *strings: tf.Tensor) -> Batch:
        """What a batch has of these strings, each [B]."""

    def find_problem(self, shards: Iterable[str]) -> str | None:
        """What keeps it from being read beside these shards, in one line; None where nothing does."""


class BatchStream:
    """An iterator over batches that knows its position, explains failures, and can go on after damage.

    Args:
      make_dataset: makes the dataset of batches (each with a "position") that starts at a position and reads
        no more than so many records of each shard.
      groups: the order of the shards.
      data: what the records hold.
      faults: what to do about damage; what is skipped is recorded here.
      position: where to start.
      beside: what else may be at fault.

    Attributes:
      position: just after the last batch delivered.
      seconds_waited: the time spent on waiting for batches.
    """

    def __init__(
        self,
        make_dataset: Callable[[int, Sequence[int]], Any],
        groups: ShardGroups,
        data: RecordsConfig,
        faults: Faults,
        position: int = 0,
        beside: BesideRecords | None = None,
    ):
        self.position, self.seconds_waited = position, 0.0
        self._make_dataset, self._groups, self._data, self._faults = make_dataset, groups, data, faults
        self._beside = beside
        self._iterator = self._restart()

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        while True:
            try:
                batch = next(self._iterator)
                break
            except (*integrity.READ_FAILURES, *records.PARSE_FAILURES) as error:
                self._explain_or_skip(error)
                self._iterator = self._restart()
        self.position = int(batch.pop("position"))
        self._faults.num_unlabelled += int(batch.pop("num_unlabelled", 0))
        self.seconds_waited += time.perf_counter() - start
        return batch

    def _restart(self) -> Iterator[Batch]:
        damaged = self._faults.damaged
        good = [damaged[shard].record if shard in damaged else -1 for shard in self._groups.shards]
        if not any(good):
            first = damaged[self._groups.shards[0]]
            raise InputError(f"every shard is damaged at its first record ({first}, for one); fetch them again")
        return iter(self._make_dataset(self.position, good))

    def _explain_or_skip(self, error: Exception) -> None:
        """Records the damage that is to be skipped; raises what names the record in every other case."""
        group, known = group_of(self.position), self._faults.damaged
        if isinstance(error, records.PARSE_FAILURES):
            problem = self._faults.find_bad_record(
                self._groups.following(group), self._data, need_labels=needs_labels(self._beside), need_whole=False
            )
            if problem:
                raise InputError(problem) from error
        damage = integrity.find_damage(shard for shard in self._groups.following(group) if shard not in known)
        if damage is None and self._beside and (problem := self._beside.find_problem(self._groups.shards)):
            raise InputError(problem) from error
        if damage is None:
            raise error
        self._faults.skip_damage(damage)


def needs_labels(beside: BesideRecords | None) -> bool:
    """Whether the labels of the records matter, with what is read beside them."""
    return beside is None or not beside.replaces_labels
