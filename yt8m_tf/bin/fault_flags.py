"""The flags of every command that reads clips: what to do about damaged shards and empty clips.

A command calls `flags.adopt_module_key_flags(fault_flags)`, so that its `--help` shows them as its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from yt8m_tf.data.faults import Faults

_ON_DAMAGED = flags.DEFINE_enum(
    "on_damaged", "error", ["error", "skip"], "Action on a damaged shard: stop, or continue with the next shard."
)
_ON_EMPTY = flags.DEFINE_enum(
    "on_empty", "error", ["error", "skip"], "Action on a clip without frames: stop, or leave it out."
)


def faults(on_unlabelled: str = "error") -> Faults:
    """Returns new fault counters with the policies of the flags; `on_unlabelled` is from `label_flags`."""
    from yt8m_tf.data.faults import Faults
    from yt8m_tf.data.record_check import Reader

    return Faults(_ON_DAMAGED.value, _ON_EMPTY.value, on_unlabelled, Reader(has_flags=True))  # type: ignore[arg-type]
