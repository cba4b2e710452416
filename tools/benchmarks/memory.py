"""The memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def available() -> bool:
    """Returns whether this system reports the memory of a process."""
    return _STATUS.exists()


def resident_bytes() -> int:
    """VmRSS: the physical memory that the process holds; files in the page cache are not in it."""
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no line VmRSS")
