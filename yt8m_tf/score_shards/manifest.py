"""`scores.json`: what the score shards beside it hold. It is there once all of them are whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from yt8m_tf import files, schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.errors import InputError

MANIFEST = "scores.json"
# What a manifest will say, from the moment that the first process starts to score.
_STARTED = ".scores.started.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a directory of score shards holds.

    Attributes:
      model: what the scores are of, for people: run directories, a SavedModel, the stacked models.
      fingerprint: a hash of its weights and configuration, and of what else the scores depend on.
      num_classes: C.
      top_k: the most classes that a record lists.
      level: of the records that were scored.
      folds: base name of a shard to its fold; such a shard was scored by the model that was not trained on its fold,
        every other one by the mean of the models of all folds. Empty: one model scored everything.
      shards: base name of each shard to its number of records.
    """

    model: tuple[str, ...]
    fingerprint: str
    num_classes: int
    top_k: int
    level: schema.Level
    folds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    shards: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def same_scores(self, other: Manifest) -> bool:
        """Whether both are of the same scores, of whatever shards and wherever the model lies."""
        return dataclasses.replace(self, shards={}, model=()) == dataclasses.replace(other, shards={}, model=())


def read_manifest(directory: Path, source: str) -> Manifest:
    """The manifest of finished scores.

    Args:
      directory: of the score shards.
      source: the flag or configuration key that names it, for messages.

    Raises:
      InputError: there is none, because there are no scores or they are not finished, or it cannot be read.
    """
    where = f"{source}={directory}"
    if not (directory / MANIFEST).is_file():
        unfinished = (directory / _STARTED).is_file()
        reason = "the scores are not finished; repeat the command that makes them" if unfinished else "no scores there"
        raise InputError(f"{where}: {reason} ({MANIFEST} is missing)")
    return _read(directory / MANIFEST)


def start(directory: Path, manifest: Manifest, output_flag: str = "--output") -> None:
    """Makes the directory, or checks that what it holds already is of the same model.

    Raises:
      InputError: it holds scores of something else, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (MANIFEST, _STARTED):
            if (directory / name).is_file() and not _read(directory / name).same_scores(manifest):
                raise InputError(
                    f"{output_flag}={directory}: holds scores of another model, or of another checkpoint, folds or"
                    " --top_k; name another directory, or remove this one"
                )
        files.write_json(directory / _STARTED, strict_yaml.to_dict(manifest))
    except OSError as error:
        raise InputError(
            f"{output_flag}={directory}: cannot be written ({error.strerror}); name another directory"
        ) from error


def finish(directory: Path, manifest: Manifest) -> Manifest:
    """Writes the manifest; shards that an earlier one lists beside its own stay. Returns what was written."""
    if (directory / MANIFEST).is_file():
        earlier = _read(directory / MANIFEST)
        manifest = dataclasses.replace(manifest, shards={**earlier.shards, **manifest.shards})
    manifest = dataclasses.replace(manifest, shards=dict(sorted(manifest.shards.items())))
    files.write_json(directory / MANIFEST, strict_yaml.to_dict(manifest))
    (directory / _STARTED).unlink(missing_ok=True)
    return manifest


def _read(path: Path) -> Manifest:
    try:
        return strict_yaml.parse(Manifest, json.loads(path.read_text(encoding="utf-8")), "")
    except (OSError, ValueError, InputError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); make the scores again") from error
