"""Soft labels for the records of a training stream: score shards, joined by id within each shard.

The scores of a shard are read as a whole (0.6 KB per video with 100 classes), when its first video is in a batch. They
are kept for twice as many shards as are read together.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from yt8m_tf import files, schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data import integrity
from yt8m_tf.data.record_check import video_id
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import ShardScores, join, read_shard


def beside(labels: LabelsConfig, data_dir: str, data: DataConfig) -> Callable[[Sequence[str]], SoftLabels] | None:
    """Returns the `beside` of `pipeline.training_stream` that looks up soft labels; None if `labels` has none."""
    if not labels.soft:
        return None
    directory = Path(files.below(data_dir, labels.soft))
    return lambda shards: SoftLabels(labels, directory, shards, data)


def fingerprint(labels: LabelsConfig, data_dir: str) -> str:
    """Returns the fingerprint of the scores that serve as soft labels; "" if `labels` has none.

    Raises:
      InputError: there are no finished scores.
    """
    if not labels.soft:
        return ""
    return read_manifest(Path(files.below(data_dir, labels.soft)), "labels.soft").fingerprint


def replace_labels(labels: LabelsConfig) -> bool:
    """Returns whether soft labels replace the labels of the records in every target."""
    alone = (labels.weight, labels.unlisted_classes, labels.missing_videos) == (1.0, "zero", "error")
    return labels.soft is not None and alone


class SoftLabels:
    """The soft labels of some shards.

    Args:
      config: the configuration of labels, with `soft`.
      directory: the directory of score shards that `soft` names.
      shards: the shards that will be read.
      data: their records, and how many shards are read together.

    Attributes:
      replaces_labels: whether no target depends on a video's own labels.

    Raises:
      InputError: the scores are not finished, are of other classes, or lack a shard (unless that is allowed).
    """

    def __init__(self, config: LabelsConfig, directory: Path, shards: Sequence[str], data: DataConfig):
        self._directory, self._allow_missing = directory, config.missing_videos == "hard"
        self._shards, self._id_keys = shards, data.id_keys
        self.replaces_labels = replace_labels(config)
        self._manifest = read_manifest(directory, "labels.soft")
        if self._manifest.num_classes != data.num_classes:
            raise InputError(
                f"labels.soft={directory}: scores of {self._manifest.num_classes:,} classes; the data has"
                f" {data.num_classes:,} (data.num_classes)"
            )
        missing = [shard for shard in shards if os.path.basename(shard) not in self._manifest.shards]
        if missing and not self._allow_missing:
            raise InputError(
                f"labels.soft={directory}: no soft labels for {len(missing)} of {len(shards)} training shards,"
                f" for example '{missing[0]}'; score them, or allow hard labels there with labels.missing_videos=hard"
            )
        # A batch may have videos of two groups of shards.
        self._scores = functools.lru_cache(2 * data.shuffle_shards)(self._read)

    def look_up(self, shards: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the soft labels of a batch.

        Args:
          shards: [B] the number of each video's shard.
          ids: [B] each video's id, bytes objects.

        Returns:
          "soft_classes" [B, K] int32, padded with -1, and "soft_scores" [B, K] float16. For a video without soft labels
          all classes are -1.

        Raises:
          InputError: a video has no soft labels, and that is not allowed; a score shard is damaged.
        """
        shape = len(ids), self._manifest.top_k
        classes, scores = np.full(shape, schema.NO_LABEL, np.int32), np.zeros(shape, np.float16)
        for shard in np.unique(shards).tolist():
            found, own = self._scores(shard), np.flatnonzero(shards == shard)
            places = join(ids[own], found)
            if not self._allow_missing and (places < 0).any():
                raise InputError(self._problem(self._shards[shard], found))
            own, places = own[places >= 0], places[places >= 0]
            classes[own], scores[own] = found.classes[places], found.scores[places]
        return {"soft_classes": classes, "soft_scores": scores}

    def _read(self, shard: int) -> ShardScores:
        """Reads the scores of a shard; returns no rows for a shard without scores."""
        name = os.path.basename(self._shards[shard])
        if name not in self._manifest.shards:
            nothing = np.zeros((0, self._manifest.top_k))
            return ShardScores(np.zeros(0, object), nothing.astype(np.int32), nothing.astype(np.float16))
        return read_shard(self._directory, name, self._manifest)

    def _problem(self, shard: str, known: ShardScores) -> str:
        """Says which videos of a shard have no soft labels, in one line."""
        ids = [video_id(record, self._id_keys) or "" for record in integrity.good_records(shard)]
        missing = [video for video in ids if video.encode() not in known.row_of]
        return (
            f"{shard}: {len(missing)} of {len(ids)} videos have no soft labels in {self._directory},"
            f" for example '{missing[0]}'; score the shard again, or allow labels.missing_videos=hard"
        )
