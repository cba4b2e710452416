"""The report of an export, as text and as `assets.extra/export_report.json`."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.console import tables
from yt8m_tf.export.measure import Comparison
from yt8m_tf.export.saved_model import ExportedSize

# In TensorFlow's folder for files that loaders ignore.
REPORT_FILE = "assets.extra/export_report.json"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Comparison of a SavedModel with the trained model.

    Attributes:
      size: size of the SavedModel.
      comparison: its scores against those of the float32 model.
      lite: the same for the LiteRT model in it; None if there is none.
      load_seconds: duration of `tf.saved_model.load`, including the decoding of the weights.
      videos_per_second: speeds of the float32 model and of the SavedModel, from memory to memory, by batch size. They
        were measured one after the other; `tools/benchmark.py export` alternates between them.
      seconds: duration of the whole export.
      peak_bytes: the largest memory of the process so far.
      stripped: lines about the contents of the checkpoint.
    """

    size: ExportedSize
    comparison: Comparison
    lite: Comparison | None
    load_seconds: float
    videos_per_second: Mapping[int, tuple[float, float]]
    seconds: float
    peak_bytes: int
    stripped: Sequence[str]

    def lines(self) -> list[str]:
        """Formats the report for people."""
        size = self.size
        rows = [["videos/s in batches of", "float32", "SavedModel", "ratio"]]
        for batch, (before, after) in self.videos_per_second.items():
            rows.append([f"{batch:,}", f"{before:,.1f}", f"{after:,.1f}", f"{after / before:.2f}"])
        return [
            *self.stripped,
            f"SavedModel with this report, uncompressed: {size.total_bytes:,} of at most {size.limit_bytes:,} bytes"
            f" ({size.total_bytes / size.limit_bytes:.1%})",
            *_compared("SavedModel", self.comparison),
            *(_compared("LiteRT model", self.lite) if self.lite else ()),
            tables.aligned(rows, num_left=1),
            f"loads in {self.load_seconds:.1f} s; exported in {self.seconds:.0f} s, with {self.peak_bytes / 1e9:.2f} GB"
            " of memory at most",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values for JSON."""
        values = dataclasses.asdict(self)
        rates = {
            str(batch): {"float32": before, "saved_model": after}
            for batch, (before, after) in self.videos_per_second.items()
        }
        return {"metrics": values.pop("comparison"), **values, "videos_per_second": rates}


def _compared(what: str, found: Comparison) -> list[str]:
    return [
        f"{what}: GAP@20 {found.gap:.6f}, float32 model {found.gap_float32:.6f}"
        f" ({found.num_videos:,} validation videos);",
        f"  scores differ by {found.max_difference:.2e} at most, {found.mean_difference:.2e} on average",
    ]


def peak_bytes() -> int:
    """Returns the largest memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's `ru_maxrss` includes the memory of the parent process
        (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes
