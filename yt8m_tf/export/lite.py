"""Converts the `features` signature to a LiteRT (TensorFlow Lite) model with float16 weights.

Only operations that every LiteRT runtime has are used. All models convert, except those with loops over lists of
tensors, which LiteRT supports only for a fixed batch size: recurrent layers, and time_distributed_dense_sort.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.console.quiet import without_stderr
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import InferenceModule

# In the folder of a SavedModel that loaders ignore.
LITE_FILE = "assets.extra/model.tflite"
_SIGNATURE = "features"


def convert(
    model: keras.Model, data: DataConfig, read: Callable[[keras.Variable], np.ndarray] = keras.ops.convert_to_numpy
) -> bytes:
    """Converts a model; the result has the signature `features` of the SavedModel, with any number of rows.

    Weights are rounded to float16 and the arithmetic is float32.

    Args:
      model, data, read: see `saved_model.write_saved_model`.

    Raises:
      InputError: the model needs operations that LiteRT does not have.
    """
    # Weights that are decoded at loading would not be constants to the converter, hence float32.
    module = InferenceModule(model, data, FLOAT32, read)
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
        " out, or export a model without recurrent layers, such as resnet_like, mean_fcn or nextvlad"
    ) from failure


def _reason(message: str) -> str:
    """Returns the operations that a converter's message names, or else its last line."""
    found = re.findall(r"'(tf\.\w+)'", message)
    if "tensor list ops" in message:
        found.append("lists of tensors")
    return ", ".join(dict.fromkeys(found)) or message.strip().splitlines()[-1]


class Runner:
    """Runs the `features` signature of a LiteRT model.

    Args:
      content: the bytes of a `.tflite` file.
    """

    def __init__(self, content: bytes):
        with warnings.catch_warnings(), without_stderr():
            warnings.simplefilter("ignore")  # it warns that this class will move to another package
            self._interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
            self._interpreter.allocate_tensors()  # also announces a delegate
            self._signature: Any = self._interpreter.get_signature_runner(_SIGNATURE)

    def __call__(self, **features: np.ndarray) -> np.ndarray:
        """Maps the features of a batch, as the SavedModel's signature takes them, to [B, C] float32 probabilities."""
        return self._signature(**features)["predictions"]
