"""Flags of commands that join a table of labels to videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from yt8m_tf.conversion.tables import LabelTable

LABELS = flags.DEFINE_string(
    "labels", None, "Table (.csv or .parquet) with a row for each video: its id, its labels and, if any, its split."
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary",
    None,
    "A vocabulary.csv whose classes the labels are of; without it the classes are those of the table.",
)
_ID_COLUMN = flags.DEFINE_string("id_column", "id", "Column of the table with the ids of the videos.")
_LABELS_COLUMN = flags.DEFINE_string(
    "labels_column", "labels", "Column with the labels, ids or names of classes; an empty cell: not known."
)
_SPLIT_COLUMN = flags.DEFINE_string(
    "split_column", "split", "Column with train, validate or test; where there is none, --validate_share says."
)
_SEPARATOR = flags.DEFINE_string("separator", ";", "Between the labels of a cell.")
_VALIDATE_SHARE = flags.DEFINE_float(
    "validate_share", 0.1, "Share of the videos that is for validation, if the table has no splits.", 0.0, 1.0
)


def paths() -> list[Path]:
    """The files that the flags name."""
    from yt8m_tf import files

    flags_of_files = (LABELS, _VOCABULARY)
    return [files.local_path(flag.value, f"--{flag.name}") for flag in flags_of_files if flag.value is not None]


def label_table() -> LabelTable | None:
    """The table that the flags name; None where they name none.

    Raises:
      InputError: it cannot be read, or is none.
    """
    from yt8m_tf import files
    from yt8m_tf.conversion.tables import TableFormat, read_table

    if LABELS.value is None:
        return None
    form = TableFormat(
        _ID_COLUMN.value, _LABELS_COLUMN.value, _SPLIT_COLUMN.value, _SEPARATOR.value, _VALIDATE_SHARE.value
    )
    vocabulary = None if _VOCABULARY.value is None else files.local_path(_VOCABULARY.value, "--vocabulary")
    return read_table(files.local_path(LABELS.value, "--labels"), form, vocabulary)
