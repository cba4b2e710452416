"""Scores windows of clips with one SavedModel or the mean of several, optionally multiplied by whole clips' scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import integrity
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.serving.class_scores import ClassScorer, ClassScores, class_scorer
from yt8m_tf.serving.formats import Rows
from yt8m_tf.serving.metadata import read_context
from yt8m_tf.serving.scorer import SIGNATURE, Scorer, load_scorer
from yt8m_tf.serving.segment_formats import SegmentRows
from yt8m_tf.serving.segment_submission import read_classes
from yt8m_tf.serving.windows import ClipMean, CutClip, Windows, cut_clip

SAME_MODEL = "same"
CLIPS = 32  # clips whose windows are scored together: about 2,000 windows
_BATCH_SIZE = 512


@dataclasses.dataclass(frozen=True)
class SegmentScorer:
    """Scores the windows of clips.

    Attributes:
      of_window: scorers of windows, each with its frames of context; the scores of several are averaged.
      of_video: scorer of whole clips, whose scores multiply those of the windows; None: no multiplication.
      windows: length and stride.
      classes: [L] ascending, the classes to write; None: all.
      top_k: the largest number of classes per window; None: all.
    """

    of_window: Sequence[tuple[ClassScorer, int]]
    of_video: ClassScorer | None
    windows: Windows
    classes: np.ndarray | None
    top_k: int | None

    @property
    def scorer(self) -> Scorer:
        """The first scorer of windows."""
        return self.of_window[0][0].scorer

    def __call__(self, serialized: tf.Tensor) -> list[tuple[CutClip, SegmentRows | None]]:
        """Scores clips [B].

        Returns:
          Each clip with the rows to write for its windows; None for a clip without frames.

        Raises:
          records.PARSE_FAILURES, google.protobuf.message.DecodeError: a record does not fit a model.
          InputError: the outputs of a model are invalid (`Scorer`).
        """
        clips, *others = (self._cut(serialized.numpy(), context) for _, context in self.of_window)
        used = [number for number, clip in enumerate(clips) if clip.num_frames]
        if not used:
            return [(clip, None) for clip in clips]
        clip_of = np.repeat(np.arange(len(used)), [len(clips[number].records) for number in used])
        of_each = [
            own([record for number in used for record in cut[number].records])
            for (own, _), cut in zip(self.of_window, (clips, *others), strict=True)
        ]
        found = dataclasses.replace(of_each[0], scores=np.mean([own.scores for own in of_each], axis=0))
        if self.of_video is not None:
            whole = self.of_video(tf.gather(serialized, used).numpy().tolist())
            found = dataclasses.replace(found, scores=found.scores * _matching(clip_of, found, whole))
        classes, scores, keep = self._selected(found.of_each(), found.scores)
        bounds = np.searchsorted(clip_of, np.arange(1, len(used)))
        parts = zip(*(np.split(values, bounds) for values in (classes, scores, keep)), strict=True)
        rows = {number: self._rows(clips[number], *own) for number, own in zip(used, parts, strict=True)}
        return [(clip, rows.get(number)) for number, clip in enumerate(clips)]

    def _cut(self, serialized: Sequence[bytes], context: int) -> list[CutClip]:
        """Cuts clips into windows, within the frames that all features of all models have."""
        read = [own.scorer.data for own, _ in self.of_window if own.scorer.data is not None]
        keys = None if len(read) < len(self.of_window) else {key for data in read for key in _lists_of(data)}
        means = [own for data in read for own in _means_of(data)]
        windows = dataclasses.replace(self.windows, context=context)
        return [cut_clip(record, windows, keys, self.scorer.id_keys, means) for record in serialized]

    def _selected(self, classes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns classes and scores of the highest pairs, [W, top_k], and a mask of the pairs to write.

        Pairs with a score of 0 are left out: the scorer of whole clips gave no score for the class. NaN sorts first, so
        that the caller finds it.
        """
        keep = scores != 0
        if self.classes is not None:
            keep &= np.isin(classes, self.classes)
        ranks = np.where(np.isnan(scores), -np.inf, np.where(keep, -scores, np.inf))
        if self.top_k is not None and ranks.shape[1] > self.top_k:
            best = np.sort(np.argpartition(ranks, self.top_k - 1, axis=1)[:, : self.top_k], axis=1)
            order = np.take_along_axis(
                best, np.argsort(np.take_along_axis(ranks, best, axis=1), axis=1, kind="stable"), axis=1
            )
        else:
            order = np.argsort(ranks, axis=1, kind="stable")
        chosen = (np.take_along_axis(values, order, axis=1) for values in (classes, scores, keep))
        return tuple(chosen)  # type: ignore[return-value]

    def _rows(self, clip: CutClip, classes: np.ndarray, scores: np.ndarray, keep: np.ndarray) -> SegmentRows:
        starts = np.array(clip.starts, np.int32)
        ids = np.array([clip.video_id] * len(starts), object)
        ends = np.minimum(starts + self.windows.size, clip.num_frames)
        return SegmentRows(starts, ends, Rows(ids, classes, scores, keep))


