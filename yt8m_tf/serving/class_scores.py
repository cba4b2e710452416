"""Scores of chosen classes, from SavedModels that give all classes and from those that give only the highest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf.data.records import parse_records
from yt8m_tf.serving.scorer import SIGNATURE, Scorer

FEATURES = "features"  # the signature of yt8m-export that gives the scores of all classes


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """Scores of N records.

    Attributes:
      classes: [K], the same classes for all records, or [N, K], those of each record.
      scores: [N, K] float32.
    """

    classes: np.ndarray
    scores: np.ndarray

    def of_each(self) -> np.ndarray:
        """Returns the classes of each record, [N, K]."""
        return np.broadcast_to(self.classes, self.scores.shape)


@dataclasses.dataclass(frozen=True)
class ClassScorer:
    """Scores records for all requested classes, or for the highest ones if the model gives no others.

    Attributes:
      scorer: the model.
      classes: [L] ascending, the requested classes; None: all.
      batch_size: number of records scored together.
      all_classes: maps [B] strings to scores [B, C]; None if the model gives only its highest classes.
    """

    scorer: Scorer
    classes: np.ndarray | None
    batch_size: int
    all_classes: Callable[[tf.Tensor], tf.Tensor] | None

    def __call__(self, serialized: Sequence[bytes]) -> ClassScores:
        """Scores N records, at least one.

        Raises:
          records.PARSE_FAILURES: a record does not fit the model.
          InputError: the outputs of the model are invalid (`Scorer`).
        """
        starts = range(0, len(serialized), self.batch_size)
        batches = (tf.constant(serialized[start : start + self.batch_size]) for start in starts)
        if self.all_classes is None:
            found = [self.scorer(batch)[1:] for batch in batches]
            classes, scores = (np.concatenate(values) for values in zip(*found, strict=True))
            return ClassScores(classes, scores)
        wanted = np.arange(self.scorer.num_classes) if self.classes is None else self.classes
        return ClassScores(wanted, np.concatenate([self.all_classes(batch).numpy()[:, wanted] for batch in batches]))


def class_scorer(
    scorer: Scorer,
    classes: np.ndarray | None,
    batch_size: int,
    most_frames: int | None = None,
    signature: str = SIGNATURE,
) -> ClassScorer:
    """Creates a scorer, of all classes if yt8m-export wrote the SavedModel and `signature` is `serving_default`.

    Args:
      scorer, classes, batch_size: see `ClassScorer`.
      most_frames: the most frames of a clip, so that windows of 5 frames are not padded to 300; None: not known.
      signature: the signature that `scorer` calls.
    """
    data = scorer.data
    if data is None or signature != SIGNATURE or FEATURES not in scorer.loaded.signatures:
        return ClassScorer(scorer, classes, batch_size, None)
    function = scorer.loaded.signatures[FEATURES]
    names = list(function.structured_input_signature[1])
    records = data.records
    if most_frames is not None and data.level == "frame":
        records = dataclasses.replace(records, max_frames=min(most_frames, data.max_frames), frame_lengths=())

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def all_classes(serialized: tf.Tensor) -> tf.Tensor:
        parsed = parse_records(serialized, records)
        return function(**{name: parsed[name] for name in names})["predictions"]

    return ClassScorer(scorer, classes, batch_size, all_classes)
