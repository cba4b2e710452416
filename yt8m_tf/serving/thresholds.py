"""Thresholds that a class's score must reach for the class to be a label: one for all classes, or one for each."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import files
from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.thresholds import BestThresholds

_REMEDY = "give a number from 0 to 1, or a file of yt8m-evaluate --thresholds"


@dataclasses.dataclass(frozen=True, eq=False)
class Thresholds:
    """Thresholds of scores: float32, [] for all classes, or [C] for each."""

    scores: np.ndarray

    @property
    def num_classes(self) -> int | None:
        """Returns C; None for a threshold for all classes."""
        return len(self.scores) if self.scores.ndim else None

    def reached(self, classes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Returns whether scores [B, k] float32 reach the thresholds of their classes [B, k]; [B, k] bool."""
        return scores >= (self.scores[classes] if self.scores.ndim else self.scores)

    def describe(self) -> float | str:
        """Returns the threshold for all classes, or a hash of those of each."""
        return hashlib.sha256(self.scores.tobytes()).hexdigest() if self.scores.ndim else float(self.scores)


def read_thresholds(value: str | float | os.PathLike[str], num_classes: int | None = None) -> Thresholds:
    """Reads a threshold for all classes, or the thresholds in a file of `write_thresholds`.

    Args:
      value: a number from 0 to 1, possibly as text; or the path of the file.
      num_classes: C; None: as many as the file has.

    Raises:
      InputError: the value is neither; or the file has other numbers, or not one for each class.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return Thresholds(_read(Path(value), num_classes))  # type: ignore[arg-type]
    if not 0 <= number <= 1:
        raise InputError(f"--threshold={value}: is not a score; {_REMEDY}")
    return Thresholds(np.array(number, np.float32))


def _read(path: Path, num_classes: int | None) -> np.ndarray:
    found: dict[int, float] = {}
    try:
        with path.expanduser().open(encoding="utf-8-sig", newline="") as file:
            rows = CsvRows(file)
            if missing := {"class", "threshold"} - set(rows.fieldnames or ()):
                raise InputError(f"--threshold={path}: has no column '{min(missing)}'; {_REMEDY}")
            for row in rows:
                index, score = int(row["class"]), float(row["threshold"])
                if index in found or not 0 <= score <= 1:
                    problem = "occurs twice" if index in found else f"has the threshold {score}"
                    raise InputError(f"--threshold={path}: line {rows.line_num}: class {index} {problem}; {_REMEDY}")
                found[index] = score
    except OSError as error:
        raise InputError(f"--threshold={path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise InputError(f"--threshold={path}: not a file of thresholds ({error}); {_REMEDY}") from error
    wanted = num_classes or len(found)
    if not found or set(found) != set(range(wanted)):
        raise InputError(
            f"--threshold={path}: has thresholds of {len(found)} classes, not of all {wanted}; give a file"
            " of yt8m-evaluate --thresholds for this model"
        )
    return np.array([found[index] for index in range(wanted)], np.float32)


def write_thresholds(path: Path, found: BestThresholds, names: Sequence[str] | None = None) -> None:
    """Writes a CSV file with a line for each class: the threshold, F1, precision, recall and the counts behind them.

    Args:
      path: the file, which appears once it is complete; its directory is created.
      found: the thresholds.
      names: names of the C classes, for a further column.

    Raises:
      InputError: the file cannot be written.
    """
    titles = ["threshold", "threshold_of", "f1", "precision", "recall", "positives", "predicted", "correct"]
    counts = zip(found.num_positives.tolist(), found.num_predicted.tolist(), found.num_correct.tolist(), strict=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["class", *(["name"] if names is not None else []), *titles])
            for index, (positives, predicted, correct) in enumerate(counts):
                # The shortest text that reads back as the same float32.
                threshold = np.format_float_positional(found.scores[index], unique=True, trim="0")
                shares = (found.f1[index], _share(correct, predicted), _share(correct, positives))
                writer.writerow(
                    [
                        index,
                        *([names[index]] if names is not None else []),
                        threshold,
                        "class" if found.own[index] else "all",
                        *("" if math.isnan(share) else f"{share:.6f}" for share in shares),
                        *(positives, predicted, correct),
                    ]
                )
    except OSError as error:
        raise InputError(f"--thresholds={path}: cannot be written ({error.strerror}); name another file") from error


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
