"""Inputs of a stacking: the scores of several models and the labels of the videos, shard by shard."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.data import integrity, records
from yt8m_tf.data.labels import LabelRule
from yt8m_tf.data.record_check import ON_UNLABELLED_HINT, Reader
from yt8m_tf.data.shards import size_of
from yt8m_tf.data.threads import in_order
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards.manifest import Manifest, read_manifest
from yt8m_tf.score_shards.reading import ShardScores, check_unique, join, read_shard


@dataclasses.dataclass(frozen=True, eq=False)
class ShardInputs:
    """One shard: all models' scores for the same N videos, in the order of the shard, and the videos' labels.

    Attributes:
      ids: [N] bytes objects.
      scores: scores of each model.
      labels: [N, L] int32 class ids, padded with -1; only padding if a shard has no labels.
    """

    ids: np.ndarray
    scores: list[ShardScores]
    labels: np.ndarray

    @property
    def num_labels(self) -> int:
        """The number of labels of all videos."""
        return int((self.labels != schema.NO_LABEL).sum())

    def is_label(self, videos: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Returns whether the class of each row is a label of its video, [R] bool."""
        return (self.labels[videos] == classes[:, None]).any(axis=1)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Counts of videos that are left out.

    Attributes:
      videos: number of videos that have scores of all models, labelled or not.
      unlabelled: number of these that have no labels, which are left out or treated as negative.
      skipped: number of videos without scores of some model, which was allowed to skip them.
      damaged: base names of shards of which only the videos before the damage are used; the number of videos after it
        is unknown.
    """

    videos: int
    unlabelled: int
    skipped: int
    damaged: tuple[str, ...] = ()

    def summary(self, on_unlabelled: str) -> list[str]:
        """Returns a line for each kind of fault that was tolerated."""
        lines = []
        if self.damaged:
            more = f" and {len(self.damaged) - 1:,} more" if len(self.damaged) > 1 else ""
            lines.append(f"left out the rest of {len(self.damaged):,} damaged shards: {self.damaged[0]}{more}")
        if self.skipped:
            lines.append(f"left out {self.skipped:,} videos that a model was allowed to skip")
        if self.unlabelled:
            done = "left out" if on_unlabelled == "skip" else "kept as negatives"
            lines.append(f"{done} {self.unlabelled:,} of {self.videos:,} videos, which have no labels")
        return lines


@dataclasses.dataclass(frozen=True, eq=False)
class _Kept:
    """Videos of a shard: ids [N], labels [N, L], and the number of all videos of the shard."""

    ids: np.ndarray
    labels: np.ndarray
    num_videos: int

    def at(self, rows: np.ndarray) -> _Kept:
        return _Kept(self.ids[rows], self.labels[rows], self.num_videos)

    def is_unlabelled(self) -> np.ndarray:
        return (self.labels == schema.NO_LABEL).all(axis=1)

    def counts(self) -> tuple[int, int, int]:
        """Returns the counts of `LeftOut`."""
        return len(self.ids), int(self.is_unlabelled().sum()), self.num_videos - len(self.ids)


class StackInputs:
    """The scores of several models over the same shards.

    Videos that a model was allowed to skip (in damaged shards, or without frames) are left out for all models.

    Args:
      directories: directories of score shards, one for each model.
      names: a unique name for each model.
      shards: paths of the shards that were scored.
      on_unlabelled: what to do about videos without labels if other videos have some: "error"; "skip", leave them out;
        or "negative", treat them as videos of no class.

    Attributes:
      names: names of the models.
      shards: paths.
      num_classes: C.
      folds: maps the base names of shards to their folds; empty if the models were trained without folds.
      fingerprints: fingerprints of the models' scores.

    Raises:
      InputError: two models have the same name, a model has no scores, the classes or folds of scores differ, the same
        model is given twice, or a model has not scored a shard.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        names: Sequence[str],
        shards: Sequence[str],
        on_unlabelled: str = "error",
    ):
        self._on_unlabelled, self._drops_unlabelled = on_unlabelled, False
        self.names, self.shards, self._directories = list(names), list(shards), list(directories)
        places = [directory.resolve() for directory in directories]
        if again := [place for place in places if places.count(place) > 1]:
            raise InputError(f"--scores: {directories[places.index(again[0])]} is named twice; name each model once")
        if len(set(self.names)) < len(self.names):
            name = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"--scores: the directories of two models are named '{name}'; rename one")
        self._manifests = [read_manifest(directory, "--scores") for directory in directories]
        first = self._manifests[0]
        self.num_classes, self.folds = first.num_classes, dict(first.folds)
        self.fingerprints = [manifest.fingerprint for manifest in self._manifests]
        self._cache: Path | None = None
        self._has_shards = True
        for directory, manifest in zip(directories, self._manifests, strict=True):
            self._check(directory, manifest, first)
        for number, fingerprint in enumerate(self.fingerprints):
            if fingerprint in self.fingerprints[:number]:
                twin = directories[self.fingerprints.index(fingerprint)]
                raise InputError(
                    f"--scores: {twin} and {directories[number]} are scores of the same model; name it once"
                )

    @property
    def top_k(self) -> list[int]:
        """The largest number of classes per video in each model's scores."""
        return [manifest.top_k for manifest in self._manifests]

    def cache_labels(self, directory: Path) -> None:
        """Caches each shard's ids and labels in a file there, because frame-level shards are large to read again."""
        directory.mkdir(parents=True, exist_ok=True)
        self._cache = directory

    def use_labels(self, directory: Path) -> None:
        """Reads the ids and labels of all shards from the files of `cache_labels`; the shards need not exist."""
        self._cache, self._has_shards = directory, False

    def labels(self, shard: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids [N] and labels [N, L] of one shard, as in `ShardInputs`.

        Raises:
          InputError: the shard is damaged, or has a label that is not a class of the scores.
        """
        kept = self._kept(shard)
        return kept.ids, kept.labels

    def check_labels(self, needed: bool) -> LeftOut:
        """Counts the videos without labels in all shards; if `on_unlabelled` is "skip", later calls leave them out.

        Args:
          needed: whether it is an error if no video has labels; if not, the shards may be those of a test set.

        Raises:
          InputError: a video has no labels, but labels are needed or other videos have some; or see `labels`.
        """
        found = {
            shard: kept.counts() for shard, kept in zip(self.shards, in_order(self._kept, self.shards), strict=True)
        }
        damaged = tuple(name for name in map(os.path.basename, self.shards) if self._is_damaged(name))
        videos, unlabelled, skipped = (sum(counts) for counts in zip(*found.values(), strict=True))
        total = LeftOut(videos, unlabelled, skipped, damaged)
        if not total.unlabelled or (total.unlabelled == total.videos and not needed):
            return dataclasses.replace(total, unlabelled=0)
        if self._on_unlabelled == "error" or total.unlabelled == total.videos:
            shard = next(shard for shard, counts in found.items() if counts[1])
            kept = self._kept(shard)
            video = kept.ids[np.argmax(kept.is_unlabelled())].decode(errors="replace")
            raise InputError(
                f"{shard}: video '{video}' has no labels; nor have {total.unlabelled - 1:,} of the other"
                f" {total.videos - 1:,} videos; give labelled shards, or {ON_UNLABELLED_HINT}"
            )
        self._drops_unlabelled = self._on_unlabelled == "skip"
        return total

    def num_videos(self, shard: str) -> int:
        """Counts the videos of a shard that have scores of all models."""
        name = os.path.basename(shard)
        own = self._manifests[0].inputs.get(name)
        return self._manifests[0].shards[name] - len(self._skipped(name) - set(own.skipped if own else ()))

    def read(self, shard: str) -> ShardInputs:
        """Reads one shard.

        Raises:
          InputError: the shard is damaged, or a model's scores are those of other videos.
        """
        kept, scores = self._kept(shard), []
        ids = kept.ids
        for directory, manifest in zip(self._directories, self._manifests, strict=True):
            found = read_shard(directory, os.path.basename(shard), manifest)
            rows = join(ids, found)
            if len(found.ids) > kept.num_videos or (rows < 0).any():
                missing = int((rows < 0).sum())
                example = ids[np.argmin(rows)].decode(errors="replace") if missing else found.ids[-1].decode()
                raise InputError(
                    f"{directory / os.path.basename(shard)}: {len(found.ids):,} videos, {shard} has"
                    f" {kept.num_videos:,}, {missing:,} of them without scores (for example '{example}'); score the"
                    " same data with every model"
                )
            scores.append(found.at(rows))
        return ShardInputs(ids, scores, kept.labels)

    def _kept(self, shard: str) -> _Kept:
        """Returns the videos of a shard that are used."""
        path = self._cache and self._cache / f"{os.path.basename(shard)}.npz"
        if path is not None and path.is_file() and self._is_current(arrays := load_arrays(path), shard):
            ids = arrays["ids"].astype(object)
            kept = _Kept(ids, arrays["labels"], int(arrays.get("num_videos", len(ids))))
        else:
            kept = self._read_labels(shard)
            if path is not None:
                self._keep(path, shard, kept)
        if self._drops_unlabelled and kept.is_unlabelled().any():
            kept = kept.at(~kept.is_unlabelled())
            if path is not None:  # a report reads the file, too
                self._keep(path, shard, kept)
        return kept

    def _is_current(self, arrays: Mapping[str, np.ndarray], shard: str) -> bool:
        """Returns whether a shard is unchanged since its labels were cached; True for files that store no size."""
        if not self._has_shards or "num_bytes" not in arrays:
            return True
        return int(arrays["num_bytes"]) == size_of(shard)

    def _keep(self, path: Path, shard: str, kept: _Kept) -> None:
        sizes = {"num_videos": np.int64(kept.num_videos), "num_bytes": np.int64(size_of(shard))}
        save_arrays(path, {"ids": kept.ids.astype(np.bytes_), "labels": kept.labels, **sizes})

    def _read_labels(self, shard: str) -> _Kept:
        name = os.path.basename(shard)
        ids, labels = _ids_and_labels(shard, self.num_classes, self._is_damaged(name), self.keys)
        kept, skipped = _Kept(ids, labels, len(ids)), self._skipped(name)
        if not skipped:
            return kept
        return kept.at(np.array([video.decode("utf-8", "backslashreplace") not in skipped for video in ids.tolist()]))

    def _is_damaged(self, name: str) -> bool:
        """Returns whether a shard was damaged when a model scored it."""
        return any(manifest.inputs[name].damage for manifest in self._manifests if name in manifest.inputs)

    @property
    def keys(self) -> Mapping[str, str]:
        """The keys of id and labels, if they are not the standard ones."""
        return self._manifests[0].keys

    def _skipped(self, name: str) -> set[str]:
        """Returns the ids of the videos of a shard that some model has left out."""
        inputs = (manifest.inputs.get(name) for manifest in self._manifests)
        return {video for own in inputs if own is not None for video in own.skipped}

    def _check(self, directory: Path, manifest: Manifest, first: Manifest) -> None:
        if manifest.num_classes != first.num_classes:
            raise InputError(
                f"--scores: {directory} has {manifest.num_classes:,} classes, {self._directories[0]}"
                f" {first.num_classes:,}; stack models of one data set"
            )
        if manifest.keys != first.keys:
            raise InputError(
                f"--scores: {directory} and {self._directories[0]} are of records with different keys of id and labels"
                f" ({dict(manifest.keys)}, {dict(first.keys)}); stack models of one data set"
            )
        if manifest.folds != first.folds:
            raise InputError(
                f"--scores: {directory} and {self._directories[0]} have different folds; train all models with the same"
                " --num_folds on the same shards"
            )
        missing = [shard for shard in self.shards if os.path.basename(shard) not in manifest.shards]
        if missing:
            raise InputError(
                f"{directory}: no scores of {len(missing)} of {len(self.shards)} shards, for example '{missing[0]}';"
                " score them with yt8m-score into the same directory"
            )


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays into one `.npz` file, which appears when it is complete."""
    with files.whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote.

    Raises:
      InputError: the file is missing or damaged.
    """
    try:
        with open(path, "rb") as file:
            return files.read_arrays(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove the file and repeat the command") from error


def _ids_and_labels(
    shard: str, num_classes: int, is_damaged: bool, keys: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Reads ids and labels of all records, or of those before the damage."""
    rule = LabelRule(
        num_classes, schema.id_keys_of(keys), schema.labels_key_of(keys), Reader(model="the model of the scores")
    )
    try:
        if is_damaged:
            serialized = np.array([*integrity.good_records(shard)], object)
        else:
            serialized = next(iter(tf.data.TFRecordDataset(shard, buffer_size=1 << 20).batch(1 << 30)), np.zeros(0))
        if not len(serialized):
            return np.zeros(0, object), np.zeros((0, 1), np.int32)
        ids = records.parse_ids(serialized, rule.id_keys).numpy()
    except (*integrity.READ_FAILURES, *records.PARSE_FAILURES) as error:
        damage = None if is_damaged else integrity.scan_shard(shard).damage
        hint = "fetch the shard again"
        problem = damage.advise(hint) if damage else rule.find_bad([shard])
        raise InputError(problem or f"{shard}: not YouTube-8M records; {hint}") from error
    if (ids == b"").any():
        raise InputError(rule.find_bad([shard]) or f"{shard}: a record without an id; write the shard again, with ids")
    check_unique(ids, shard)
    labels = rule.parse(serialized, [shard]).to_tensor(schema.NO_LABEL).numpy()
    return ids, labels.astype(np.int32) if labels.shape[1] else np.full((len(ids), 1), schema.NO_LABEL, np.int32)
