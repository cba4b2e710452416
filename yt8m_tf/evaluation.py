"""Evaluates a model over a dataset, and writes the metrics for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from yt8m_tf.errors import InputError
from yt8m_tf.metrics import NUM_BINS, MetricAccumulator, Metrics

METRICS_FILE = "metrics.json"
CLASSES_FILE = "classes.csv"

Step = Callable[[dict[str, Any]], Mapping[str, Any]]

_TITLES = {
    "gap_at_20": "GAP@20",
    "hit_at_1": "Hit@1",
    "perr": "PERR",
    "map": "mAP",
    "bce": "BCE",
    "calibration_error": "Calibration error",
}


def evaluate(
    step: Step,
    batches: Iterable[Mapping[str, Any]],
    num_classes: int,
    *,
    total: int | None = None,
    description: str = "evaluate",
    progress: bool = True,
    leave: bool = True,
    gather: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
) -> Metrics:
    """All metrics in one pass.

    Args:
      step: from a batch without its ids to its statistics (`metrics.batch_statistics`); compiled and distributed by
        the caller.
      batches: {"id": [B] strings, optional; the features; "labels": [B, L] int32; "valid": [B] bool}.
      num_classes: C.
      total: the number of videos, if known, for the progress bar.
      description: what the progress bar is called.
      progress: whether to show it, on standard error.
      leave: whether it stays on the screen.
      gather: where several workers evaluate a part each: from `MetricAccumulator.arrays` to all workers' arrays, one
        after the other along the first axis.

    Raises:
      InputError: a NaN score, no videos, no labels.
    """
    accumulator = MetricAccumulator(num_classes)
    with tqdm(total=total, desc=description, unit=" videos", disable=not progress, leave=leave) as bar:
        for statistics, ids in _one_ahead(step, batches):
            before = accumulator.num_videos
            accumulator.update(statistics, ids)
            bar.update(accumulator.num_videos - before)
    if gather is not None:
        accumulator = MetricAccumulator.from_arrays(gather(accumulator.arrays()))
    return accumulator.result()


def format_table(metrics: Metrics) -> str:
    """The metrics as aligned lines of plain text."""
    rows = [(_TITLES[name], f"{value:.5f}") for name, value in metrics.scalars().items()]
    rows += [
        ("Videos", f"{metrics.num_videos:,}"),
        ("Labels", f"{metrics.num_labels:,}"),
        ("Classes with labels", f"{np.count_nonzero(metrics.num_positives):,} of {len(metrics.num_positives):,}"),
    ]
    left, right = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{title:<{left}}  {value:>{right}}" for title, value in rows)


def write_evaluation(
    metrics: Metrics,
    directory: str | Path,
    *,
    vocabulary: Sequence[str] | None = None,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Writes `metrics.json` and `classes.csv`; each appears whole or not at all.

    Args:
      metrics: what to write.
      directory: made if it does not exist.
      vocabulary: the names of the C classes (`load_vocabulary`).
      context: what was evaluated (the run, the checkpoint, the patterns), ready for JSON.

    Raises:
      InputError: the directory cannot be written to.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        _write(Path(directory, METRICS_FILE), _json(metrics, context or {}))
        _write(Path(directory, CLASSES_FILE), _csv(metrics, vocabulary))
    except OSError as error:
        raise InputError(
            f"{directory}: cannot write the evaluation ({error.strerror}); name another directory"
        ) from error


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


_OTHER_VERSION = "give the vocabulary of the version of the dataset that the model was trained on"


def _one_ahead(step: Step, batches: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Statistics and ids of each batch; a step is issued before the one before it is waited for.

    An accelerator computes while the host reads what it gave for the batch before.
    """
    previous = None
    for batch in batches:
        ids = np.asarray(batch["id"]) if "id" in batch else None
        current = step({name: value for name, value in batch.items() if name != "id"}), ids
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def _json(metrics: Metrics, context: Mapping[str, Any]) -> str:
    pairs, scores, positives = metrics.calibration
    bins = [
        {
            "from": b / NUM_BINS,
            "to": (b + 1) / NUM_BINS,
            "pairs": int(pairs[b]),
            "mean_score": scores[b] / pairs[b] if pairs[b] else None,
            "share_positive": positives[b] / pairs[b] if pairs[b] else None,
        }
        for b in range(NUM_BINS)
    ]
    content = {
        "metrics": metrics.scalars(),
        "num_videos": metrics.num_videos,
        "num_labels": metrics.num_labels,
        "num_classes": len(metrics.num_positives),
        "num_classes_with_labels": int(np.count_nonzero(metrics.num_positives)),
        "calibration": bins,
        "context": dict(context),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(metrics: Metrics, vocabulary: Sequence[str] | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *(["name"] if vocabulary is not None else []), "num_positives", "average_precision"])
    for index, (count, precision) in enumerate(zip(metrics.num_positives, metrics.average_precision, strict=True)):
        name = [vocabulary[index]] if vocabulary is not None else []
        writer.writerow([index, *name, int(count), repr(float(precision)) if count else ""])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
