"""Locks on outputs of several processes: on single files of a directory, or on a whole directory.

They use `flock`, which Linux passes on to NFS servers, and which the system releases when a process ends in any way. On
a file system without locks every process gets every lock, and writes the same bytes under the same names.
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

# The lock file of a directory that only one process may use.
LOCK = ".lock"
CLAIMS = ".locks"


class Claims:
    """Locks on files of a directory, held by this process. Each file is written by the process that holds its lock.

    Args:
      directory: the directory of the files; the locks are in its folder `.locks`.
    """

    def __init__(self, directory: Path):
        self._folder = directory / CLAIMS
        self._held: dict[str, FileLock] = {}

    def take(self, name: str, wait: bool = False) -> bool:
        """Claims a file. If another process holds it, waits for that process or returns False."""
        lock = _locked(self._folder / name, wait)  # creates the folder, which another process may have removed
        if lock is None:
            return False
        self._held[name] = lock
        return True

    def release(self, name: str) -> None:
        """Releases a file."""
        self._held.pop(name).release()

    def remove(self) -> None:
        """Removes all locks, once every file is complete."""
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
    """Locks a directory for this process while the block runs, by its file `.lock`, which names the holder.

    Args:
      directory: is created with its parents if it does not exist; directories that stay empty are removed at the end.
      beside: use a lock beside the directory, `.NAME.lock`, for a directory that is replaced as a whole.
      option: the flag that names the directory, for the message.
      value: value of the flag, if it is not the directory.
      doing: the activity of the holder, for the message.

    Raises:
      InputError: another process holds the lock, or the directory cannot be written.
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
    """Returns the holder of a directory's lock; "" if there is none, or if it was just acquired or released."""
    return _read(directory / LOCK)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _free(path: Path, lock: FileLock, made: list[Path]) -> None:
    # Removed while held: a process that has opened the file already will find it gone, and create another.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()
    files.remove_empty(made)


def _locked(path: Path, wait: bool) -> FileLock | None:
    """Acquires and returns a lock; None if another process holds it."""
    # Another thread may release the lock. On file systems without locks, filelock's fallback is a file whose existence
    # is the lock, which would outlive its process.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        return None
    except OSError as error:
        if error.filename is not None:  # the file cannot be opened; otherwise the file system has no locks
            raise
    return lock
