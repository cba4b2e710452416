"""Removes variables that inference does not read from a checkpoint, a .keras file or a SavedModel; reports the bytes.

Optimizer slots, counters, metrics and loss scales are removed. Of the weights and their moving averages, those that
inference uses are kept, and so are all unknown variables. The output has the format of the input. Its variables, and
the outputs of a SavedModel's signatures, are bit-identical. The report is printed, and written to
OUTPUT.strip_report.json.

Example:

  yt8m-strip --input=runs/resnet_like --output=stripped/resnet_like
  yt8m-strip --input=model.ckpt-1000 --output=stripped.ckpt-1000 --weights=trained
  yt8m-strip --input=model.keras --output=stripped.keras
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin.launch import launch

_INPUT = flags.DEFINE_string(
    "input",
    None,
    "A run directory, a checkpoint's directory or prefix (without .index), a .keras file or a SavedModel's directory.",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "Checkpoint to write; must not exist yet.", required=True)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Checkpoint to take from a run directory.")
_WEIGHTS = flags.DEFINE_enum(
    "weights",
    None,
    ["trained", "average"],
    "Weights to take from a checkpoint that also has their moving averages: trained, or average. The default is"
    " average for a checkpoint of yt8m-train; for other checkpoints the flag is required.",
)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.export import strip

    source, output = (os.path.normpath(files.local_path(flag.value, f"--{flag.name}")) for flag in (_INPUT, _OUTPUT))
    report = strip.strip(
        source,
        output,
        which=_CHECKPOINT.value,
        average=None if _WEIGHTS.value is None else _WEIGHTS.value == "average",
    )
    print(report.table())
    print(f"written: {output}, {output}{strip.REPORT_SUFFIX}")


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
