"""Downloads the files of a partition that a directory lacks."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from yt8m_tf import locks
from yt8m_tf.console.tables import size
from yt8m_tf.download.client import Client, FetchError, Patience
from yt8m_tf.download.directory import check_names, existing, find_missing, part_of
from yt8m_tf.download.known import KnownFiles
from yt8m_tf.download.plan import Names, Partition, PublishedFile, Server, parse_plan, select
from yt8m_tf.download.transfer import Job, transfer
from yt8m_tf.errors import InputError

_SAMPLED = 16  # files whose sizes are asked for first; those of the others are estimated
_PLAN_RETRIES = 3  # few, because without a plan nothing has been fetched yet
_FAILURES = 5  # failures in a row after which to give up: the server is at fault, not the file


@dataclasses.dataclass(frozen=True)
class Request:
    """A request: the files to fetch, and how.

    Attributes:
      partition: the partition of the dataset.
      server: the server to fetch from.
      directory: the directory to write; need not exist.
      share: share of the files, (1, 100) for the first hundredth; None: all.
      ranges: ranges of file numbers; None: all.
      names: the kind of names under which files are stored.
      connections: files that are fetched at once.
      overwrite: whether to replace existing files that differ from the plan's.
      patience: time-outs and retries.
    """

    partition: Partition
    server: Server
    directory: Path
    share: tuple[int, int] | None = None
    ranges: Sequence[range] | None = None
    names: Names = "numbered"
    connections: int = 4
    overwrite: bool = False
    patience: Patience = dataclasses.field(default_factory=Patience)


@dataclasses.dataclass(frozen=True)
class Survey:
    """Survey of a directory: the files that it lacks.

    Attributes:
      num_published: number of files in the partition.
      num_selected: number of files that were asked for.
      missing: the selected files that the directory does not have in full.
      num_bytes: size of the missing files, estimated from a sample if there are many; None if the server does not say.
      num_fetched: bytes of the missing files that are already there, in incomplete files.
      num_free: free bytes on the directory's disk.
    """

    num_published: int
    num_selected: int
    missing: Sequence[PublishedFile]
    num_bytes: int | None
    num_fetched: int
    num_free: int


def survey(request: Request) -> Survey:
    """Finds out what is missing, and changes nothing.

    Raises:
      InputError: the partition or a file does not exist, no file is selected, the server does not answer, the directory
        has conflicting files, or there is not enough room.
    """
    return _survey(request, KnownFiles(request.directory))


def download(request: Request) -> Survey:
    """Fetches what is missing; after an interruption, the same call resumes.

    Returns:
      What was missing.

    Raises:
      InputError: see `survey`; or files could not be fetched (the message names the first), or the directory cannot be
        written.
    """
    with locks.exclusive(request.directory, "--output_dir", "downloads"):
        known = KnownFiles(request.directory)
        try:
            found = _survey(request, known)
            failures = _fetch(request, found, known)
        except OSError as error:
            raise InputError(
                f"--output_dir={request.directory}: {error.strerror}; make room there, or name another directory, and"
                " start the same command again"
            ) from error
        finally:
            known.write()
    if failures:
        others = f" (and {len(failures) - 1:,} others)" if len(failures) > 1 else ""
        raise InputError(f"{failures[0]}{others}; run the same command again to fetch what is missing")
    return found


def _survey(request: Request, known: KnownFiles) -> Survey:
    url = request.server.plan_url(request.partition)
    patience = request.patience
    patience = dataclasses.replace(patience, retries=min(patience.retries, _PLAN_RETRIES))
    try:
        with Client(patience, request.server.remedy) as client:
            published = parse_plan(client.read(url), request.partition, url)
            selected = select(published, request.share, request.ranges)
            if not selected:
                raise InputError(
                    f"--files, --shard: select none of the {len(published):,} files of {request.partition}; take others"
                )
            check_names(request.directory, selected, request.names)
            missing = find_missing(
                request.directory, request.partition, selected, known, request.names, request.overwrite
            )
            num_bytes = _total_size(
                missing, lambda file: client.size(request.server.file_url(request.partition, file.name))
            )
    except FetchError as error:
        raise InputError(str(error)) from error
    parts = (part_of(request.directory, file, request.names) for file in missing)
    fetched = sum(part.stat().st_size for part in parts if part.exists())
    free = shutil.disk_usage(existing(request.directory)).free
    if num_bytes is not None and num_bytes - fetched > free:
        raise InputError(
            f"--output_dir={request.directory}: {size(num_bytes - fetched)} must be fetched, but {size(free)} are"
            " free there; make room, or fetch fewer files with --files or --shard"
        )
    return Survey(len(published), len(selected), missing, num_bytes, fetched, free)


def _fetch(request: Request, found: Survey, known: KnownFiles) -> list[str]:
    """Fetches what is missing, and returns the reason for each file that could not be fetched."""
    jobs: dict[Job, PublishedFile] = {}
    for file in found.missing:
        path = request.directory / file.stored_name(request.names)
        url = request.server.file_url(request.partition, file.name)
        jobs[Job(url, path, part_of(request.directory, file, request.names), file.md5)] = file
    failures: list[str] = []
    in_a_row = 0
    ended = transfer(
        list(jobs),
        request.connections,
        lambda stop: Client(request.patience, request.server.remedy, stop),
        found.num_bytes,
    )
    with contextlib.closing(ended):
        for job, error in ended:
            if error is None:
                known.add(job.path.name, f"{request.partition}/{jobs[job].name}", job.md5)
                in_a_row = 0
                continue
            failures.append(str(error))
            in_a_row += 1
            if in_a_row == _FAILURES:
                break
    return failures


def _total_size(missing: Sequence[PublishedFile], size_of: Callable[[PublishedFile], int | None]) -> int | None:
    """Estimates the size of files in bytes from the sizes of some of them; None if no size is known."""
    sampled = missing[:: -(-len(missing) // _SAMPLED) or 1]
    sizes = [num_bytes for num_bytes in map(size_of, sampled) if num_bytes is not None]
    return int(sum(sizes) / len(sizes) * len(missing)) if sizes else None if missing else 0
