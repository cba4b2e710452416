"""Checks that a teacher can score its student's input. Imports no framework, so that a plan can check it at once."""

from __future__ import annotations

from yt8m_tf.config.data import DataConfig
from yt8m_tf.errors import InputError


def check_can_teach(theirs: DataConfig, own: DataConfig, where: str) -> None:
    """Checks that a model with data `theirs` can score the input of a student with data `own`.

    Raises:
      InputError: the level or the classes differ, or the student's data lacks a feature.
    """
    for what, key in (("level", "data.level"), ("num_classes", "data.num_classes")):
        if getattr(theirs, what) != getattr(own, what):
            raise InputError(
                f"{where}: was trained with {key} {getattr(theirs, what)}, this run has"
                f" {getattr(own, what)}; name a teacher with the same value"
            )
    for name, size in theirs.sizes.items():
        if own.sizes.get(name) != size:
            there = f"gives it {own.sizes[name]}" if name in own.sizes else "lacks it"
            raise InputError(
                f"{where}: needs feature '{name}' of {size} values, but data.features {there}; name a teacher"
                " that needs only features of data.features"
            )
