"""Reads and checks the files of other commands for a report; damage raises an error of one line."""

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
    """Returns the contents of a JSON file; `default`, if given, for a file that does not exist.

    Args:
      path, default: as above.
      needed: keys that must exist, each in the value of the one before.
      check: raises LookupError, TypeError, AttributeError or ValueError if the contents are not as expected.

    Raises:
      InputError: the file cannot be read, or its contents are not as expected.
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
    """Returns `read(path)`; the errors of a file that cannot be read become InputError."""
    try:
        return read(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); repeat the command that wrote it") from error


def check_results(contents: Any) -> None:
    """Checks the results of a pipeline; earlier releases did not write `choices` and `reachable_gap_at_20`."""
    for made in contents.get("choices", []):
        _check_texts(made, "of", "choice", "where")
    if contents.get("reachable_gap_at_20") is not None:
        _check_number(contents["reachable_gap_at_20"])


def check_evaluation(contents: Any) -> None:
    """Checks the metrics of an evaluation; earlier releases did not write `intervals`."""
    for interval in contents.get("intervals", {}).values():
        for key in ("low", "high", "level"):
            _check_number(interval[key])


def check_export(report: Any) -> None:
    """Checks an export report."""
    _check_bytes(report["size"]["total_bytes"])
    for key in ("gap", "gap_float32"):
        _check_number(report["metrics"][key])
    for found in report.get("videos_per_second", {}).values():
        if type(found["saved_model"]) not in (int, float) or not found["saved_model"] > 0:
            raise ValueError(f"{found['saved_model']!r} is not a rate")
    len(report.get("pack", {}).get("members", []))


def check_frontier(contents: Any) -> None:
    """Checks the frontier of a packing."""
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
        raise TypeError(f"'{wrong[0]}' is not text")


def _check_bytes(value: Any) -> None:
    if type(value) is not int or not 0 < value < 2**63:
        raise ValueError(f"{value!r} is not a number of bytes")


def _check_number(value: Any) -> None:
    """Checks a share or a weight: from 0 to 1, or NaN if there were no labels."""
    if type(value) not in (int, float) or value < 0 or value > 1:
        raise ValueError(f"{value!r} is not a number from 0 to 1")
