"""Flags of commands that read a user's table of labels.

A command calls `flags.adopt_module_key_flags(table_flags)`, so that its `--help` shows them as its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from yt8m_tf.conversion.tables import LabelTable
    from yt8m_tf.schema import Level

_LABELS = flags.DEFINE_string("labels", None, "CSV or Parquet table of videos: ids, labels, splits.")
ID_COLUMN = flags.DEFINE_string("id_column", "id", "Column of the videos' ids.")
LABELS_COLUMN = flags.DEFINE_string("labels_column", "labels", "Column of the labels, names or numbers of classes.")
SPLIT_COLUMN = flags.DEFINE_string("split_column", "split", "Column of the split: train, validate or test.")
_LABEL_SEPARATOR = flags.DEFINE_string("label_separator", ";", "Separator of a video's labels.")
_VOCABULARY = flags.DEFINE_string(
    "vocabulary", None, "A vocabulary.csv of the classes; without it the classes are those of the table."
)
_VALIDATE_SHARE = flags.DEFINE_float(
    "validate_share",
    0.1,
    "Share of the videos for validation, if the table has no column of splits.",
    lower_bound=0.0,
    upper_bound=1.0,
)


def next_step(directory: Path, level: Level, num_train: int) -> str:
    """Returns the next command once shards are made: training, or inspection if no shards are for training."""
    from yt8m_tf.bin.usage import next_command
    from yt8m_tf.conversion.writing import read_data_section

    if not num_train:
        return next_command("inspect", str(directory / level / "*.tfrecord"))
    config = {"video": "first_level/logistic.yaml", "frame": "first_level/frame_logistic.yaml"}[level]
    data = f"data={read_data_section(directory, level)}"
    return next_command("train", config=config, set=data, data_dir=directory / level, workdir="runs/logistic")


def read_labels() -> LabelTable | None:
    """Reads the table that the user named; returns None if there is none."""
    from yt8m_tf import files
    from yt8m_tf.conversion.tables import TableFormat, read_table

    if _LABELS.value is None:
        return None
    form = TableFormat(
        ID_COLUMN.value, LABELS_COLUMN.value, SPLIT_COLUMN.value, _LABEL_SEPARATOR.value, _VALIDATE_SHARE.value
    )
    vocabulary = None if _VOCABULARY.value is None else files.local_path(_VOCABULARY.value, "--vocabulary")
    return read_table(files.local_path(_LABELS.value, "--labels"), form, vocabulary)
