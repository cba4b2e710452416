"""The sessions of a run: when each started, on which hardware, with which versions, and how long it took."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from yt8m_tf import run_dir
from yt8m_tf.serving.metadata import versions


class Session:
    """The current session, kept as the last line of `sessions.jsonl`; `update` records its progress.

    Keys of a line: "started" (UTC, ISO 8601), "first_step" and "step" (updates made before the session and so far),
    "seconds" (from the start to the last checkpoint), "system", "versions", and those of `facts`.

    Args:
      workdir: the run directory.
      step: updates made before the session.
      facts: description of the run (`opening.opening_facts`).
    """

    def __init__(self, workdir: Path, step: int, facts: Mapping[str, str]):
        self._workdir, self._start = workdir, time.monotonic()
        self._before = run_dir.read_sessions(workdir)
        self._entry = {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "first_step": step,
            **facts,
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "versions": versions(),
        }
        self.update(step)

    def update(self, step: int) -> None:
        """Writes the number of updates made and the seconds since the start."""
        seconds = round(time.monotonic() - self._start, 1)
        run_dir.write_sessions(self._workdir, [*self._before, self._entry | {"step": step, "seconds": seconds}])
