"""Loads a SavedModel that scores serialized records; TensorFlow runs the graph without model code.

The model may have any export signature of the YouTube-8M starter code, TensorFlow 1 models included. Their differences
are handled here: a fixed batch size, a dimension for each clip, order and types of the outputs. The starter code's
export for MediaPipe is supported, too (`frames_model`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_tf import files, schema
from yt8m_tf.config.data import DataConfig, frames_of
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.batch_statistics import TOP_K
from yt8m_tf.serving.frames_model import of_records, takes_frames
from yt8m_tf.serving.metadata import read_data

SIGNATURE = "serving_default"
FRAMES = "frames"  # the signature of a video-level model that takes frame-level records
_OUTPUTS = {
    "video_id": (tf.string,),
    "class_indexes": (tf.int32, tf.int64),
    "predictions": (tf.float32, tf.float16, tf.bfloat16, tf.float64),
}
# Class ids must be below this number.
_MOST_CLASSES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A loaded SavedModel.

    Attributes:
      path: its name in messages.
      signature: maps [B] strings to `video_id`, `class_indexes` and `predictions`.
      data: the records that it reads; None without metadata.
      num_classes: C; its class ids are below it.
      loaded: the loaded object, which keeps the variables alive.
    """

    path: str
    signature: Callable[..., dict[str, tf.Tensor]]
    data: DataConfig | None
    num_classes: int
    loaded: Any

    @property
    def num_scores(self) -> int:
        """The number of scores of a record; `TOP_K` if the model does not state it."""
        return self.signature.structured_outputs["predictions"].shape[-1] or TOP_K  # type: ignore[attr-defined]

    @property
    def id_keys(self) -> tuple[str, ...]:
        """The keys under which records may contain their id."""
        return self.data.id_keys if self.data else schema.ID_KEYS

    def __call__(self, serialized: tf.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores records.

        Args:
          serialized: [B] strings.

        Returns:
          Video ids [B] bytes, class ids [B, k] int64, scores [B, k] float32 in [0, 1] or NaN, highest first.

        Raises:
          InputError: the outputs are not of B records, or are not classes and probabilities.
        """
        ((name, spec),) = self.signature.structured_input_signature[1].items()  # type: ignore[attr-defined]
        size = spec.shape[0] if spec.shape.rank else None
        if not size:
            return self._checked(len(serialized), self.signature(**{name: serialized}))
        parts = []
        for start in range(0, len(serialized), size):
            part = serialized[start : start + size]
            filled = tf.concat([part, tf.repeat(part[:1], size - len(part))], axis=0)
            found = self._checked(size, self.signature(**{name: filled}))
            parts.append(tuple(values[: len(part)] for values in found))
        ids, classes, scores = (np.concatenate(values) for values in zip(*parts, strict=True))
        return ids, classes, scores

    def _checked(self, count: int, outputs: dict[str, tf.Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, classes, scores = (outputs[name].numpy() for name in _OUTPUTS)
        # The starter code's graph maps over clips, and returns [B, 1] ids and [B, 1, k] scores.
        of_records = ids.shape in ((count,), (count, 1)) and classes.shape == scores.shape
        if not of_records or classes.shape not in ((count, classes.shape[-1]), (count, 1, classes.shape[-1])):
            found = ", ".join(f"{name} {list(outputs[name].shape)}" for name in _OUTPUTS)
            raise InputError(
                f"{self.path}: the model gives {found} for {count} records, not one id and k classes and scores of each"
            )
        ids = ids.reshape(count)
        classes = classes.reshape(count, -1).astype(np.int64)
        scores = scores.reshape(count, -1).astype(np.float32)
        if (scores[:, 1:] > scores[:, :-1]).any():
            order = np.argsort(-scores, axis=1, kind="stable")
            classes, scores = np.take_along_axis(classes, order, 1), np.take_along_axis(scores, order, 1)
        self._check_values(ids, classes, scores)
        return ids, classes, scores

    def _check_values(self, ids: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> None:
        ordered = np.sort(classes, axis=1)
        for values, wrong, problem in (  # NaN is for the caller, who knows the shard
            (scores, (scores < 0) | (scores > 1), "predictions contain {}, which is not a probability from 0 to 1"),
            (
                classes,
                (classes < 0) | (classes >= self.num_classes),
                f"class_indexes contain {{}}, which is not a class id below {self.num_classes}",
            ),
            (ordered[:, 1:], ordered[:, 1:] == ordered[:, :-1], "class_indexes contain {} twice"),
        ):
            if wrong.any():
                video = ids[wrong.any(axis=1)][0].decode(errors="replace")
                raise InputError(
                    f"{self.path}: the model's {problem.format(values[wrong][0])} (video '{video}'); export it with the"
                    " highest probabilities of each video and their classes"
                )


def load_scorer(
    directory: str,
    top_k: int = TOP_K,
    source: str | None = None,
    num_classes: int | None = None,
    assumed_classes: int = _MOST_CLASSES,
    signature_name: str = SIGNATURE,
) -> Scorer:
    """Loads a SavedModel and checks that it can be used here.

    Args:
      directory: directory of the SavedModel. If it has several graphs, the one with the tag "serve" is used.
      top_k: number of scores wanted for each record.
      source: flag and value for messages; None: `--saved_model=DIRECTORY`.
      num_classes: the number of classes that the model must predict; None: any number.
      signature_name: the signature that scores records: `serving_default`, or "frames", which takes frame-level records
        for a video-level model.
      assumed_classes: the number of classes if neither the model nor `num_classes` states it.

    Raises:
      InputError: `directory` has no SavedModel; the model has no signature from one [B] string tensor to `video_id`,
        `class_indexes` and `predictions` with at least `top_k` scores; or it does not predict `num_classes` classes.
    """
    where = source or f"--saved_model={directory}"
    try:
        is_there = tf.saved_model.contains_saved_model(directory)
    except tf.errors.OpError as error:  # of a place with a scheme
        raise InputError(f"{where}: cannot be read ({files.why_unreadable(error)}); give a local copy") from error
    if not is_there:
        raise InputError(f"{where}: no saved_model.pb there; give the directory that yt8m-export wrote")
    loaded = load_saved_model(directory, where)
    if signature_name not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        remedy = "export it with yt8m-export" + ("" if signature_name == SIGNATURE else f" --{signature_name}")
        raise InputError(f"{where}: no signature '{signature_name}' (it has: {known}); {remedy}")
    signature, data = loaded.signatures[signature_name], read_data(directory)
    if data and signature_name == FRAMES:
        data = frames_of(data)
    if takes_frames(signature):
        signature, data = of_records(signature, where, num_classes)
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1 or any(s.dtype != tf.string or s.shape.rank not in (1, None) for s in inputs.values()):
        found = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in inputs.items())
        raise InputError(f"{where}: '{signature_name}' takes {found}, not one string tensor [B] of serialized records")
    outputs = signature.structured_outputs
    if missing := [name for name in _OUTPUTS if name not in outputs]:
        raise InputError(f"{where}: '{signature_name}' does not give {missing[0]} (it gives: {', '.join(outputs)})")
    for name, dtypes in _OUTPUTS.items():
        if outputs[name].dtype not in dtypes:
            wanted = " or ".join(dtype.name for dtype in dtypes)
            raise InputError(f"{where}: '{signature_name}' gives {name} as {outputs[name].dtype.name}, not {wanted}")
    given = outputs["predictions"].shape[-1]
    if not 1 <= top_k <= max(given or top_k, TOP_K):
        raise InputError(f"--top_k={top_k}: the model gives the {given} highest scores of a video; give 1 to {given}")
    if data and num_classes not in (None, data.num_classes):
        raise InputError(f"--num_classes={num_classes}: the model predicts {data.num_classes}; leave the flag out")
    classes = data.num_classes if data else num_classes or assumed_classes
    return Scorer(source or directory, signature, data, classes, loaded)


def load_saved_model(directory: str | os.PathLike[str], where: str) -> Any:
    """Loads a SavedModel; if it has several graphs, the one with the tag "serve".

    Args:
      directory: directory of the SavedModel.
      where: flag and value for messages.

    Raises:
      InputError: it is damaged, or TensorFlow cannot load it.
    """
    try:
        try:
            return tf.saved_model.load(files.plain(directory))
        except ValueError as error:
            if "tags=" not in str(error):  # several graphs, one for each set of tags
                raise
            return tf.saved_model.load(files.plain(directory), tags=[tf.saved_model.SERVING])
    except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
        raise InputError(
            f"{where}: cannot be loaded ({' '.join(str(error).split())}); export or fetch it again"
        ) from error


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """Returns a SHA-256 hash of all files of a SavedModel and their names."""
    digest = hashlib.sha256()
    for file in sorted(Path(directory).rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(directory)}\n".encode())
            with open(file, "rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
