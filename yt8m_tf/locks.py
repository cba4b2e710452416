"""Lets several processes fill one directory: each file is written by the process that holds its lock."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType


class Claims:
    """Locks on the files of a directory, held by this process; the system frees those of a process that dies.

    The locks are `flock`'s, which Linux passes on to NFS servers; where a file system has none, every process gets all
    files and writes the same bytes under the same names.

    Args:
      directory: whose files to claim; the locks lie in its folder `.locks`.
    """

    def __init__(self, directory: Path):
        self._folder = directory / ".locks"
        self._held: dict[str, int] = {}

    def take(self, name: str, wait: bool = False) -> bool:
        """Claims a file; if another process holds it, waits for that one, or returns False."""
        self._folder.mkdir(exist_ok=True)  # a process that found every file whole removes it
        descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:  # no locks here
            pass
        self._held[name] = descriptor
        return True

    def release(self, name: str) -> None:
        """Gives a file back."""
        os.close(self._held.pop(name))

    def remove(self) -> None:
        """Removes all locks: nobody needs them once every file is whole."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._held):
            self.release(name)
