"""The memory of this process, as Linux reports it."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

from pathlib import Path

_STATUS = Path("/proc/self/status")


def available() -> bool:
    """Returns whether this system reports the memory of a process."""
    return _STATUS.exists()


def resident_bytes() -> int:
    """Returns VmRSS, the physical memory of the process; files in the page cache do not count."""
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no line VmRSS")
