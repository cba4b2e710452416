"""Refuses named pipes, sockets and devices where a file is read: opening or reading one may never end."""

from __future__ import annotations

import os
import stat

from yt8m_tf.errors import InputError

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_if_not_regular(path: str | os.PathLike[str]) -> str:
    """Returns what a path is if it is neither a file nor a directory, such as "a named pipe"; "" otherwise."""
    try:
        mode = os.stat(os.path.expanduser(path)).st_mode
    except (OSError, ValueError):  # missing or unreadable, which the reader reports; or not a path
        return ""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "")


def check_regular(path: str | os.PathLike[str], where: str = "") -> None:
    """Checks that a path, if it exists, is a file or a directory.

    Args:
      path: the path.
      where: the beginning of the message, such as "--input: ".

    Raises:
      InputError: it is a named pipe, a socket or a device.
    """
    if kind := kind_if_not_regular(path):
        raise InputError(f"{where}'{os.fspath(path)}' is {kind}, not a regular file; give a file")
