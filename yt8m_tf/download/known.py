"""`download.json`: the checksums of a directory's files, so that they need not be hashed again."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path

from yt8m_tf import files
from yt8m_tf.config import strict_yaml

RECORD = "download.json"
# The record of a whole partition takes a while to write, so it is not written after every file. Files that are missing
# from it are hashed again.
_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """A file that was hashed.

    Attributes:
      source: what it is, such as "2/video/train/trainaa.tfrecord".
      md5: MD5 of its contents.
      size: in bytes.
      mtime_ns: time of its last change; if this and the size are the same, so is the file.
    """

    source: str
    md5: str
    size: int
    mtime_ns: int


@dataclasses.dataclass(frozen=True)
class _Record:
    files: Mapping[str, KnownFile] = dataclasses.field(default_factory=dict)


class KnownFiles:
    """Known checksums of a directory's files; `write` stores them there.

    Raises:
      InputError: there is a record, but it cannot be read.
    """

    def __init__(self, directory: Path):
        self._directory, self._path = directory, directory / RECORD
        self._files: dict[str, KnownFile] = {}
        self._written, self._changed = time.monotonic(), False
        if self._path.exists():
            record = strict_yaml.read_json(self._path, _Record, "remove it; the files are then hashed once more")
            self._files.update(record.files)

    def source(self, name: str) -> str | None:
        """Returns the recorded source of a file; None if it is not known."""
        return self._files[name].source if name in self._files else None

    def md5(self, name: str) -> str | None:
        """Returns the MD5 of a file; None if it is not known, or the file has changed since."""
        known = self._files.get(name)
        stat = os.stat(self._directory / name)
        return known.md5 if known and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns) else None

    def add(self, name: str, source: str, md5: str) -> None:
        """Adds a file that was hashed, and writes the record if it was not written in the last few seconds."""
        stat = os.stat(self._directory / name)
        self._files[name], self._changed = KnownFile(source, md5, stat.st_size, stat.st_mtime_ns), True
        if time.monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        """Writes the record atomically, if there is anything new."""
        if self._changed:
            contents = _Record(dict(sorted(self._files.items())))
            files.write_json(self._path, strict_yaml.to_dict(contents))
        self._written, self._changed = time.monotonic(), False
