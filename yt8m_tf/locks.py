"""Locks on what several processes write: on single files of a directory, or on all of it.

They are `flock`'s, which Linux passes on to NFS servers, and which the system frees when a process dies, however it
dies. Where a file system has none, every process gets everything, and writes the same bytes under the same names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from yt8m_tf import files
from yt8m_tf.errors import InputError

# In a directory that is kept to one process.
LOCK = ".lock"
CLAIMS = ".locks"


class Claims:
    """Locks on the files of a directory, held by this process; each file is written by the process that holds its lock.

    Args:
      directory: whose files to claim; the locks lie in its folder `.locks`.
    """

    def __init__(self, directory: Path):
        self._folder = directory / CLAIMS
        self._held: dict[str, FileLock] = {}

    def take(self, name: str, wait: bool = False) -> bool:
        """Claims a file; if another process holds it, waits for that one, or returns False."""
        lock = _locked(self._folder / name, wait)  # a process that found every file whole removes the folder
        if lock is None:
            return False
        self._held[name] = lock
        return True

    def release(self, name: str) -> None:
        """Gives a file back."""
        self._held.pop(name).release()

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


def is_claimed(directory: Path) -> bool:
    """Returns whether a process holds a claim on any file of a directory at this moment."""
    for path in (directory / CLAIMS).glob("*"):
        lock = _locked(path, wait=False)
        if lock is None:
            return True
        lock.release()
    return False


@contextlib.contextmanager
def exclusive(
    directory: Path, option: str, doing: str = "writes", beside: bool = False, value: Path | None = None
) -> Iterator[None]:
    """Keeps a directory to this process while the block runs; the lock is its file `.lock`, which says who holds it.

    Args:
      directory: is made where there is none, as its parents are; those that stay empty are removed at the end.
      beside: the lock is a file beside it, `.NAME.lock`, for a directory that is replaced as a whole.
      option: the flag that the directory was named by, for the message.
      value: of the flag, where that is not the directory.
      doing: what the holder does there, for the message.

    Raises:
      InputError: another process holds it, or nothing can be written there.
    """
    path = directory.with_name(f".{directory.name}{LOCK}") if beside else directory / LOCK
    made = files.missing_directories(path.parent)
    given = f"{option}={value or directory}"
    with contextlib.ExitStack() as held:
        try:
            lock = _locked(path, wait=False)
            if lock is not None:
                held.callback(_free, path, lock, made)
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{given}: cannot be written ({error.strerror}); name another place") from error
        if lock is None:
            who = f" ({found})" if (found := _read(path)) else ""
            raise InputError(f"{given}: another process {doing} there{who}; wait for it to end")
        yield


def holder(directory: Path) -> str:
    """Returns the holder of a directory's lock; "" if there is none, or if it began or ended just now."""
    return _read(directory / LOCK)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _free(path: Path, lock: FileLock, made: list[Path]) -> None:
    # While it is held: who has opened it already will find it gone, and make another.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()
    files.remove_empty(made)


def _locked(path: Path, wait: bool) -> FileLock | None:
    """The lock, held; None where another process holds it."""
    # What one thread takes another may give back. filelock's own way out where there are no locks is a file whose
    # existence is the lock: it would outlive its process.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        return None
    except OSError as error:
        if error.filename is not None:  # it cannot be opened; else there are no locks here
            raise
    return lock
