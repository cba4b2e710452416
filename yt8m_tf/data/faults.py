"""What to do about damaged shards and empty clips, and what has been met so far."""

from __future__ import annotations

import dataclasses
from typing import Literal

from yt8m_tf.data.integrity import Damage
from yt8m_tf.errors import InputError

Action = Literal["error", "skip"]


@dataclasses.dataclass
class Faults:
    """The user's choice for each kind of fault, and a record of those that were skipped.

    Attributes:
      on_damaged: "error", or "skip": use the records before the damage and go on with the next shard.
      on_empty: "error", or "skip": leave out clips without frames.
      damaged: what was found damaged and skipped, by shard.
      num_empty: clips without frames that were left out.
    """

    on_damaged: Action = "error"
    on_empty: Action = "error"
    damaged: dict[str, Damage] = dataclasses.field(default_factory=dict)
    num_empty: int = 0

    def meet(self, damage: Damage) -> None:
        """Records damage that is to be skipped.

        Raises:
          InputError: damage is not to be skipped.
        """
        if self.on_damaged == "error":
            raise InputError(f"{damage}; --on_damaged=skip goes on with the next shard")
        self.damaged[damage.path] = damage

    def summary(self) -> list[str]:
        """One line for each kind of fault that was skipped, to be shown at the end of a run."""
        lines = [f"skipped the rest of a damaged shard: {damage}" for damage in self.damaged.values()]
        if self.num_empty:
            lines.append(f"left out {self.num_empty} clips without frames")
        return lines
