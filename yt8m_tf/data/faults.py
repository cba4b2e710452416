"""Policies for damaged shards, empty clips and unlabelled videos, with counts of those found so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from yt8m_tf.config.data import RecordsConfig, targets_of
from yt8m_tf.data import integrity
from yt8m_tf.data.integrity import Damage
from yt8m_tf.data.record_check import Reader, check_record
from yt8m_tf.errors import InputError

Action = Literal["error", "skip"]


@dataclasses.dataclass
class Faults:
    """The user's choice for each kind of fault, and a record of the faults that were tolerated.

    Attributes:
      on_damaged: "error", or "skip": use the records before the damage and continue with the next shard.
      on_empty: "error", or "skip": leave out clips without frames.
      on_unlabelled: where labels are needed, "error", "skip": leave out videos without labels, or "negative": treat
        them as videos of no class.
      reader: decides the remedies that messages name.
      damaged: the damage that was found and skipped, by shard.
      num_empty: clips without frames that were left out.
      num_unlabelled: videos without labels that were left out or taken for negative.
      num_beyond: rated segments that start beyond their clips, and were left out.
    """

    on_damaged: Action = "error"
    on_empty: Action = "error"
    on_unlabelled: Literal["error", "skip", "negative"] = "error"
    reader: Reader = dataclasses.field(default_factory=Reader)
    damaged: dict[str, Damage] = dataclasses.field(default_factory=dict)
    num_empty: int = 0
    num_unlabelled: int = 0
    num_beyond: int = 0

    def __post_init__(self) -> None:
        # Ids that `count_once` counted, by kind. Not a field, because it is no part of a summary.
        self._counted: dict[str, set[bytes]] = {}

    def anew(self) -> Faults:
        """Returns the same choices without any faults recorded, for reading the same data again."""
        return Faults(self.on_damaged, self.on_empty, self.on_unlabelled, self.reader)

    def skip_damage(self, damage: Damage) -> None:
        """Records damage that is to be skipped.

        Raises:
          InputError: damage is not to be skipped.
        """
        if self.on_damaged == "error":
            raise InputError(damage.advise(self.reader.damage_hint))
        self.damaged[damage.path] = damage

    def of_model(self, name: str) -> None:
        """Makes later messages say that the model of this name decides what records must contain."""
        self.reader = dataclasses.replace(self.reader, model=name)

    def find_bad_record(
        self, paths: Iterable[str], data: RecordsConfig, *, need_labels: bool = True, need_whole: bool = True
    ) -> str | None:
        """`integrity.find_bad_record` for faults that are not tolerated; a plain `RecordsConfig` skips labels."""
        return integrity.find_bad_record(
            paths,
            data,
            need_labels=need_labels and targets_of(data) is not None and self.on_unlabelled == "error",
            need_frames=self.on_empty == "error",
            need_whole=need_whole,
            reader=self.reader,
        )

    def check_record(self, serialized: bytes, data: RecordsConfig, *, need_labels: bool = True) -> str | None:
        """`record_check.check_record` in the same way."""
        return check_record(
            serialized,
            data,
            need_labels=need_labels and targets_of(data) is not None and self.on_unlabelled == "error",
            need_frames=self.on_empty == "error",
            reader=self.reader,
        )

    def count_once(self, kind: Literal["num_empty", "num_unlabelled", "num_beyond"], ids: Iterable[bytes]) -> None:
        """Adds ids of videos or segments to a count; one that is read again, in a later pass, is not counted again."""
        counted = self._counted.setdefault(kind, set())
        new = set(ids) - counted
        counted |= new
        setattr(self, kind, getattr(self, kind) + len(new))

    def skip_empty(self, shard: str, data: RecordsConfig, count: int) -> None:
        """Counts clips of a shard that are left out because they have no frames.

        Raises:
          InputError: they are not to be left out, or a record lacks one of the features altogether.
        """
        if problem := self.find_bad_record([shard], data, need_whole=False):
            raise InputError(problem)
        self.num_empty += count

    def nothing_usable(self, shards: Sequence[str]) -> str:
        """Returns why shards had nothing that a command could use, in a few words."""
        if damage := next(iter(self.damaged.values()), None) or integrity.find_damage(shards):
            return str(damage)
        for count, what in (
            (self.num_empty, "clips without frames"),
            (self.num_unlabelled, "videos without labels"),
            (self.num_beyond, "rated segments that start beyond their clips"),
        ):
            if count:
                return f"{count:,} {what}"
        if any(True for shard in shards for _ in integrity.good_records(shard)):
            return "they have no such records"
        return f"for example, '{shards[0]}' is empty"

    def check_any(self, count: int, shards: Sequence[str], done: str, remedy: str = "give other shards") -> None:
        """Checks that a command found something to use.

        Args:
          count: how much it found.
          shards: where it looked.
          done: what should have been done, such as "no video was scored".
          remedy: the end of the message.

        Raises:
          InputError: `count` is 0.
        """
        if not count:
            raise InputError(f"{done}: {self.nothing_usable(shards)}; {remedy}")

    def summary(self) -> list[str]:
        """Returns a line for each kind of fault that was tolerated, to show at the end of a run."""
        lines = [
            f"skipped {'a file that is not a shard' if damage.foreign else 'the rest of a damaged shard'}: {damage}"
            for damage in self.damaged.values()
        ]
        if self.num_empty:
            lines.append(f"left out {self.num_empty:,} clips without frames")
        if self.num_unlabelled:
            done = "left out" if self.on_unlabelled == "skip" else "kept as negatives"
            lines.append(f"{done} {self.num_unlabelled:,} videos without labels")
        if self.num_beyond:
            lines.append(f"left out {self.num_beyond:,} rated segments that start beyond their clips")
        return lines
