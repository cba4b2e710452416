"""The flag `--checkpoint` of every command that reads a run: which of its checkpoints to read.

A command calls `flags.adopt_module_key_flags(checkpoint_flags)`, so that its `--help` shows it as its own.
"""

from __future__ import annotations

from absl import flags

CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["best", "last"], "Checkpoint of the best validation metric, or the newest."
)
