"""Files on the way: what came so far, and its MD5."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

CHUNK = 1 << 15  # bytes, at a time; what a break cuts off of them is lost


class Part:
    """A file that is appended to, and its MD5, which is computed as the bytes come.

    Args:
      path: an earlier part, whose bytes are hashed, or no file yet.
      received: told the number of bytes that are added.
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
        """MD5 of all bytes so far."""
        return self._hash.hexdigest()

    def append(self, chunk: bytes) -> None:
        """Adds bytes, which the system has when the function returns."""
        self._file.write(chunk)
        self._file.flush()
        self._hash.update(chunk)
        self.size += len(chunk)
        self._received(len(chunk))

    def start_over(self) -> None:
        """Throws everything away."""
        self._file.truncate(0)
        self._received(-self.size)
        self._hash, self.size = new_md5(), 0


def new_md5() -> hashlib._Hash:
    """A hash for finding damage, also where MD5 is not allowed for security."""
    return hashlib.md5(usedforsecurity=False)
