"""Reads what other commands wrote, and checks that it is what a report goes on to use: damage is one line."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yt8m_tf.errors import InputError


def read_json(
    path: Path, default: Any = None, needed: Sequence[str] = (), check: Callable[[Any], None] | None = None
) -> Any:
    """The contents of a file; `default` where there is none.

    Args:
      path, default: as above.
      needed: keys, each in the value of the one before.
      check: raises LookupError, TypeError, AttributeError or ValueError where the contents are not what is read.

    Raises:
      InputError: it cannot be read, or is not what is read.
    """
    if default is not None and not path.is_file():
        return default

    def read(path: Path) -> Any:
        contents = json.loads(path.read_text(encoding="utf-8"))
        functools.reduce(lambda value, key: value[key], needed, contents)
        if check is not None:
            check(contents)
        return contents

    return checked(path, read)


def checked(path: Path, read: Callable[[Path], Any]) -> Any:
    """Returns `read(path)`, and turns the errors of a file that cannot be read into InputError."""
    try:
        return read(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); repeat the command that wrote it") from error


def check_results(contents: Any) -> None:
    """Of a pipeline; a release before `choices` and `reachable_gap_at_20` left them out."""
    for made in contents.get("choices", []):
        _check_texts(made, "of", "choice", "where")
    if contents.get("reachable_gap_at_20") is not None:
        _check_number(contents["reachable_gap_at_20"])


def check_evaluation(contents: Any) -> None:
    """A release before `intervals` left it out."""
    for interval in contents.get("intervals", {}).values():
        for key in ("low", "high", "level"):
            _check_number(interval[key])


def check_export(report: Any) -> None:
    """An export report."""
    _check_bytes(report["size"]["total_bytes"])
    for key in ("gap", "gap_float32"):
        _check_number(report["metrics"][key])
    for found in report.get("videos_per_second", {}).values():
        if type(found["saved_model"]) not in (int, float) or not found["saved_model"] > 0:
            raise ValueError(f"{found['saved_model']!r} is no rate")
    len(report.get("pack", {}).get("members", []))


def check_frontier(contents: Any) -> None:
    """The frontier of a packing."""
    for points in (contents["options"], contents["frontier"]):
        if not points:
            raise ValueError("it has no options or no points")
        for point in points:
            _check_bytes(point["num_bytes"])
            _check_number(point["gap"])
    for point in contents["frontier"]:
        _check_texts(point, "rule")
        for member in point["members"]:
            _check_texts(member, "name", "precision")
            _check_number(member["weight"])


def _check_texts(values: Any, *keys: str) -> None:
    if wrong := [key for key in keys if not isinstance(values[key], str)]:
        raise TypeError(f"'{wrong[0]}' is no text")


def _check_bytes(value: Any) -> None:
    if type(value) is not int or not 0 < value < 2**63:
        raise ValueError(f"{value!r} is not a number of bytes")


def _check_number(value: Any) -> None:
    """Of a share or a weight: up to 1, or NaN where there were no labels."""
    if type(value) not in (int, float) or value < 0 or value > 1:
        raise ValueError(f"{value!r} is not a number from 0 to 1")
