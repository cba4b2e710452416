"""Soft labels beside the records that they are of: score shards, joined by id within each shard.

The scores of a shard are read at once (0.4 KB a video), and each record takes its own along through shuffling and
batching, so that nothing is held for more shards than those being read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data import integrity, records
from yt8m_tf.data.assertions import require
from yt8m_tf.data.record_check import video_id
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import read_shard

# Records whose ids are looked up together: enough for the calls not to count, few enough clips to copy.
_LOOKED_UP = 64


def beside(
    labels: LabelsConfig, data_dir: str, num_classes: int, id_keys: Sequence[str] = schema.ID_KEYS
) -> Callable[[Sequence[str]], SoftLabels] | None:
    """Returns the soft labels for `pipeline.training_stream` to read beside records; None if `labels` has none."""
    if not labels.soft:
        return None
    directory = Path(files.below(data_dir, labels.soft))
    return lambda shards: SoftLabels(labels, directory, shards, num_classes, id_keys)


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
      config: `soft` names a directory of score shards.
      directory: where that is.
      shards: the shards that will be read.
      num_classes: C of the data.
      id_keys: the keys that its records may hold their id under.

    Attributes:
      replaces_labels: whether no target depends on a video's own labels.

    Raises:
      InputError: no finished scores there, scores of other classes, or none of a shard (unless that is allowed).
    """

    def __init__(
        self,
        config: LabelsConfig,
        directory: Path,
        shards: Sequence[str],
        num_classes: int,
        id_keys: Sequence[str] = schema.ID_KEYS,
    ):
        self._id_keys = tuple(id_keys)
        self._directory, self._allow_missing = directory, config.missing_videos == "hard"
        self.replaces_labels = replace_labels(config)
        self._manifest = read_manifest(directory, "labels.soft")
        if self._manifest.num_classes != num_classes:
            raise InputError(
                f"labels.soft={directory}: scores of {self._manifest.num_classes:,} classes; the data has"
                f" {num_classes:,} (data.num_classes)"
            )
        missing = [shard for shard in shards if os.path.basename(shard) not in self._manifest.shards]
        if missing and not self._allow_missing:
            raise InputError(
                f"labels.soft={directory}: no soft labels for {len(missing)} of {len(shards)} training shards,"
                f" '{missing[0]}' for one; score them, or allow hard labels there with labels.missing_videos=hard"
            )
        self._paths = tf.constant(["" if s in set(missing) else str(directory / os.path.basename(s)) for s in shards])

    def attach(self, index: tf.Tensor, serialized: tf.data.Dataset) -> tf.data.Dataset:
        """Adds to each record of a shard its soft labels, still encoded.

        Args:
          index: of the shard.
          serialized: its records.

        Returns:
          Four strings each: record, class ids, scores, and "found". The others are empty where a video has no soft
          labels.
        """
        table = _lookup_table(self._paths[index])

        @tf.autograph.experimental.do_not_convert
        def with_labels(batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (batch, *self._look_up(batch, *table))

        return serialized.batch(_LOOKED_UP).map(with_labels).unbatch()

    def decode(self, class_ids: tf.Tensor, scores: tf.Tensor, found: tf.Tensor) -> dict[str, tf.Tensor]:
        """A batch's soft labels: "soft_classes" [B, K] int32, padded with -1, and "soft_scores" [B, K] float16.

        A video without soft labels has no classes at all.

        Raises:
          tf.errors.InvalidArgumentError: a video has no soft labels, and that is not allowed.
        """
        if not self._allow_missing:
            every = tf.reduce_all(tf.not_equal(found, ""))
            with tf.control_dependencies([require(every, "a video without soft labels")]):
                class_ids = tf.identity(class_ids)
        classes, probabilities = score_records.decode(class_ids, scores, self._manifest.top_k)
        return {"soft_classes": classes, "soft_scores": probabilities}

    def find_problem(self, shards: Iterable[str]) -> str | None:
        """Returns, in one line, why the soft labels of these shards cannot be used; None if they can."""
        for shard in shards:
            name = os.path.basename(shard)
            if name not in self._manifest.shards:
                continue
            try:
                known = set(read_shard(self._directory, name, self._manifest).ids.tolist())
            except InputError as error:
                return str(error)
            ids = [video_id(record, self._id_keys) or "" for record in integrity.good_records(shard)]
            missing = [video for video in ids if video.encode() not in known]
            if missing and not self._allow_missing:
                return (
                    f"{shard}: {len(missing)} of {len(ids)} videos have no soft labels in {self._directory},"
                    f" '{missing[0]}' for one; score the shard again, or allow labels.missing_videos=hard"
                )
        return None

    def _look_up(
        self, serialized: tf.Tensor, hashes: tf.Tensor, ids: tf.Tensor, classes: tf.Tensor, scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        wanted = records.parse_ids(serialized, self._id_keys)  # [B]
        rows = tf.minimum(tf.searchsorted(hashes, _hash(wanted)), tf.size(ids) - 1)
        found = tf.equal(tf.gather(ids, rows), wanted) & tf.not_equal(wanted, "")
        given = (tf.gather(classes, rows), tf.gather(scores, rows), "found")
        return tuple(tf.where(found, values, "") for values in given)  # type: ignore[return-value]


def _hash(ids: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(ids, np.iinfo(np.int64).max)


def _lookup_table(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The records of a score shard by the hash of their id: hashes, ids, class ids, scores.

    A last row with no id makes sure that there is one where the shard is missing or empty.
    """
    paths = tf.boolean_mask([path], [tf.not_equal(path, "")])
    nothing = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string))
    whole = tf.data.TFRecordDataset(paths).batch(1 << 30).concatenate(nothing).take(1).get_single_element()
    parsed = score_records.parse_serialized(whole)
    order = tf.argsort(_hash(parsed["id"]))
    ids, classes, scores = (
        tf.concat([tf.gather(parsed[key], order), [""]], axis=0) for key in ("id", "class_ids", "scores")
    )
    same = tf.equal(ids[1:], ids[:-1])  # neighbours, because they are in the order of their hashes
    with tf.control_dependencies([require(~tf.reduce_any(same), "an id of two score records")]):
        ids = tf.identity(ids)
    hashes = tf.concat([tf.gather(_hash(parsed["id"]), order), [np.iinfo(np.int64).max]], axis=0)
    return hashes, ids, classes, scores
