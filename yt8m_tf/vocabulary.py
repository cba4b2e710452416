"""Reads the names and verticals of the classes from the dataset's vocabulary.csv."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.errors import InputError
from yt8m_tf.regular import check_regular

_OTHER_VERSION = "give the vocabulary of the version of the dataset that the model was trained on"
_LONG = ("WikiUrl", "WikiDescription")
_VERTICALS = ("Vertical1", "Vertical2", "Vertical3")


def load_vocabulary(path: str | Path, num_classes: int | None = None) -> list[str]:
    """Reads class names from the dataset's vocabulary.csv (https://research.google.com/youtube8m/download.html).

    Args:
      path: the vocabulary.
      num_classes: C; None: as many as the file has.

    Returns:
      The name of each class, by id.

    Raises:
      InputError: the file is not a vocabulary, or does not have `num_classes` classes.
    """
    return [name for (name,) in _columns(str(path), num_classes, ["Name"])]


def chosen_vocabulary(given: str | None, default: str, num_classes: int, data_dir: str) -> str | None:
    """Returns the file of class names to export with a model; None if there is none.

    Args:
      given: the user's file; "" for no file; None for the default, if it exists and names all classes.
      default: the file in the configuration, relative to `data_dir`.
      num_classes: C.
      data_dir: a local directory.

    Raises:
      InputError: the user's file does not name the classes.
    """
    if given == "":
        return None
    if given is not None:
        load_vocabulary(given, num_classes)
        return given
    path = files.below(data_dir, default)
    if not Path(path).is_file():
        return None
    try:
        load_vocabulary(path, num_classes)
    except InputError:  # the default file may be of other data, and the user did not ask for it
        return None
    return path


def without_descriptions(path: str | Path) -> str:
    """Returns a vocabulary's text without its long columns; of YouTube-8M's 3.6 MB, 0.2 MB remain."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        kept = [title for title in rows.fieldnames or () if title not in _LONG]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def load_details(path: str | Path, num_classes: int) -> dict[str, list[str]]:
    """Reads the vocabulary's short columns: names, verticals and numbers of training videos.

    Returns:
      The values of the C classes, by id, of "name", and of "vertical" and "training_videos" if the file has them.

    Raises:
      InputError: see `load_vocabulary`.
    """
    titles = {"Name": "name", _VERTICALS[0]: "vertical", "TrainVideoCount": "training_videos"}
    optional = list(titles)[1:]
    columns = zip(*_columns(str(path), num_classes, ["Name"], optional=optional), strict=True)
    found = dict(zip(titles.values(), map(list, columns), strict=True))
    return {title: values for title, values in found.items() if title == "name" or any(values)}


def load_verticals(
    path: str | Path, num_classes: int, num_verticals: int | None = None, data_dir: str = ""
) -> np.ndarray:
    """Reads the verticals of the classes from the columns Vertical1 to Vertical3.

    Verticals are in alphabetical order. "(Unknown)", which 138 classes of 2018 have, is treated like the others; a
    class may have no vertical. Classes are identified by their Index, because the rows of the file are not in this
    order. The published code uses row numbers, and thus gives 3,314 of 3,862 classes the verticals of another class.

    Args:
      path: the vocabulary, relative to `data_dir` unless it is absolute or has a scheme, such as "gs://".
      num_classes: C.
      num_verticals: V, which the file must have; None: any number.
      data_dir: see `path`.

    Returns:
      [C, V] float32 of zeros and ones; every vertical has a class.

    Raises:
      InputError: see `load_vocabulary`; or the file has another number of verticals.
    """
    path = files.below(data_dir, os.fspath(path))
    where = "configuration key 'data.vocabulary': "
    rows = [set(row) - {""} for row in _columns(path, num_classes, _VERTICALS, where)]
    names = sorted(set().union(*rows))
    if num_verticals is not None and len(names) != num_verticals:
        raise InputError(
            f"{where}{path}: its classes have {len(names)} verticals, and data.verticals is {num_verticals}; set it to"
            f" {len(names)}, or name another vocabulary"
        )
    return np.array([[name in row for name in names] for row in rows], np.float32)


def _columns(
    path: str, num_classes: int | None, names: Sequence[str], where: str = "", optional: Sequence[str] = ()
) -> list[list[str]]:
    """Reads columns of a vocabulary, a row for each class, by id; messages begin with `where`.

    The `optional` columns come last, and are empty if the file lacks them.
    """
    check_regular(path, where)
    found: dict[int, list[str]] = {}
    try:
        text = tf.io.gfile.GFile(path, "rb").read().decode("utf-8-sig")
        rows = CsvRows(io.StringIO(text, newline=""))
        missing = {"Index", *names} - set(rows.fieldnames or ())
        if missing:
            raise InputError(f"{where}{path}: has no column '{min(missing)}'; give the dataset's vocabulary.csv")
        for row in rows:
            index = int(row["Index"])
            if index in found or not 0 <= index < (sys.maxsize if num_classes is None else num_classes):
                problem = "occurs twice" if index in found else f"is not one of the {num_classes or 'possible'} classes"
                raise InputError(f"{where}{path}: line {rows.line_num}: Index {index} {problem}; {_OTHER_VERSION}")
            found[index] = [row[name] or "" for name in names] + [row.get(name) or "" for name in optional]
    except InputError:
        raise
    except tf.errors.OpError as error:
        reason = files.why_unreadable(error)
        raise InputError(f"{where}{path}: cannot be read ({reason}); give the dataset's vocabulary.csv") from error
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise InputError(f"{where}{path}: not a vocabulary ({error}); give the dataset's vocabulary.csv") from error
    if num_classes is None:
        num_classes = max(found, default=-1) + 1
    if not num_classes:
        raise InputError(f"{where}{path}: names no class; give a vocabulary.csv")
    if len(found) < num_classes:
        absent = next(index for index in range(num_classes) if index not in found)
        raise InputError(
            f"{where}{path}: names {len(found)} of {num_classes} classes, but not class {absent}; {_OTHER_VERSION}"
        )
    return [found[index] for index in range(num_classes)]
