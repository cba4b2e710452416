"""Identifies the data of a run by names and sizes, so that a resumed run can tell if its data has changed."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Mapping, Sequence

from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data import integrity
from yt8m_tf.data.shards import size_of
from yt8m_tf.score_shards import soft_labels

# Maps the base name of a shard to the sizes of the files of that name, which may be in several directories.
Sizes = Mapping[str, tuple[int, ...]]

_SHOWN = 3
# Maximum number of shards of a list, evenly spread, that are read to find their level.
_LOOKED_AT = 32


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Names and sizes of a run's data, without its location.

    Attributes:
      train: the training shards and their sizes in bytes.
      validation: the same for the validation shards.
      soft_labels: the fingerprint of the soft labels; "" without soft labels.
      teacher: the fingerprint of the teacher, or of the out-of-fold teachers; "" without a teacher.
    """

    train: Sizes = dataclasses.field(default_factory=dict)
    validation: Sizes = dataclasses.field(default_factory=dict)
    soft_labels: str = ""
    teacher: str = ""

    def differences(self, now: Inputs) -> list[str]:
        """Lists what has changed, for messages; [] if nothing has."""
        lines = []
        for what, old, new in (
            ("training", self.train, now.train),
            ("validation", self.validation, now.validation),
        ):
            for how, names in (
                ("new", sorted(new.keys() - old.keys())),
                ("gone", sorted(old.keys() - new.keys())),
                ("of a different size", sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
            ):
                if names:
                    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
                    lines.append(f"{what} shards {how}: {', '.join(names[:_SHOWN])}{more}")
        if self.soft_labels != now.soft_labels:
            lines.append("soft labels from different scores (labels.soft)")
        if self.teacher != now.teacher:
            lines.append("a teacher with different weights or folds (labels.teacher, labels.teacher_folds)")
        return lines


def look(train: Sequence[str], validation: Sequence[str], labels: LabelsConfig, data_dir: str) -> Inputs:
    """Identifies the data as it is now.

    Args:
      train, validation: paths of shards.
      labels: names the soft labels or the teacher.
      data_dir: the base of relative paths in `labels`.

    Raises:
      InputError: the soft labels that `labels` names are not finished, or the teacher is not trained.
      tf.errors.OpError: a shard does not exist.
    """
    from yt8m_tf.training import teacher  # not at the top: it imports `checkpoints`, which imports this module

    stored = soft_labels.fingerprint(labels, data_dir)
    return Inputs(sizes(train), sizes(validation), stored, teacher.fingerprint(labels, data_dir))


def mixed_levels(train: Sequence[str], validation: Sequence[str]) -> str | None:
    """Returns a message if shards are of different levels, so that no data.level fits all; None otherwise.

    Args:
      train, validation: paths of shards; some of each, evenly spread, are read.
    """
    found: dict[str, tuple[str, str]] = {}
    for key, paths in (("data.train", train), ("data.validation", validation)):
        for path in paths[:: -(-len(paths) // _LOOKED_AT)]:
            if level := integrity.first_level([path]):
                found.setdefault(level, (key, path))
    if len(found) < 2:
        return None
    places = " and ".join(f"{key} matches {level}-level shards ('{path}')" for level, (key, path) in found.items())
    return f"{places}; a run reads shards of one level: correct the patterns"


def sizes(paths: Sequence[str]) -> Sizes:
    """Returns the sizes in bytes of the files of each base name, in the form of `Inputs`."""
    with concurrent.futures.ThreadPoolExecutor(16) as threads:  # for thousands of paths on a remote file system
        lengths = list(threads.map(size_of, paths))
    found: dict[str, list[int]] = {}
    for path, length in zip(paths, lengths, strict=True):
        found.setdefault(os.path.basename(path), []).append(length)
    return {name: tuple(sorted(sizes)) for name, sizes in found.items()}