def load_segment_scorer(
    saved_model: str,
    shards: Sequence[str],
    windows: Windows,
    *,
    classes: str | Path | None = None,
    video_model: str | None = None,
    mean_with: Sequence[str] = (),
    top_k: int | None = TOP_K,
    batch_size: int | None = None,
    source: str | None = None,
    signature: str = SIGNATURE,
) -> SegmentScorer:
    """Loads the scorer of windows; arguments and errors are those of `segment_inference.infer_segments`.

    A SavedModel that does not say which records it reads is assumed to read records like those of `shards`. With
    `top_k` None, all classes are written.
    """
    scorer = load_scorer(saved_model, min(top_k or TOP_K, TOP_K), source, signature_name=signature)
    other = scorer if video_model in (None, SAME_MODEL) else _video_scorer(str(video_model))
    for own in (scorer, other):
        _check_reads_clips(own, shards)
    num_classes = scorer.data.num_classes if scorer.data else None
    chosen = None if classes is None else np.array(read_classes(classes, num_classes))
    size = batch_size or _BATCH_SIZE
    of_window = [_window_scorer(saved_model, scorer, chosen, size, windows, signature)]
    of_window += [_other_window_scorer(path, of_window[0][0], windows, shards) for path in mean_with]
    own_signature = signature if other is scorer else SIGNATURE
    of_video = None if video_model is None else class_scorer(other, chosen, CLIPS, signature=own_signature)
    return SegmentScorer(of_window, of_video, windows, chosen, top_k)


def _window_scorer(
    directory: str, scorer: Scorer, classes: np.ndarray | None, batch_size: int, windows: Windows, signature: str
) -> tuple[ClassScorer, int]:
    """Returns the scorer of windows, and the frames of context that its model was trained with."""
    context = read_context(directory)
    length = dataclasses.replace(windows, context=context).length
    return class_scorer(scorer, classes, batch_size, length, signature), context


def _other_window_scorer(
    directory: str, first: ClassScorer, windows: Windows, shards: Sequence[str]
) -> tuple[ClassScorer, int]:
    """Returns the scorer, and frames of context, of a further model, after checking that it can be averaged."""
    flag = f"--mean_with={directory}"
    scorer = load_scorer(directory, source=flag)
    _check_reads_clips(scorer, shards)
    found = _window_scorer(directory, scorer, first.classes, first.batch_size, windows, SIGNATURE)
    if first.all_classes is None or found[0].all_classes is None:
        raise InputError(
            f"{flag}: a mean needs the scores of all classes, which SavedModels of yt8m-export for clips give; export"
            " both with it"
        )
    if scorer.num_classes != first.scorer.num_classes:
        raise InputError(
            f"{flag}: predicts {scorer.num_classes:,} classes, and the first model {first.scorer.num_classes:,}; give"
            " models of the same classes"
        )
    return found


def _video_scorer(directory: str) -> Scorer:
    return load_scorer(directory, source=f"--video_model={directory}")


def _check_reads_clips(scorer: Scorer, shards: Sequence[str]) -> None:
    level = scorer.data.level if scorer.data else integrity.first_level(shards)
    if level == "video":
        reads = "the model reads" if scorer.data else f"'{shards[0]}' contains"
        hint = (
            "give clips and a model of clips; or use --signature=frames of a video-level model exported with --frames"
        )
        raise InputError(f"--segments: {reads} records of the video level; {hint}")
    if scorer.data and (
        inside := [name for name, own in scorer.data.stored.items() if own.in_context and not own.mean_of]
    ):
        raise InputError(
            f"--segments: the model reads '{inside[0]}' from the context of a record; windows are cut out of lists of"
            " frames"
        )


def _matching(clip_of: np.ndarray, of_windows: ClassScores, of_clips: ClassScores) -> np.ndarray:
    """Returns the scores of clips for the classes of their windows, [W, K]; 0 if a clip has no score for a class."""
    if of_windows.classes.ndim == 1 and np.array_equal(of_windows.classes, of_clips.classes):
        return of_clips.scores[clip_of]
    classes, of_each = of_windows.of_each(), of_clips.of_each()
    span = 1 + max(int(classes.max()), int(of_each.max()))
    known = (np.arange(len(of_each))[:, None] * span + of_each).ravel()
    order = np.argsort(known)
    wanted = clip_of[:, None] * span + classes
    places = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    return np.where(known[places] == wanted, of_clips.scores.ravel()[places], np.float32(0))


def _lists_of(data: DataConfig) -> list[str]:
    """Returns the keys of the lists of frames that a model reads."""
    return [data.key_of(name) for name, feature in data.stored.items() if not feature.mean_of]


def _means_of(data: DataConfig) -> list[ClipMean]:
    """Returns the means over clips that a model reads."""
    stored = data.stored
    return [
        ClipMean(data.key_of(name), data.key_of(own.mean_of), stored[own.mean_of], data.max_frames)
        for name, own in stored.items()
        if own.mean_of
    ]
