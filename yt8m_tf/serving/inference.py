"""Scores shards with any SavedModel that takes serialized records, and writes a file; needs no model code.

Two batches are processed at a time, in threads: while one is parsed, another one is scored, and rows are written
meanwhile. Batch boundaries do not depend on where a run starts, so a resumed run writes the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import integrity, records
from yt8m_tf.data.batches import read_batches
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import scoring_batch_size
from yt8m_tf.data.shards import size_of
from yt8m_tf.data.threads import in_order
from yt8m_tf.errors import InputError
from yt8m_tf.locks import exclusive
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.serving.formats import FORMATS, Format, Rows
from yt8m_tf.serving.metadata import read_names
from yt8m_tf.serving.parts import Part, Parts, check_target, parts_directory
from yt8m_tf.serving.scorer import SIGNATURE, Scorer, fingerprint, load_scorer
from yt8m_tf.serving.thresholds import Thresholds, read_thresholds
from yt8m_tf.vocabulary import load_vocabulary

_FRAMING_BYTES = 16  # bytes that a TFRecord file adds to each record


@dataclasses.dataclass(frozen=True)
class Selection:
    """Selection of the scores that are written, and their format.

    Attributes:
      layout: "csv", "jsonl", "parquet" or "names" (`formats.FORMATS`).
      top_k: the largest number of pairs of a video.
      thresholds: the lowest scores that are written; None: all are.
      names: the names of the C classes, if they are known.
    """

    layout: str = "csv"
    top_k: int = TOP_K
    thresholds: Thresholds | None = None
    names: Sequence[str] | None = None

    @property
    def format(self) -> Format:
        """The output format."""
        return FORMATS[self.layout]

    def describe(self) -> dict[str, Any]:
        """Returns everything that rows depend on, for JSON, without options that a plain submission does not use."""
        found: dict[str, Any] = {"top_k": self.top_k}
        if self.layout != "csv":
            found["format"] = self.layout
        if self.thresholds is not None:
            found["threshold"] = self.thresholds.describe()
        if self.names is not None and self.format.has_names:
            found["vocabulary"] = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return found

    def rows(self, ids: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> bytes:
        """Encodes the highest scores of [B] videos in the output format."""
        classes, scores = classes[:, : self.top_k], scores[:, : self.top_k]
        keep = None if self.thresholds is None else self.thresholds.reached(classes, scores)
        return self.format.encode(Rows(ids, classes, scores, keep, self.names))


@dataclasses.dataclass(frozen=True)
class InferenceSummary:
    """Summary of a run: rows written, videos scored by this process and its duration, and faults in all shards."""

    num_rows: int
    num_scored: int
    seconds: float
    faults: Faults


def infer(
    saved_model: str,
    shards: Sequence[str],
    output: str | os.PathLike[str],
    *,
    top_k: int = TOP_K,
    layout: str = "csv",
    threshold: float | str | os.PathLike[str] | None = None,
    vocabulary: str | Path | None = None,
    batch_size: int | None = None,
    faults: Faults | None = None,
    progress: bool = True,
    source: str | None = None,
    signature: str = SIGNATURE,
) -> InferenceSummary:
    """Scores all records of `shards`, in order, and writes `output`.

    Finished shards are kept in `OUTPUT.parts/`. After an interruption or an error, the same call continues after them.
    Records that the earlier process skipped stay skipped, and are reported again.

    Args:
      saved_model: directory of a SavedModel (`load_scorer`).
      shards: paths.
      output: the file, which appears once it is complete.
      top_k: number of pairs in a row.
      layout: "csv", a submission for Kaggle; "jsonl"; "parquet"; or "names", lines for people (`formats`).
      threshold: the lowest score that is written: a number, or a file of yt8m-evaluate with a number for each class.
      vocabulary: a file with the names of the classes; None: the names in the SavedModel.
      batch_size: number of records scored together; None: 1,024 videos, or 128 clips.
      faults: what to do about damaged shards and clips without frames; skipped ones are recorded here.
      progress: whether to show a progress bar.
      source: what messages call the model (`load_scorer`).
      signature: the signature that scores the records (`load_scorer`).

    Raises:
      InputError: see `load_scorer`, `Parts`, `load_vocabulary` and `read_thresholds`; or the format needs names that
        are not known, a shard is damaged, a record does not fit the model, a clip has no frames, or a score is NaN.
    """
    scorer, selection = _load(saved_model, source, top_k, layout, threshold, vocabulary, signature)
    batch_size = batch_size or default_batch_size(scorer, shards)
    faults = faults or Faults()
    run = {"model": fingerprint(saved_model), "input": list(shards), "batch_size": batch_size, **selection.describe()}
    if signature != SIGNATURE:
        run["signature"] = signature

    def score(parts: Parts, bar: Progress) -> None:
        _score_shards(scorer, shards, parts, selection, batch_size, faults, bar)

    return write_in_parts(output, shards, run, selection.format, score, faults, progress)


def write_in_parts(
    output: str | os.PathLike[str],
    shards: Sequence[str],
    run: Mapping[str, Any],
    layout: Format,
    score: Callable[[Parts, Progress], None],
    faults: Faults,
    progress: bool = True,
) -> InferenceSummary:
    """Writes rows for shards, and continues after those that an earlier process finished.

    Args:
      output: the file, which appears once it is complete.
      shards: paths.
      run: everything that the rows depend on, except the contents of shards (`Parts`).
      layout: the format, which joins the parts.
      score: adds the rows of all shards not in `Parts.finished`, finishes each, and moves the bar by their bytes.
      faults: faults in shards that were finished earlier are recorded here, too.
      progress: whether to show a progress bar.

    Raises:
      InputError: see `Parts`; or the output cannot be written, or no video was scored.
    """
    sizes = [size_of(shard) for shard in shards]

    def is_current(index: int, part: Part) -> bool:
        return not part.damage or integrity.is_damaged_as(shards[index], part.damage)

    files.check_no_input([output], shards, f"--output={output}")
    check_target(output)
    with (
        exclusive(parts_directory(output), "--output", "writes its parts", value=Path(output)),
        Parts(output, run, sizes, is_current, layout) as parts,
    ):
        for part in parts.finished:
            _restore(faults, part)
        start, before = time.perf_counter(), sum(part.num_records for part in parts.finished)
        with Progress(
            total=sum(sizes), desc="infer", unit="B", unit_scale=True, mininterval=0.5, disable=not progress
        ) as bar:
            bar.update(sum(sizes[: len(parts.finished)]))
            score(parts, bar)
        seconds = time.perf_counter() - start
        num_records, num_rows = (
            sum(getattr(part, name) for part in parts.finished) for name in ("num_records", "num_rows")
        )
        if not num_rows:
            parts.finished.clear()
            faults.check_any(0, shards, "no video was scored", f"{output} was not written; give other shards")
        parts.assemble()
    return InferenceSummary(num_rows, num_records - before, seconds, faults)


def _load(
    saved_model: str,
    source: str | None,
    top_k: int,
    layout: str,
    threshold: float | str | os.PathLike[str] | None,
    vocabulary: str | Path | None,
    signature: str,
) -> tuple[Scorer, Selection]:
    """Loads the model, and determines which of its scores are written.

    If the model does not state its number of classes, it is that of the vocabulary or of the thresholds.
    """
    scorer = load_scorer(saved_model, top_k, source, signature_name=signature)
    num_classes = scorer.data.num_classes if scorer.data else None
    names = read_names(saved_model, num_classes) if vocabulary is None else load_vocabulary(vocabulary, num_classes)
    if FORMATS[layout].needs_names and names is None:
        raise InputError(f"--format={layout}: the model contains no names of its classes; give --vocabulary=FILE")
    if num_classes is None and names is not None:
        num_classes = len(names)
    thresholds = None if threshold is None else read_thresholds(threshold, num_classes)
    if num_classes is None and thresholds is not None:
        num_classes = thresholds.num_classes
    if num_classes is not None:
        scorer = dataclasses.replace(scorer, num_classes=num_classes)
    return scorer, Selection(layout, top_k, thresholds, names)


def _score_shards(
    scorer: Scorer,
    shards: Sequence[str],
    parts: Parts,
    selection: Selection,
    batch_size: int,
    faults: Faults,
    bar: Progress,
) -> None:
    """Scores the records that `parts` lacks, and finishes all shards."""
    # Batches must be those of an uninterrupted run, so the batch with the first unfinished record may start in an
    # earlier shard.
    counts = [part.num_records for part in parts.finished]
    first, used = 0, sum(counts) // batch_size * batch_size
    while first < len(counts) and used >= counts[first]:
        used -= counts[first]
        first += 1

    def finish(until: int) -> None:
        while len(parts.finished) < until:
            parts.finish_shard(faults.damaged.get(shards[len(parts.finished)]))

    start, scored = time.perf_counter(), 0
    for owners, serialized, results in scored_batches(scorer, shards, batch_size, faults, first, used):
        for index in np.unique(owners):
            if index >= len(counts):  # else it was finished by an earlier process
                finish(int(index))
                rows = tuple(result[owners == index] for result in results)
                keep = usable(scorer, shards[index], rows[0], rows[2], faults)
                ids, classes, scores = (values[keep] for values in rows)
                parts.add(selection.rows(ids, classes, scores), len(keep), len(ids))
        scored += len(owners)
        bar.set_postfix_str(f"{scored / (time.perf_counter() - start):.0f} videos/s", refresh=False)
        bar.update(bytes_in_shards(serialized))
    finish(len(shards))


def scored_batches(
    scorer: Scorer, shards: Sequence[str], batch_size: int, faults: Faults, first: int = 0, used: int = 0
) -> Iterator[tuple[np.ndarray, tf.Tensor, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Scores records in the order of the shards.

    Args:
      scorer, shards, batch_size, faults: see `infer`.
      first, used: where to start (`read_batches`).

    Yields:
      The index of each record's shard [B], the records [B] string, and the results of `scorer`.

    Raises:
      InputError: a shard is damaged, a record does not fit the model, or its outputs are invalid (`Scorer`).
    """
    faults.of_model(f"the model in {scorer.path}")

    def score(batch: tuple[np.ndarray, tf.Tensor]) -> tuple[np.ndarray, tf.Tensor, Any]:
        owners, serialized = batch
        try:
            return owners, serialized, scorer(serialized)
        except records.PARSE_FAILURES as error:
            if (results := _scores_without_empty(scorer, serialized, faults)) is not None:
                return owners, serialized, results
            raise bad_record(scorer, [shards[index] for index in np.unique(owners)], faults, error) from error

    return in_order(score, read_batches([shards], batch_size, faults, first, used))


