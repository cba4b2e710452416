"""Reads whole score shards, and joins them to the shards that were scored."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.data import integrity, records
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import Manifest

REMEDY = "make the scores of this shard again: remove the file and repeat the command that wrote it"


@dataclasses.dataclass(frozen=True, eq=False)
class ShardScores:
    """The scores of a shard's videos.

    Attributes:
      ids: [N] bytes objects.
      classes: [N, K] int32, padded with -1.
      scores: [N, K] float16, highest first, padded with 0.
    """

    ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    @functools.cached_property
    def row_of(self) -> dict[bytes, int]:
        """Maps the id of each video to its row; cached, because many batches of soft labels look up the same shard."""
        return {video_id: row for row, video_id in enumerate(self.ids.tolist())}

    def at(self, rows: np.ndarray) -> ShardScores:
        """Selects or reorders videos by their rows."""
        return ShardScores(self.ids[rows], self.classes[rows], self.scores[rows])


def read_shard(directory: Path, name: str, manifest: Manifest) -> ShardScores:
    """Reads and checks all scores of a shard.

    Args:
      directory: the directory of score shards.
      name: base name of the shard.
      manifest: the manifest of the directory.

    Raises:
      InputError: the shard has no scores, or its scores are damaged, truncated or not valid.
    """
    path = directory / name
    if name not in manifest.shards:
        raise InputError(f"{directory}: no scores of shard '{name}'; score it with the same models into this directory")
    try:
        serialized = _all_records(str(path))
        parsed = score_records.parse_serialized(serialized)
        classes, scores = score_records.decode(parsed["class_ids"], parsed["scores"], manifest.top_k)
    except integrity.READ_FAILURES as error:
        damage = integrity.scan_shard(str(path)).damage
        raise InputError(f"{damage or path}; {REMEDY}") from error
    except records.PARSE_FAILURES as error:
        raise InputError(f"{path}: not a score shard of up to {manifest.top_k} classes a video; {REMEDY}") from error
    found = ShardScores(parsed["id"].numpy(), classes.numpy(), scores.numpy())
    _check(path, found, manifest.num_classes, manifest.shards[name])
    return found


def join(ids: np.ndarray, scores: ShardScores) -> np.ndarray:
    """Joins videos to their scores by id.

    Args:
      ids: [M] bytes objects, the videos to look up.
      scores: the scores of the same shard, in any order.

    Returns:
      [M] int64 rows of `scores`, -1 for a video without scores.
    """
    if len(ids) == len(scores.ids) and (ids == scores.ids).all():
        return np.arange(len(ids))
    return np.array([scores.row_of.get(video_id, -1) for video_id in ids.tolist()], np.int64)


def check_unique(ids: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Refuses data in which two records have the same id, because data is joined by id.

    Args:
      ids: [N] bytes objects.
      path: the shard, for the message.

    Raises:
      InputError: two records have the same id.
    """
    if len(set(ids.tolist())) == len(ids):
        return
    first: dict[bytes, int] = {}
    for row, video_id in enumerate(ids.tolist()):
        if video_id in first:
            raise InputError(
                f"{path}: records {first[video_id]} and {row} have the same id '{video_id.decode(errors='replace')}';"
                " scores are found by id: give every video a unique id"
            )
        first[video_id] = row


def _all_records(path: str) -> tf.Tensor:
    empty = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string))
    whole = tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(1 << 30)
    return next(iter(whole.concatenate(empty)))


def _check(path: Path, found: ShardScores, num_classes: int, num_records: int) -> None:
    if len(found.ids) != num_records:
        raise InputError(
            f"{path}: contains {len(found.ids):,} videos, not the {num_records:,} of its manifest; {REMEDY}"
        )
    check_unique(found.ids, path)
    padding = found.classes == schema.NO_LABEL
    if found.classes.size and found.classes.max() >= num_classes:
        raise InputError(f"{path}: has a class id {found.classes.max()}, but there are {num_classes} classes; {REMEDY}")
    good = (found.scores >= 0) & (found.scores <= 1)  # False for NaN
    if not (good | padding).all():
        video = found.ids[np.flatnonzero(~(good | padding).all(axis=1))[0]].decode(errors="replace")
        raise InputError(f"{path}: a score of video '{video}' is not a probability; {REMEDY}")
