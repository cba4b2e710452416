"""Files for the examples of the Python API: sample data in `sample`, an export in `exported/sample/1`."""

from __future__ import annotations

from pathlib import Path

import yt8m_tf
from yt8m_tf.config.data import data_of
from yt8m_tf.export.saved_model import export_saved_model

SIZES, NUM_CLASSES = {"rgb": 24, "audio": 12}, 20


def make_world(directory: Path, sample: Path) -> None:
    """Creates the files from the data of `sample_world`, which has the same sizes."""
    (directory / "sample").symlink_to(sample)
    spec = yt8m_tf.InputSpec(features=SIZES, num_classes=NUM_CLASSES)
    model = yt8m_tf.build_model("logistic", spec)
    export_saved_model(model, data_of(spec), directory / "exported/sample/1", vocabulary=sample / "vocabulary.csv")