def _scores_without_empty(
    scorer: Scorer, serialized: tf.Tensor, faults: Faults
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Scores a batch that has clips without frames, which get scores of 0; None if scoring failed for another reason.

    The graph refuses batches with clips without frames, which `usable` leaves out later. They are so rare that it costs
    less to score such a batch again than to check every batch first.
    """
    if scorer.data is None or scorer.data.level == "video" or faults.on_empty == "error":
        return None
    try:
        has_frames = records.clip_lengths(serialized, scorer.data.records) > 0
        ids = records.parse_ids(serialized, scorer.data.id_keys).numpy()
        found = scorer(tf.boolean_mask(serialized, has_frames)) if tf.reduce_any(has_frames) else None
    except records.PARSE_FAILURES:
        return None
    k = scorer.num_scores if found is None else found[1].shape[1]
    classes, scores = np.zeros((len(ids), k), np.int64), np.zeros((len(ids), k), np.float32)
    if found is not None:
        classes[has_frames], scores[has_frames] = found[1:]
    return ids, classes, scores


def bytes_in_shards(serialized: tf.Tensor) -> int:
    """Returns the bytes that records [B] take in their shards."""
    return int(tf.reduce_sum(tf.strings.length(serialized) + _FRAMING_BYTES))


def usable(scorer: Scorer, shard: str, ids: np.ndarray, scores: np.ndarray, faults: Faults) -> np.ndarray:
    """Returns which rows of a shard to keep, [B] bool: all except clips without frames, whose scores are all 0.

    Raises:
      InputError: a record has no id; a score is NaN; or a clip has no frames, unless `faults` skips and counts such
        clips.
    """
    if (ids == b"").any():
        problem = scorer.data and faults.find_bad_record([shard], scorer.data.records)
        raise InputError(problem or f"{shard}: a record without an id; write the shard again, with ids")
    if np.isnan(scores).any():
        video = ids[np.isnan(scores).any(axis=1)][0].decode(errors="replace")
        raise InputError(
            f"{shard}: the model in {scorer.path} gives video '{video}' a score that is NaN; train it with finite"
            " weights"
        )
    if scorer.data is None or scorer.data.level == "video":
        return np.ones(len(ids), bool)
    empty = scores[:, 0] == 0
    if empty.any():
        faults.skip_empty(shard, scorer.data.records, int(empty.sum()))
    return ~empty


def default_batch_size(scorer: Scorer, shards: Sequence[str]) -> int:
    """Returns `pipeline.scoring_batch_size` of the model's level or, if it is not known, of the first record's."""
    level = scorer.data.level if scorer.data else integrity.first_level(shards)
    return scoring_batch_size(level or "video")


def bad_record(scorer: Scorer, shards: Sequence[str], faults: Faults, error: Exception) -> InputError:
    """Returns an error that names the record that the model cannot read."""
    if scorer.data is not None and (problem := faults.find_bad_record(shards, scorer.data.records)):
        return InputError(problem)
    return InputError(
        f"{' or '.join(shards)}: a record that the model in {scorer.path} cannot read; give shards of the level and"
        f" feature sizes that it was trained on ({' '.join(str(error).split())})"
    )


def _restore(faults: Faults, part: Part) -> None:
    if part.damage:
        faults.skip_damage(part.damage)
    faults.num_empty += part.num_records - part.num_rows
