"""Identifies the data of a run by name and size, so that it goes on with the same and nothing else."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data import integrity
from yt8m_tf.score_shards import soft_labels

# Base name of a shard to the sizes of the files of that name, which may lie in several directories.
Sizes = Mapping[str, tuple[int, ...]]

_SHOWN = 3
# Shards of a list whose level is looked at, evenly spread.
_LOOKED_AT = 32


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Names and sizes of a run's data; where it lies does not count.

    Attributes:
      train: the training shards, and their bytes.
      validation: the same of the validation shards.
      soft_labels: the fingerprint of the scores that are soft labels; "" without.
      teacher: the fingerprint of the teacher's weights, of those of folds too; "" without.
    """

    train: Sizes = dataclasses.field(default_factory=dict)
    validation: Sizes = dataclasses.field(default_factory=dict)
    soft_labels: str = ""
    teacher: str = ""

    def differences(self, now: Inputs) -> list[str]:
        """Lists what has changed, for messages; [] for nothing."""
        lines = []
        for what, old, new in (
            ("training", self.train, now.train),
            ("validation", self.validation, now.validation),
        ):
            for how, names in (
                ("new", sorted(new.keys() - old.keys())),
                ("gone", sorted(old.keys() - new.keys())),
                ("of another size", sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
            ):
                if names:
                    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
                    lines.append(f"{what} shards {how}: {', '.join(names[:_SHOWN])}{more}")
        if self.soft_labels != now.soft_labels:
            lines.append("soft labels of other scores (labels.soft)")
        if self.teacher != now.teacher:
            lines.append("a teacher of other weights or folds (labels.teacher, labels.teacher_folds)")
        return lines


def look(train: Sequence[str], validation: Sequence[str], labels: LabelsConfig, data_dir: str) -> Inputs:
    """Looks at the data that is there now.

    Args:
      train, validation: paths of shards.
      labels: where soft labels are.
      data_dir: what that is relative to.

    Raises:
      InputError: no finished soft labels, or no trained teacher, where `labels` says that there are.
      tf.errors.OpError: a shard that is not there.
    """
    from yt8m_tf.training import teacher  # which reads checkpoints, whose state holds `Inputs`

    stored = soft_labels.fingerprint(labels, data_dir)
    return Inputs(sizes(train), sizes(validation), stored, teacher.fingerprint(labels, data_dir))


def mixed_levels(train: Sequence[str], validation: Sequence[str]) -> str | None:
    """Says that shards are not all of one level, which no data.level helps; None where they are.

    Args:
      train, validation: paths of shards; some of each, evenly spread, are looked at.
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
    """Returns the bytes of the files of each base name, as `Inputs` holds them."""
    with concurrent.futures.ThreadPoolExecutor(16) as threads:  # thousands of them, on a remote file system perhaps
        lengths = list(threads.map(lambda path: int(tf.io.gfile.stat(path).length), paths))
    found: dict[str, list[int]] = {}
    for path, length in zip(paths, lengths, strict=True):
        found.setdefault(os.path.basename(path), []).append(length)
    return {name: tuple(sorted(sizes)) for name, sizes in found.items()}
