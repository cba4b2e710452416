"""The `features` signature as a LiteRT (TensorFlow Lite) model with float16 weights, and its comparison.

Only operations that every LiteRT runtime has are used. All video-level models without recurrent layers convert;
recurrent layers do not (lists of tensors), nor do frame-level models but for cluster_resnet (`tf.Einsum`, or a
`tf.StridedSlice` that adds an axis).
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf.errors import InputError
from yt8m_tf.experiment import DataConfig
from yt8m_tf.export.measure import Comparison, compare_scores, load_features
from yt8m_tf.export.precision import Precision
from yt8m_tf.export.saved_model import InferenceModule
from yt8m_tf.quiet import without_stderr

# In the folder of a SavedModel that loaders leave alone.
LITE_FILE = "assets.extra/model.tflite"
_SIGNATURE = "features"


@dataclasses.dataclass(frozen=True)
class LiteReport:
    """A LiteRT model against the SavedModel that it lies in, on the same videos.

    Attributes:
      num_bytes: of the file.
      gap, gap_saved_model: GAP@20 of the two.
      max_difference, mean_difference: of the [0, 1] scores of all classes of all videos, absolute.
    """

    num_bytes: int
    gap: float
    gap_saved_model: float
    max_difference: float
    mean_difference: float

    def check(self, tolerance: float) -> None:
        """Raises InputError where GAP differs by more than `tolerance`, up or down."""
        if not abs(self.gap - self.gap_saved_model) <= tolerance:
            raise InputError(
                f"--tflite: GAP@20 of the LiteRT model is {self.gap:.6f}, of the SavedModel"
                f" {self.gap_saved_model:.6f}: they differ by more than --tolerance={tolerance:g}; allow more, or leave"
                " --tflite out"
            )

    def line(self) -> str:
        """The report, as people read it."""
        return (
            f"LiteRT: {self.num_bytes:,} bytes, GAP@20 {self.gap:.6f}, of the SavedModel {self.gap_saved_model:.6f};"
            f" scores differ by {self.max_difference:.2e} at most, {self.mean_difference:.2e} on average"
        )


def convert(model: keras.Model, data: DataConfig) -> bytes:
    """Converts a model; the result has the signature `features` of the SavedModel, with any number of rows.

    Weights are rounded to float16 and the arithmetic is float32.

    Args:
      model, data: see `saved_model.export_saved_model`.

    Raises:
      InputError: the model needs operations that LiteRT does not have.
    """
    # Weights of a SavedModel that are decoded at load would be no constants to the converter.
    module = InferenceModule(model, data, Precision(()))
    with tempfile.TemporaryDirectory() as directory, without_stderr():
        tf.saved_model.save(module, directory, signatures={_SIGNATURE: module.signatures()[_SIGNATURE]})
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=[_SIGNATURE])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        failure = None
        try:
            return converter.convert()
        except Exception as error:  # the converter's own class is not public
            failure = error
    reason = _reason(str(failure))
    raise InputError(
        f"--tflite: model '{model.name}' does not convert with LiteRT's built-in operations ({reason}); leave --tflite"
        " out, or export a video-level model without recurrent layers"
    ) from failure


def _reason(message: str) -> str:
    """The operations that a converter's message names, else its last line."""
    found = re.findall(r"'(tf\.\w+)'", message)
    if "tensor list ops" in message:
        found.append("lists of tensors")
    return ", ".join(dict.fromkeys(found)) or message.strip().splitlines()[-1]


def write_lite(
    model: keras.Model, data: DataConfig, saved_model: Path, batches: Iterable[Mapping[str, tf.Tensor]]
) -> LiteReport:
    """Writes `assets.extra/model.tflite` into a SavedModel's directory, and compares the scores of both.

    Args:
      model, data: see `convert`.
      saved_model: the directory.
      batches: see `measure.compare`.

    Raises:
      InputError: the model needs operations that LiteRT does not have; see `measure.compare`.
    """
    content = convert(model, data)
    path = saved_model / LITE_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    features, names = load_features(saved_model)
    runner = Runner(content)

    def lite_scores(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        inputs = [batch[name] for name in names]
        scores = tf.numpy_function(lambda *values: runner(**dict(zip(names, values, strict=True))), inputs, tf.float32)
        return tf.ensure_shape(scores, [None, data.num_classes])

    found: Comparison = compare_scores(lite_scores, features, batches, names)
    return LiteReport(len(content), found.gap, found.gap_float32, found.max_difference, found.mean_difference)


class Runner:
    """Runs the `features` signature of a LiteRT model.

    Args:
      content: the file's.
    """

    def __init__(self, content: bytes):
        with warnings.catch_warnings(), without_stderr():
            warnings.simplefilter("ignore")  # that this class moves to another package
            self._interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
            self._interpreter.allocate_tensors()  # also announces a delegate
            self._signature: Any = self._interpreter.get_signature_runner(_SIGNATURE)

    def __call__(self, **features: np.ndarray) -> np.ndarray:
        """Features of a batch, as the SavedModel's signature takes them -> [B, C] float32 probabilities."""
        return self._signature(**features)["predictions"]
