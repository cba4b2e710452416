"""`scores.json`, the manifest of a directory of score shards, which is written once all of them are complete."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from yt8m_tf import files, schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.data.integrity import Damage
from yt8m_tf.errors import InputError
from yt8m_tf.locks import CLAIMS, is_claimed

MANIFEST = "scores.json"
# The future manifest, written when the first process starts to score.
_STARTED = ".scores.started.json"
# Directory of `ScoredShard`s of a run that is not finished.
_INPUTS = ".inputs"
_REMEDY = "make the scores again"


@dataclasses.dataclass(frozen=True)
class ScoredShard:
    """Source of a shard's scores.

    Attributes:
      num_bytes: the size of the shard. If a shard is replaced, for example by a sound copy, it is scored again.
      damage: the damage at which reading ended; None for a sound shard.
      skipped: ids of videos that were left out because they have no frames.
    """

    num_bytes: int
    damage: Damage | None = None
    skipped: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Manifest of a directory of score shards.

    Attributes:
      model: description of the model, for information only: run directories, a SavedModel, the stacked models.
      fingerprint: a hash of its weights and configuration, and of all else that the scores depend on.
      num_classes: C.
      top_k: the largest number of classes that a record lists.
      level: level of the records that were scored.
      folds: base name of a shard to its fold. These shards were scored by the model that was not trained on their fold,
        all other shards by the mean of the models of all folds. Empty: one model scored everything.
      shards: base name of each shard to its number of records.
      inputs: base name of each shard to the source of its scores; missing in files of early releases.
      keys: where the records contain id and labels, if not under the standard keys (`data.keys`).
    """

    model: tuple[str, ...]
    fingerprint: str
    num_classes: int
    top_k: int
    level: schema.Level
    folds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    shards: Mapping[str, int] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, ScoredShard] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_classes <= schema.MAX_STORED_CLASSES:
            raise ValueError(
                f"top_k is {self.top_k} and num_classes {self.num_classes}; they must be at least 1, and top_k at most"
                f" num_classes, which is at most {schema.MAX_STORED_CLASSES}"
            )

    def same_scores(self, other: Manifest) -> bool:
        """Returns whether both describe the same scores, regardless of the shards and the model's path."""
        mine, others = (dataclasses.replace(each, shards={}, inputs={}, model=()) for each in (self, other))
        return mine == others


def read_manifest(directory: Path, source: str) -> Manifest:
    """Reads the manifest of finished scores.

    Args:
      directory: directory of the score shards.
      source: the flag or configuration key of the directory, for messages.

    Raises:
      InputError: there are no scores, they are not finished, or the manifest cannot be read.
    """
    where = f"{source}={directory}"
    if not (directory / MANIFEST).is_file():
        unfinished = (directory / _STARTED).is_file()
        reason = (
            "the scores are not finished; repeat the command that makes them"
            if unfinished
            else "no scores there; yt8m-score makes them"
        )
        raise InputError(f"{where}: {reason} ({MANIFEST} is missing)")
    return _read(directory / MANIFEST)


def start(directory: Path, manifest: Manifest, output_flag: str = "--output") -> None:
    """Creates the directory, or checks that the scores in it are of the same model.

    Raises:
      InputError: the directory contains other scores, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        begun = any(not path.name.startswith(".") for path in directory.iterdir()) or is_claimed(directory)
        for name in (MANIFEST, _STARTED) if begun else ():  # a run that finished no shard is ignored
            if (directory / name).is_file() and not _read(directory / name).same_scores(manifest):
                raise InputError(
                    f"{output_flag}={directory}: contains scores of another model, or of another checkpoint, folds or"
                    " --top_k; name another directory, or remove this one"
                )
        files.write_json(directory / _STARTED, strict_yaml.to_dict(manifest))
    except OSError as error:
        raise InputError(
            f"{output_flag}={directory}: cannot be written ({error.strerror}); name another directory"
        ) from error


@contextlib.contextmanager
def begun(directory: Path, manifest: Manifest) -> Iterator[None]:
    """Calls `start`. If the block fails before any shard is scored, and no other process scores, removes its files.

    Raises:
      InputError: see `start`.
    """
    made = files.missing_directories(directory)
    try:
        start(directory, manifest)
        yield
    except BaseException:
        is_empty = directory.is_dir() and all(path.name.startswith(".") for path in directory.iterdir())
        if is_empty and not is_claimed(directory):
            (directory / _STARTED).unlink(missing_ok=True)
            for folder in (_INPUTS, CLAIMS):
                shutil.rmtree(directory / folder, ignore_errors=True)
            files.remove_empty(made)
        raise


def note_input(directory: Path, name: str, made_from: ScoredShard) -> None:
    """Stores the source of a shard's scores until the manifest has it; called before the scores are written."""
    (directory / _INPUTS).mkdir(exist_ok=True)
    files.write_json(directory / _INPUTS / f"{name}.json", strict_yaml.to_dict(made_from))


def known_inputs(directory: Path) -> dict[str, ScoredShard]:
    """Returns the sources of the scores of shards by base name, including those of unfinished runs."""
    manifest = directory / MANIFEST
    found = dict(_read(manifest).inputs) if manifest.is_file() else {}
    for path in sorted((directory / _INPUTS).glob("*.json")):
        try:
            found[path.name.removesuffix(".json")] = strict_yaml.read_json(path, ScoredShard, _REMEDY)
        except InputError:
            if path.exists():  # otherwise another process has just moved it into the manifest
                raise
    return found


def finish(directory: Path, manifest: Manifest) -> Manifest:
    """Writes the manifest, merged with the shards of an earlier manifest, and returns it."""
    if (directory / MANIFEST).is_file():
        earlier = _read(directory / MANIFEST)
        shards, inputs = {**earlier.shards, **manifest.shards}, {**earlier.inputs, **manifest.inputs}
        manifest = dataclasses.replace(manifest, shards=shards, inputs=inputs)
    shards, inputs = dict(sorted(manifest.shards.items())), dict(sorted(manifest.inputs.items()))
    manifest = dataclasses.replace(manifest, shards=shards, inputs=inputs)
    files.write_json(directory / MANIFEST, strict_yaml.to_dict(manifest))
    (directory / _STARTED).unlink(missing_ok=True)
    shutil.rmtree(directory / _INPUTS, ignore_errors=True)
    return manifest


def _read(path: Path) -> Manifest:
    return strict_yaml.read_json(path, Manifest, _REMEDY)
