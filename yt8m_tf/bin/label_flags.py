"""The flag of every command that reads labels: what to do about videos without any.

A command calls `flags.adopt_module_key_flags(label_flags)`, so that its `--help` shows it as its own.
"""

from __future__ import annotations

from absl import flags

ON_UNLABELLED = flags.DEFINE_enum(
    "on_unlabelled",
    "error",
    ["error", "skip", "negative"],
    "Action on a video without labels: stop, leave it out, or treat it as a video of none of the classes.",
)
