"""An iterator over batches that knows its position and names what is wrong with a record.

When TensorFlow's reader or parser fails, a slow but exact search (`integrity`) over the shards that were being read
names the shard, the record and the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from yt8m_tf.config.data import RecordsConfig
from yt8m_tf.data import integrity, records
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.order import ShardGroups, group_of
from yt8m_tf.errors import InputError

Batch = dict[str, Any]


class BesideRecords(Protocol):
    """Data that a training stream reads alongside the records, such as soft labels (`score_shards.soft_labels`).

    Attributes:
      replaces_labels: whether it replaces the labels of the records.
    """

    @property
    def replaces_labels(self) -> bool: ...

    def look_up(self, shards: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the data for a batch of records, given their shard numbers [B] and their ids [B], bytes.

        Called in one thread, with the batches in the order of the stream.

        Raises:
          InputError: it has no data for a record that needs them.
        """


class BatchStream:
    """An iterator over batches that knows its position, explains failures, and can continue after damage.

    Args:
      make_dataset: makes the dataset of batches (each with a "position"), given the position to start from and the most
        records to read from each shard (-1 for all).
      groups: the order of the shards.
      data: what the records contain.
      faults: what to do about damage; skipped damage is recorded here.
      position: where to start.
      need_labels: whether the labels of the records are needed.

    Attributes:
      position: just after the last batch delivered.
      seconds_waited: the time spent waiting for batches.
    """

    def __init__(
        self,
        make_dataset: Callable[[int, Sequence[int]], Any],
        groups: ShardGroups,
        data: RecordsConfig,
        faults: Faults,
        position: int = 0,
        need_labels: bool = True,
    ):
        self.position, self.seconds_waited = position, 0.0
        self._make_dataset, self._groups, self._data, self._faults = make_dataset, groups, data, faults
        self._need_labels = need_labels
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
        if (unlabelled := batch.pop("unlabelled_ids", None)) is not None:
            self._faults.count_once("num_unlabelled", np.asarray(unlabelled).tolist())
        self.seconds_waited += time.perf_counter() - start
        return batch

    def _restart(self) -> Iterator[Batch]:
        damaged = self._faults.damaged
        good = [damaged[shard].record if shard in damaged else -1 for shard in self._groups.shards]
        if not any(good):
            first = damaged[self._groups.shards[0]]
            raise InputError(f"every shard is damaged at its first record (for example {first}); fetch them again")
        return iter(self._make_dataset(self.position, good))

    def _explain_or_skip(self, error: Exception) -> None:
        """Records damage that is to be skipped; otherwise raises an error that names the record."""
        group, known = group_of(self.position), self._faults.damaged
        if isinstance(error, records.PARSE_FAILURES):
            problem = self._faults.find_bad_record(
                self._groups.following(group), self._data, need_labels=self._need_labels, need_whole=False
            )
            if problem:
                raise InputError(problem) from error
        damage = integrity.find_damage(shard for shard in self._groups.following(group) if shard not in known)
        if damage is None:
            raise error
        self._faults.skip_damage(damage)
