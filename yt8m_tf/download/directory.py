"""The directory that files are fetched to: what exists, what is missing, and what must not be replaced."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from yt8m_tf.console.progress import Progress
from yt8m_tf.download.known import KnownFiles
from yt8m_tf.download.parts import new_md5
from yt8m_tf.download.plan import Names, Partition, PublishedFile, colliding
from yt8m_tf.errors import InputError

_CHUNK = 1 << 20  # bytes that are hashed at a time


def part_of(directory: Path, file: PublishedFile, names: Names) -> Path:
    """Returns the path of a file until it is complete; it is different for other contents."""
    return directory / f".{file.stored_name(names)}.{file.md5}.part"


def existing(directory: Path) -> Path:
    """Returns a directory, or its nearest parent that exists."""
    return next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())


def check_names(directory: Path, selected: Sequence[PublishedFile], names: Names) -> None:
    """Checks that the file system keeps the names apart, and that no file exists under its other name.

    Raises:
      InputError: two names differ only in case, or a file exists under its other name.
    """
    twice = colliding([file.stored_name(names) for file in selected])
    if twice and _folds_case(existing(directory)):
        raise InputError(
            f"--names={names}: {twice[0]} and another file differ only in case, which the file system of {directory}"
            " does not keep apart; take --names=numbered"
        )
    there = set(os.listdir(directory)) if directory.is_dir() else set()
    other: Names = "original" if names == "numbered" else "numbered"
    lacking = [file for file in selected if file.stored_name(names) not in there]
    if renamed := [name for name in (file.stored_name(other) for file in lacking) if name in there]:
        raise InputError(
            f"--names={names}: {directory} has {len(renamed):,} of the files under their {other} names, such as"
            f" {renamed[0]}; continue with --names={other}, or name another directory"
        )


def find_missing(
    directory: Path,
    partition: Partition,
    selected: Sequence[PublishedFile],
    known: KnownFiles,
    names: Names,
    overwrite: bool,
) -> list[PublishedFile]:
    """Finds the files that are missing or incomplete; existing files that are not known yet are hashed.

    Args:
      directory: need not exist.
      partition: the partition of the files.
      selected: the files.
      known: the known files of the directory; hashed files are added.
      names: the kind of names under which the files are stored.
      overwrite: whether files that differ count as missing.

    Raises:
      InputError: an existing file is a different one.
    """
    lacking, unknown = [], []
    for file in selected:
        name = file.stored_name(names)
        if not (directory / name).exists():
            lacking.append(file)
        elif known.source(name) not in (None, f"{partition}/{file.name}"):
            raise InputError(
                f"--output_dir={directory}: {name} comes from {known.source(name)}; give {partition} another directory"
            )
        elif known.md5(name) != file.md5:
            unknown.append(file)
    differing = []
    for file in Progress(unknown, desc="existing files", unit="file", leave=False):
        name = file.stored_name(names)
        if _md5(directory / name) == file.md5:
            known.add(name, f"{partition}/{file.name}", file.md5)
        else:
            differing.append(file)
    if differing and not overwrite:
        raise InputError(
            f"--output_dir={directory}: {len(differing):,} files there are damaged, or not those of {partition}, such"
            f" as {differing[0].stored_name(names)}; --overwrite fetches them again"
        )
    wanted = {file.name for file in (*lacking, *differing)}
    return [file for file in selected if file.name in wanted]


def _md5(path: Path) -> str:
    digest = new_md5()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _folds_case(directory: Path) -> bool:
    """Returns whether a directory's file system ignores the case of names."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".Aa") as file:
            path = Path(file.name)
            return path.with_name(path.name.swapcase()).exists()
    except OSError:  # the directory cannot be written, which the first write reports
        return False
