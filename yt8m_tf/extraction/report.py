"""The report of an extraction: the outcome of each file, and of each video of the table."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from yt8m_tf import files
from yt8m_tf.extraction.workers import Outcome

_COLUMNS = ("id", "file", "status", "seconds", "frames", "sound", "notes")

Status = Literal["written", "failed", "unlisted", "missing"]


@dataclasses.dataclass(frozen=True)
class Reported:
    """A row of the report.

    Attributes:
      video_id: the video's id.
      file: its path; "" if there is no file.
      status: "written"; "failed", with the reason in its notes; "unlisted", a file that the table does not name;
        "missing", a video of the table without a file.
      outcome: the outcome of extraction.
    """

    video_id: str
    file: str
    status: Status
    outcome: Outcome

    def cells(self) -> list[str]:
        """Returns the cells of the row."""
        seconds = "" if self.outcome.seconds is None else f"{self.outcome.seconds:.2f}"
        sound = {None: "", True: "yes", False: "no"}[self.outcome.has_sound]
        notes = [*([self.outcome.problem] if self.outcome.problem else []), *self.outcome.notes]
        frames = str(self.outcome.num_frames or "")
        return [self.video_id, self.file, self.status, seconds, frames, sound, "; ".join(notes)]


def write_report(path: Path, rows: Sequence[Reported]) -> None:
    """Writes the report as CSV."""
    with files.whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(row.cells() for row in rows)
