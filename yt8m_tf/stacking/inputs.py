"""What a stacking reads: the scores of several models and the labels of the videos, shard by shard."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.data import integrity, records
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards.manifest import Manifest, read_manifest
from yt8m_tf.score_shards.reading import ShardScores, check_unique, join, read_shard


@dataclasses.dataclass(frozen=True, eq=False)
class ShardInputs:
    """One shard: all models' scores of the same N videos in the order of the shard, and their labels.

    Attributes:
      ids: [N] bytes objects.
      scores: of each model.
      labels: [N, L] int32 class ids, padded with -1; all padding where a shard has no labels.
    """

    ids: np.ndarray
    scores: list[ShardScores]
    labels: np.ndarray

    @property
    def num_labels(self) -> int:
        """Labels of all videos."""
        return int((self.labels != schema.NO_LABEL).sum())

    def is_label(self, videos: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """[R] bool: is the class of each row a label of its video."""
        return (self.labels[videos] == classes[:, None]).any(axis=1)


class StackInputs:
    """The scores of several models over some shards.

    Args:
      directories: of score shards, one for each model; the models are named after `names`.
      names: a name for each, all different.
      shards: paths of the shards that were scored.

    Attributes:
      names: of the models.
      shards: paths.
      num_classes: C.
      folds: base name of a shard to its fold; empty where the models had none.
      fingerprints: of the models' scores.

    Raises:
      InputError: two models of one name, no scores, scores of different classes or folds, the same model twice, or a
        shard that a model has not scored.
    """

    def __init__(self, directories: Sequence[Path], names: Sequence[str], shards: Sequence[str]):
        self.names, self.shards, self._directories = list(names), list(shards), list(directories)
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"--scores: two models are named '{twice}' (their directories are); rename one")
        self._manifests = [read_manifest(directory, "--scores") for directory in directories]
        first = self._manifests[0]
        self.num_classes, self.folds = first.num_classes, dict(first.folds)
        self.fingerprints = [manifest.fingerprint for manifest in self._manifests]
        self._cache: Path | None = None
        for directory, manifest in zip(directories, self._manifests, strict=True):
            self._check(directory, manifest, first)
        for number, fingerprint in enumerate(self.fingerprints):
            if fingerprint in self.fingerprints[:number]:
                twin = directories[self.fingerprints.index(fingerprint)]
                raise InputError(
                    f"--scores: {twin} and {directories[number]} are scores of the same model; name it once"
                )

    def cache_labels(self, directory: Path) -> None:
        """Keeps each shard's ids and labels in a file there: frame-level shards are large, and should be read once."""
        directory.mkdir(parents=True, exist_ok=True)
        self._cache = directory

    def labels(self, shard: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids [N] and labels [N, L] of one shard, as in `ShardInputs`.

        Raises:
          InputError: damage, or a label that the scores have no class for.
        """
        path = self._cache and self._cache / f"{os.path.basename(shard)}.npz"
        if path is not None and path.is_file():
            arrays = load_arrays(path)
            return arrays["ids"].astype(object), arrays["labels"]
        ids, labels = _ids_and_labels(shard, self.num_classes)
        if path is not None:
            save_arrays(path, {"ids": ids.astype(np.bytes_), "labels": labels})
        return ids, labels

    def num_videos(self, shard: str) -> int:
        """How many videos the scores of a shard are of."""
        return self._manifests[0].shards[os.path.basename(shard)]

    def read(self, shard: str) -> ShardInputs:
        """Reads one shard.

        Raises:
          InputError: damage, or a model whose scores are of other videos.
        """
        ids, labels = self.labels(shard)
        scores = []
        for directory, manifest in zip(self._directories, self._manifests, strict=True):
            found = read_shard(directory, os.path.basename(shard), manifest)
            rows = join(ids, found)
            if len(found.ids) != len(ids) or (rows < 0).any():
                missing = int((rows < 0).sum())
                example = ids[np.argmin(rows)].decode(errors="replace") if missing else found.ids[-1].decode()
                raise InputError(
                    f"{directory / os.path.basename(shard)}: {len(found.ids):,} videos, {shard} has {len(ids):,},"
                    f" {missing:,} of them without scores ('{example}' for one); score the same data with every model"
                )
            scores.append(found.at(rows))
        return ShardInputs(ids, scores, labels)

    def _check(self, directory: Path, manifest: Manifest, first: Manifest) -> None:
        if manifest.num_classes != first.num_classes:
            raise InputError(
                f"--scores: {directory} has {manifest.num_classes:,} classes, {self._directories[0]}"
                f" {first.num_classes:,}; stack models of one data set"
            )
        if manifest.folds != first.folds:
            raise InputError(
                f"--scores: {directory} and {self._directories[0]} are of other folds; train all models with the same"
                " --num_folds on the same shards"
            )
        missing = [shard for shard in self.shards if os.path.basename(shard) not in manifest.shards]
        if missing:
            raise InputError(
                f"{directory}: no scores of {len(missing)} of {len(self.shards)} shards, '{missing[0]}' for one; score"
                " them with yt8m-score into the same directory"
            )


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays into one `.npz` file, which appears when it is whole."""
    with files.whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote.

    Raises:
      InputError: the file is missing or damaged.
    """
    try:
        # Opened here: NumPy leaves a file open in which it finds no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove the file and repeat the command") from error


def _ids_and_labels(shard: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        serialized = next(iter(tf.data.TFRecordDataset(shard, buffer_size=1 << 20).batch(1 << 30)), None)
        if serialized is None:
            return np.zeros(0, object), np.zeros((0, 1), np.int32)
        ids = records.parse_ids(serialized).numpy()
        labels = records.parse_labels(serialized).to_tensor(schema.NO_LABEL).numpy()
    except (*integrity.READ_FAILURES, *records.PARSE_FAILURES) as error:
        damage = integrity.scan_shard(shard).damage
        raise InputError(f"{damage or shard + ': not YouTube-8M records'}; fetch the shard again") from error
    if (ids == b"").any():
        raise InputError(f"{shard}: record {int(np.argmax(ids == b''))} has no id; write the shard again, with ids")
    check_unique(ids, shard)
    if labels.size and not ((labels >= schema.NO_LABEL) & (labels < num_classes)).all():
        raise InputError(f"{shard}: a label that is not one of the {num_classes:,} classes of the scores")
    return ids, labels.astype(np.int32) if labels.shape[1] else np.full((len(ids), 1), schema.NO_LABEL, np.int32)
