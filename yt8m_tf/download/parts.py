"""Incomplete files: the bytes that have arrived, and their MD5."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

CHUNK = 1 << 15  # bytes at a time; an incomplete chunk is lost if the connection breaks


class Part:
    """A file that is appended to, and its MD5, which is updated as bytes arrive.

    Args:
      path: the file; if it exists, its bytes are hashed first.
      received: called with the number of bytes added, negative if they are discarded.
    """

    def __init__(self, path: Path, received: Callable[[int], None]):
        self._path, self._file, self._received = path, path.open("a+b"), received
        self._hash, self.size = new_md5(), 0
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._hash.update(chunk)
            self.size += len(chunk)

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is not None and not self.size:
            self._path.unlink(missing_ok=True)

    def md5(self) -> str:
        """Returns the MD5 of all bytes so far."""
        return self._hash.hexdigest()

    def append(self, chunk: bytes) -> None:
        """Appends bytes, which are flushed to the system before the function returns."""
        self._file.write(chunk)
        self._file.flush()
        self._hash.update(chunk)
        self.size += len(chunk)
        self._received(len(chunk))

    def start_over(self) -> None:
        """Discards all bytes."""
        self._file.truncate(0)
        self._received(-self.size)
        self._hash, self.size = new_md5(), 0


def new_md5() -> hashlib._Hash:
    """Returns an MD5 hash for finding damage, also on systems that forbid MD5 for security."""
    return hashlib.md5(usedforsecurity=False)
