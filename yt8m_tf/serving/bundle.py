"""Packs a SavedModel into one `.tgz` for upload, and unpacks such an archive without trusting it.

The same model gives the same bytes. `assets.extra`, with the export's report and its timings, is not packed.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm.utils import CallbackIOWrapper

from yt8m_tf import files
from yt8m_tf.console.progress import Progress
from yt8m_tf.errors import InputError
from yt8m_tf.serving.limits import SIZE_LIMIT

SUFFIXES = (".tgz", ".tar.gz")
MEMBER_LIMIT = 1000

_LEFT_OUT = "assets.extra"
_COMPRESSION = 6
_CHUNK = 1 << 20
_END_BYTES = 1 << 20  # of zeros allowed after the last member; tar pads to 10 kB by default
# Names of files and folders: printable ASCII without Windows' separators, drive letters' colons and wildcards.
_PLAIN_NAME = re.compile(r'[^\x00-\x1f\x7f-\U0010ffff/\\:*?"<>|]{1,100}')


def check_target(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raises InputError if no bundle can be written to a path; called before there is one to write."""
    folder = Path(path).absolute().parent
    if not os.fspath(path).endswith(SUFFIXES):
        raise InputError(f"--bundle={path}: is not the name of a bundle; use a name that ends in {SUFFIXES[0]}")
    if not folder.is_dir():
        raise InputError(f"--bundle={path}: there is no directory {folder}; make it, or choose another place")
    if Path(path).is_dir() or (Path(path).exists() and not overwrite):
        raise InputError(f"--bundle={path}: exists already; choose another name, or give --overwrite")


