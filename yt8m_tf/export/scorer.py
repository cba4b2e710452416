"""Loads a SavedModel that scores serialized records. Needs no model code: TensorFlow alone runs the graph."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import config
from yt8m_tf.errors import InputError
from yt8m_tf.experiment import DataConfig
from yt8m_tf.export.metadata import read_metadata
from yt8m_tf.metrics import TOP_K

SIGNATURE = "serving_default"
_OUTPUTS = ("video_id", "class_indexes", "predictions")


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A loaded SavedModel.

    Attributes:
      path: its directory.
      signature: from [B] strings to the outputs of `export.saved_model.export_saved_model`'s serving signature.
      data: the records that it reads, where its metadata says so.
      loaded: keeps its variables alive.
    """

    path: str
    signature: Callable[..., dict[str, tf.Tensor]]
    data: DataConfig | None
    loaded: Any

    def __call__(self, serialized: tf.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[B] strings -> video ids [B] bytes, class ids [B, k] int, scores [B, k] float32, highest first."""
        (name,) = self.signature.structured_input_signature[1]  # type: ignore[attr-defined]
        outputs = self.signature(**{name: serialized})
        ids, classes, scores = (outputs[output].numpy() for output in _OUTPUTS)
        return ids, classes, scores


def load_scorer(directory: str, top_k: int = TOP_K) -> Scorer:
    """Loads a SavedModel and checks that it can be used here.

    Raises:
      InputError: `directory` holds no SavedModel, or one without a signature that takes one [B] string tensor and gives
        `video_id`, `class_indexes` and `predictions`, `top_k` of them.
    """
    where = f"--saved_model={directory}"
    if not tf.io.gfile.exists(os.path.join(directory, "saved_model.pb")):
        raise InputError(f"{where}: no saved_model.pb there; give the directory that yt8m-export wrote")
    try:
        loaded = tf.saved_model.load(directory)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"{where}: cannot be loaded ({' '.join(str(error).split())}); export it again") from error
    if SIGNATURE not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise InputError(f"{where}: no signature '{SIGNATURE}' (it has: {known}); export it with yt8m-export")
    signature = loaded.signatures[SIGNATURE]
    inputs = signature.structured_input_signature[1]
    if [(spec.dtype, spec.shape.rank) for spec in inputs.values()] != [(tf.string, 1)]:
        found = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in inputs.items())
        raise InputError(f"{where}: '{SIGNATURE}' takes {found}, not one string tensor [B] of serialized records")
    outputs = signature.structured_outputs
    if missing := [name for name in _OUTPUTS if name not in outputs]:
        raise InputError(f"{where}: '{SIGNATURE}' does not give {missing[0]} (it gives: {', '.join(outputs)})")
    given = outputs["predictions"].shape[-1]
    if not 1 <= top_k <= max(given or top_k, TOP_K):
        raise InputError(f"--top_k={top_k}: the model gives the {given} highest scores of a video; give 1 to {given}")
    metadata = read_metadata(directory)
    data = config.parse(DataConfig, metadata["data"], "data") if metadata else None
    return Scorer(directory, signature, data, loaded)


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """A SHA-256 of all files of a SavedModel and their names."""
    digest = hashlib.sha256()
    for file in sorted(Path(directory).rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(directory)}\n".encode())
            with open(file, "rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
