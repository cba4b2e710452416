"""The names of the classes, from the dataset's vocabulary.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from yt8m_tf.errors import InputError

_OTHER_VERSION = "give the vocabulary of the version of the dataset that the model was trained on"


def load_vocabulary(path: str | Path, num_classes: int) -> list[str]:
    """Names of the C classes from the dataset's vocabulary.csv (https://research.google.com/youtube8m/download.html).

    Returns:
      The name of each class, by id.

    Raises:
      InputError: not such a file, or not one for `num_classes` classes.
    """
    names: dict[int, str] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"Index", "Name"} - set(rows.fieldnames or ())
            if missing:
                raise InputError(f"{path}: has no column '{min(missing)}'; give the dataset's vocabulary.csv")
            for row in rows:
                index = int(row["Index"])
                if not 0 <= index < num_classes or index in names:
                    problem = "occurs twice" if index in names else f"is not one of the {num_classes} classes"
                    raise InputError(f"{path}: line {rows.line_num}: Index {index} {problem}; {_OTHER_VERSION}")
                names[index] = row["Name"] or ""
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the dataset's vocabulary.csv") from error
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a vocabulary ({error}); give the dataset's vocabulary.csv") from error
    if len(names) < num_classes:
        absent = min(set(range(num_classes)) - names.keys())
        raise InputError(f"{path}: names {len(names)} of {num_classes} classes, not class {absent}; {_OTHER_VERSION}")
    return [names[index] for index in range(num_classes)]