def write_bundle(
    saved_model: str | os.PathLike[str], path: str | os.PathLike[str], *, overwrite: bool = False, progress: bool = True
) -> int:
    """Packs a SavedModel into a gzipped tar archive, which appears once it is complete.

    The archive's bytes depend only on the names and contents of the files (and on the version of zlib).

    Args:
      saved_model: its directory; everything except `assets.extra` is packed, at the root of the archive.
      path: the archive; ends in `.tgz` or `.tar.gz`.
      overwrite: whether to replace an existing file.
      progress: whether to show a progress bar.

    Returns:
      The size of the archive in bytes.

    Raises:
      InputError: see `check_target`.
    """
    check_target(path, overwrite)
    root = Path(saved_model)
    found = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
    found = {name: found[name] for name in sorted(found) if not name.startswith(f"{_LEFT_OUT}/")}
    total = sum(file.stat().st_size for file in found.values())
    with files.whole_file(Path(path)) as temporary:
        with (
            open(temporary, "wb") as raw,
            gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
            Progress(total=total, desc="bundle", unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for name, file in found.items():
                member = tarfile.TarInfo(name)  # defaults: user and group 0, no names, modified in 1970
                member.size, member.mode = file.stat().st_size, 0o644
                with open(file, "rb") as content:
                    archive.addfile(member, CallbackIOWrapper(bar.update, content, "read"))
        return temporary.stat().st_size


@contextlib.contextmanager
def unpacked(path: str | os.PathLike[str], size_limit: int = SIZE_LIMIT) -> Iterator[Path]:
    """Unpacks the SavedModel of a bundle into a temporary folder, which is removed at the end of the block.

    Args:
      path: a gzipped tar archive with a SavedModel at its root or in its only folder.
      size_limit: the largest total size of its files, unpacked, in bytes.

    Raises:
      InputError: the archive is damaged or too large, has no SavedModel, or has members other than files and folders.
    """
    if not Path(path).is_file():
        raise InputError(f"--bundle={path}: no such file; give an archive that yt8m-export --bundle wrote")
    with tempfile.TemporaryDirectory(prefix="yt8m_bundle_") as folder:
        try:
            with gzip.GzipFile(path, "rb") as content:
                _unpack(content, Path(folder), size_limit)
        except InputError as error:
            raise InputError(f"--bundle={path}: {error}") from error
        except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError) as error:
            raise InputError(f"--bundle={path}: damaged, or not a .tgz archive ({error}); fetch it again") from error
        except OSError as error:
            raise InputError(
                f"--bundle={path}: cannot be unpacked ({error.strerror or error}); make room in TMPDIR"
            ) from error
        try:
            yield _find_saved_model(Path(folder), path)
        except InputError as error:  # the folder is gone when the message is read
            raise InputError(str(error).replace(folder, os.fspath(path))) from error


class _Header(tarfile.TarInfo):
    """The header of a file or folder; raises an error for other types and for damaged headers.

    By default `tarfile` takes a damaged header for the end of the archive, and reads PAX and GNU headers of any length
    into memory.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) < tarfile.BLOCKSIZE or any(buf):
                raise tarfile.ReadError(f"{error}") from error
            raise  # a block of zeros: the end
        if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise InputError(
                f"member {header.name!r} is neither file nor folder (type {header.type!r}); pack plain files, with"
                " tar --format=ustar"
            )
        if header.size < 0:
            raise tarfile.ReadError("a negative size")
        return header


def _unpack(content: gzip.GzipFile, folder: Path, size_limit: int) -> None:
    """Unpacks a tar archive from front to back; each member is checked before it is written.

    Args:
      content: the archive, decompressed while it is read.
      folder: the target, an empty folder.
      size_limit: see `unpacked`.
    """
    num_bytes = 0
    taken: dict[str, tuple[str, bool]] = {}
    # Bytes of names that are not ASCII become backslash escapes, which `_PLAIN_NAME` refuses.
    with tarfile.TarFile(
        fileobj=content, tarinfo=_Header, encoding="ascii", errors="backslashreplace", errorlevel=1
    ) as archive:
        for number, member in enumerate(archive):
            if number == MEMBER_LIMIT:
                raise InputError(f"has more than {MEMBER_LIMIT} members; a SavedModel has fewer: pack nothing else")
            _check_path(member, taken)
            num_bytes += 0 if member.isdir() else member.size
            if num_bytes > size_limit:
                raise InputError(
                    f"unpacks to {num_bytes:,} bytes or more, above --size_limit={size_limit:,}; raise it if you trust"
                    " the archive"
                )
            archive.extract(member, folder, set_attrs=False, filter="data")
    _check_end(content)


def _check_path(member: tarfile.TarInfo, taken: dict[str, tuple[str, bool]]) -> None:
    """Raises InputError for a path that is not plain, or occurs twice.

    Args:
      member: its header.
      taken: of the members so far, maps the lower-case path to (path, is a folder); those of `member` are added.
    """
    where = f"member {member.name!r}"
    parts = member.name.removeprefix("./").split("/") if member.name != "." else []
    if any(part in (".", "..") or not _PLAIN_NAME.fullmatch(part) for part in parts) or not (parts or member.isdir()):
        raise InputError(f"{where} has no plain path below the archive's own folder; pack it again")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        entry = path, depth < len(parts) or member.isdir()
        # Folders may occur again. Some file systems take paths that differ only in case for the same one.
        known = taken.get(path.lower())
        if known is not None and (known != entry or not entry[1]):
            raise InputError(f"{where} occurs twice, as '{known[0]}'; pack it again")
        taken[path.lower()] = entry


def _check_end(content: gzip.GzipFile) -> None:
    """Raises InputError for data after the archive's end; reading to the end also checks gzip's checksum."""
    for _ in range(_END_BYTES // _CHUNK + 1):
        rest = content.read(_CHUNK)
        if not rest:
            return
        if any(rest):
            break
    raise InputError("has data after its end; pack it again")


def _find_saved_model(folder: Path, path: str | os.PathLike[str]) -> Path:
    inner = list(folder.iterdir())
    for candidate in (folder, *(inner if len(inner) == 1 else ())):
        if files.is_saved_model(candidate):
            return candidate
    raise InputError(f"--bundle={path}: has no saved_model.pb at its root or in its only folder; bundle a SavedModel")
