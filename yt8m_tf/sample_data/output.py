"""The output directory of sample data: start, replacement, text files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yt8m_tf import files, locks
from yt8m_tf.errors import InputError
from yt8m_tf.sample_data.generator import SampleModel

SUMMARY = "sample_data.json"
VOCABULARY = "vocabulary.csv"
TEST_LABELS = "test_labels.csv"
TRUE_LABELS = "true_labels.csv"
TRUE_SEGMENTS = "true_segments.csv"
SEGMENT_CLASSES = "segment_label_ids.csv"
_UNFINISHED = SUMMARY + ".tmp"  # lists the shards of a run that has not ended
_TOPICS = (
    *("Kites", "Lighthouses", "Beekeeping", "Origami", "Tram rides", "Bread baking", "Rock pools", "Fountain pens"),
    *("Snowshoeing", "Puppetry", "Street chess", "Model ships", "Herb gardens", "Bell ringing", "Cave diving"),
    *("Hot-air balloons", "Pottery", "Fencing", "Star gazing", "Steam engines", "Card tricks", "Sledge dogs"),
)


def start_output(output_dir: str, shards: Sequence[str], overwrite: bool) -> None:
    """Ensures that a directory is empty, and writes a list of the shards that it will contain.

    Args:
      output_dir: the directory, which is created if it does not exist.
      shards: paths of the shards relative to it.
      overwrite: remove the files of an earlier run, and no others, from a directory that is not empty.

    Raises:
      InputError: it is not empty, and `overwrite` is off or it was not written by an earlier run; or it cannot be
        written.
    """
    try:
        os.makedirs(output_dir, exist_ok=True)
        if set(os.listdir(output_dir)) - {locks.LOCK}:
            if not overwrite:
                raise InputError(f"--output_dir={output_dir} is not empty; name another directory, or add --overwrite")
            _remove_earlier(output_dir)
    except OSError as error:
        raise InputError(f"--output_dir={output_dir} cannot be used: {error.strerror}; name another one") from error
    write_text(os.path.join(output_dir, _UNFINISHED), json.dumps({"shard_bytes": dict.fromkeys(shards)}, indent=1))


def finish_output(output_dir: str, summary: dict[str, Any], shard_bytes: dict[str, int]) -> dict[str, Any]:
    """Writes sample_data.json, which marks the directory as complete; returns its contents."""
    summary = {**summary, "shard_bytes": shard_bytes}
    write_text(os.path.join(output_dir, SUMMARY), json.dumps(summary, indent=1) + "\n")
    os.remove(os.path.join(output_dir, _UNFINISHED))
    return summary


def write_text(path: str, text: str) -> None:
    """Writes a text file, which gets its final name once it is complete.

    Raises:
      InputError: it cannot be written.
    """
    try:
        with files.whole_file(Path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        problem = f"{path} cannot be written: {error.strerror}"
        raise InputError(f"--output_dir: {problem}; make room, or name another directory") from error


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Returns rows as CSV, with single line feeds."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def vocabulary_text(model: SampleModel, train_counts: np.ndarray) -> str:
    """Returns a vocabulary in the official format, with invented names.

    Args:
      model: gives the verticals of a class: the topics in which it is most frequent, at most 3. In each of them it is
        at least half as frequent as in the first.
      train_counts: [C], the number of training videos with each class.
    """
    header = "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription"
    rows: list[Sequence[Any]] = [header.split(",")]
    used: dict[str, int] = {}
    for index, probability in enumerate(model.label_probability.T):  # [T]
        best = np.argsort(-probability, kind="stable")[:3]
        topics = [topic_name(t) for t in best if probability[t] >= probability[best[0]] / 2]
        number = used[topics[0]] = used.get(topics[0], 0) + 1
        name = f"{topics[0]} {number}"
        url = f"https://example.org/wiki/{name.replace(' ', '_')}"
        about = f"An invented class of the sample data, number {number} of those most frequent in: {topics[0]}."
        verticals = topics + [""] * (3 - len(topics))
        rows.append([index, int(train_counts[index]), f"/m/sample{index:04d}", name, url, *verticals, about])
    return csv_text(rows)


def topic_name(topic: int) -> str:
    """Returns an invented name for a topic."""
    return _TOPICS[topic] if topic < len(_TOPICS) else f"Topic {topic + 1}"


def _remove_earlier(output_dir: str) -> None:
    """Removes the files of an earlier run, according to its own list."""
    for name in (_UNFINISHED, SUMMARY):
        path = os.path.join(output_dir, name)
        if os.path.exists(path):
            break
    else:
        problem = f"--overwrite replaces earlier sample data only, and there is no {SUMMARY} in it"
        raise InputError(f"--output_dir={output_dir}: {problem}; name another directory")
    try:
        with open(path, encoding="utf-8") as file:
            shards = list(json.load(file)["shard_bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: lists no shards ({error!r}); remove {output_dir} yourself") from error
    # The list of shards is removed last, so that a run that is killed here can be repeated.
    texts = (VOCABULARY, TEST_LABELS, TRUE_LABELS, TRUE_SEGMENTS, SEGMENT_CLASSES)
    for name in (*shards, *(shard + ".tmp" for shard in shards), *texts, SUMMARY, _UNFINISHED):
        full = os.path.join(output_dir, name)
        if os.path.exists(full) and os.path.realpath(full).startswith(os.path.realpath(output_dir) + os.sep):
            os.remove(full)
