"""Scores windows of clips with SavedModels, and optionally whole clips, in one pass over the shards."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_tf.console.progress import Progress
from yt8m_tf.data import records
from yt8m_tf.data.batches import read_batches
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.threads import in_order
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.serving.inference import InferenceSummary, bad_record, bytes_in_shards, write_in_parts
from yt8m_tf.serving.metadata import read_names
from yt8m_tf.serving.parts import Parts
from yt8m_tf.serving.scorer import SIGNATURE, Scorer, fingerprint
from yt8m_tf.serving.segment_formats import SegmentRows, segment_format
from yt8m_tf.serving.segment_scorer import CLIPS, SAME_MODEL, SegmentScorer, load_segment_scorer
from yt8m_tf.serving.windows import CutClip, Windows
from yt8m_tf.vocabulary import load_vocabulary


def infer_segments(
    saved_model: str,
    shards: Sequence[str],
    output: str | os.PathLike[str],
    windows: Windows,
    *,
    classes: str | Path | None = None,
    video_model: str | None = None,
    mean_with: Sequence[str] = (),
    top_k: int = TOP_K,
    layout: str = "csv",
    vocabulary: str | Path | None = None,
    batch_size: int | None = None,
    faults: Faults | None = None,
    progress: bool = True,
    source: str | None = None,
    signature: str = SIGNATURE,
) -> InferenceSummary:
    """Scores the windows of all clips of frame-level `shards`, and writes `output`.

    The model scores the frames of a window, with as many frames before and after it as in training. With `video_model`,
    this score is multiplied by that of the whole clip; classes without a score for the clip are left out. Finished
    shards are kept as in `inference.infer`, so that an interrupted run continues after them.

    Args:
      saved_model: directory of a SavedModel that reads clips (`load_scorer`). One of yt8m-export gives the scores of
        all classes. Any other one, or another signature, gives only those of a window's 20 highest classes.
      shards: paths.
      output: the file, which appears once it is complete.
      windows: which frames are scored together.
      classes: a file with the classes to write (`segment_submission.read_classes`); None: all.
      video_model: directory of a SavedModel for whole clips, or `SAME_MODEL`; None: only the scores of windows count.
      mean_with: directories of further SavedModels of yt8m-export, with which the scores of windows are averaged.
      top_k: the largest number of classes per window.
      layout: "csv", the submission of the 2019 challenge; or "jsonl" (`segment_formats`).
      vocabulary: a file with the names of the classes for JSON; None: the names in the SavedModel.
      batch_size: number of windows scored together; None: 512.
      faults, progress, source, signature: see `inference.infer`; another model for whole clips is always called by its
        `serving_default`.

    Returns:
      The summary; its rows are videos.

    Raises:
      InputError: see `inference.infer`; or a model does not read clips, shards contain no clips, `classes` is not a
        list of classes, an id is not allowed in a submission, or models cannot be averaged.
    """
    score = load_segment_scorer(
        *(saved_model, shards, windows),
        classes=classes,
        video_model=video_model,
        mean_with=mean_with,
        top_k=top_k,
        batch_size=batch_size,
        source=source,
        signature=signature,
    )
    scorer, listed = score.scorer, None if score.classes is None else score.classes.tolist()
    num_classes = scorer.data.num_classes if scorer.data else None
    format_ = segment_format(layout, num_classes or scorer.num_classes, listed)
    names = None
    if format_.has_names:
        names = read_names(saved_model, num_classes) if vocabulary is None else load_vocabulary(vocabulary, num_classes)
    faults = faults or Faults()
    faults.of_model(f"the model in {scorer.path}")
    run = {
        "model": fingerprint(saved_model),
        "input": list(shards),
        "batch_size": score.of_window[0][0].batch_size,
        "top_k": top_k,
        "segments": {"size": windows.size, "stride": windows.stride},
        "format": layout,
        "classes": listed,
        "video_model": video_model if video_model in (None, SAME_MODEL) else fingerprint(video_model),
        "vocabulary": names,
        "signature": signature,
    }
    if mean_with:
        run["mean_with"] = list(map(fingerprint, mean_with))

    def score_shards(parts: Parts, bar: Progress) -> None:
        for shard in shards[len(parts.finished) :]:
            for segments, num_bytes in _scored(score, shard, faults):
                kept = [_named(own, names) for own in segments if own is not None]
                parts.add(b"".join(map(format_.encode, kept)), len(segments), len(kept))
                bar.update(num_bytes)
            parts.finish_shard(faults.damaged.get(shard))

    return write_in_parts(output, shards, run, format_, score_shards, faults, progress)


def score_clip(score: SegmentScorer, shard: str, serialized: bytes) -> SegmentRows:
    """Scores the windows of one clip, a record of `shard`.

    Raises:
      InputError: see `infer_segments`; or the record has no frames.
    """
    faults = Faults()
    faults.of_model(f"the model in {score.scorer.path}")
    ((clip, segments),) = _scores_of(score, shard, tf.constant([serialized]), faults)
    _check(score.scorer, shard, clip, segments, faults)
    assert segments is not None
    return segments


def _scored(score: SegmentScorer, shard: str, faults: Faults) -> Iterator[tuple[list[SegmentRows | None], int]]:
    """Yields the rows of a few clips at a time, None for clips without frames, and the bytes of their records."""

    def score_some(batch: tuple[np.ndarray, tf.Tensor]) -> tuple[list[tuple[CutClip, SegmentRows | None]], int]:
        return _scores_of(score, shard, batch[1], faults), bytes_in_shards(batch[1])

    # A few clips at a time, from the start of the shard, so that a resumed run scores the same windows together.
    for found, num_bytes in in_order(score_some, read_batches([[shard]], CLIPS, faults)):
        for clip, segments in found:
            _check(score.scorer, shard, clip, segments, faults)
        yield [segments for _, segments in found], num_bytes


def _scores_of(
    score: SegmentScorer, shard: str, serialized: tf.Tensor, faults: Faults
) -> list[tuple[CutClip, SegmentRows | None]]:
    """Scores clips of a shard; if one cannot be read, the error's message names its record."""
    try:
        return score(serialized)
    except (*records.PARSE_FAILURES, DecodeError) as error:
        raise bad_record(score.scorer, [shard], faults, error) from error


def _check(scorer: Scorer, shard: str, clip: CutClip, segments: SegmentRows | None, faults: Faults) -> None:
    """Checks one clip as `inference.usable` does."""
    if not clip.video_id:
        problem = scorer.data and faults.find_bad_record([shard], scorer.data.records)
        raise InputError(problem or f"{shard}: a record without an id; write the shard again, with ids")
    name = clip.video_id.decode(errors="replace")
    if segments is None:
        if scorer.data is not None:
            faults.skip_empty(shard, scorer.data.records, 1)
        elif faults.on_empty == "error":
            hint = faults.reader.flag_hint("--on_empty=skip leaves such clips out")
            raise InputError(f"{shard}: video '{name}' has no frames{hint}")
        else:
            faults.num_empty += 1
    elif np.isnan(segments.rows.scores).any():
        raise InputError(
            f"{shard}: the model in {scorer.path} gives video '{name}' a score that is NaN; train it with finite"
            " weights"
        )


def _named(segments: SegmentRows, names: Sequence[str] | None) -> SegmentRows:
    return dataclasses.replace(segments, rows=dataclasses.replace(segments.rows, names=names))
