"""Stores variables of a SavedModel in fewer bytes, and decodes them when it is loaded."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import UninitializedVariable  # no public name

from yt8m_tf.errors import InputError
from yt8m_tf.export import clusters
from yt8m_tf.export.precision import Precision


class Stored(tf.Module):
    """A variable as it is stored, and its float32 values.

    Values smaller than float32 are decoded once, when the SavedModel is loaded, into a variable that is not saved. This
    is done by the initialiser that every loader runs (`_Decoder`). A cast in the graph would be repeated in every call
    (8,000 weights per microsecond).

    Args:
      variable: the variable of the model; it need not have a value.
      values: the values to store.
      precision: the precision rules.

    Attributes:
      num_bytes: size of the stored arrays.

    Raises:
      InputError: a value is not finite, or too large for float16.
    """

    def __init__(self, variable: keras.Variable, values: np.ndarray, precision: Precision):
        super().__init__()
        rule = precision.rule_of(variable)
        self._decoded: tf.Variable | None = None
        if not np.isfinite(values).all():
            wrong = ~np.isfinite(values)
            raise InputError(
                f"variable '{variable.path}': {int(wrong.sum())} of {values.size} weights are not finite, the first is"
                f" {values[wrong].flat[0]}; train the model with finite weights"
            )
        if rule.kind == "cluster":
            found = clusters.cluster(variable.path, values, rule.block)
            stored = {"indices": found.indices, "codebooks": found.codebooks}
            self._keep(variable.path, stored)
            self._decode_at_load(values.shape, _key(variable.path, stored), found.block)
        elif rule.kind == "float16":
            stored = {"values": to_half(variable.path, values)}
            self._keep(variable.path, stored)
            self._decode_at_load(values.shape, _key(variable.path, stored), None)
        else:
            self._keep(variable.path, {"values": values})

    def read(self) -> tf.Tensor:
        """Returns the values, as a graph reads them."""
        return tf.convert_to_tensor(self.stored["values"] if self._decoded is None else self._decoded)

    def _decode_at_load(self, shape: tuple[int, ...], key: str, block: int | None) -> None:
        self._decoded = _Unsaved(trainable=False, dtype=tf.float32, shape=shape, name=key)
        self._decoder = _Decoder(self.stored, self._decoded, key, block)

    def _keep(self, path: str, arrays: dict[str, np.ndarray]) -> None:
        self.num_bytes = sum(array.nbytes for array in arrays.values())
        self.stored = {
            name: tf.Variable(array, trainable=False, name=path if name == "values" else f"{path}/{name}")
            for name, array in arrays.items()
        }


def stored_bytes(variable: keras.Variable, precision: Precision) -> int:
    """Returns the bytes that `Stored` takes for a variable, which need not have a value."""
    rule, size = precision.rule_of(variable), math.prod(variable.shape)
    if rule.kind == "cluster":
        outputs = variable.shape[-1]
        num_codebooks = -(-outputs // min(rule.block or outputs, outputs))
        return size + num_codebooks * clusters.ENTRIES * np.dtype(np.float32).itemsize
    kind = "float16" if rule.kind == "float16" else keras.backend.standardize_dtype(variable.dtype)
    return size * np.dtype(kind).itemsize


class _Unsaved(UninitializedVariable):
    """A variable whose values are not saved, neither for Python's loader nor for that of a session."""

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {}

    def _export_to_saved_model_graph(self, object_map: Any = None, **others: Any) -> Any:
        resources = super()._export_to_saved_model_graph(object_map=object_map, **others)
        object_map[self]._serialize_to_tensors = dict  # for its copy, whose values a session would look for
        return resources


class _Decoder(tf.saved_model.experimental.TrackableResource):
    """Lets every loader of the SavedModel fill a variable that is not saved, as it fills lookup tables.

    Args:
      stored: the arrays to decode.
      decoded: the variable to fill. It is freed with the last object that can read it, which may be a signature: many
        programs keep only that of a loaded model. A separate resource would stay until the process ends.
      key: a name that is unique among the arrays of the model.
      block: see `clusters.decode`; None: only a cast is needed.
    """

    def __init__(self, stored: dict[str, tf.Variable], decoded: tf.Variable, key: str, block: int | None):
        super().__init__()
        self._stored, self._decoded, self._key, self._block = stored, decoded, key, block

    def _create_resource(self) -> Any:
        # Without a resource, `_initialize` would not be run.
        return tf.raw_ops.VarHandleOp(dtype=tf.bool, shape=[], shared_name=self._key)

    def _initialize(self) -> None:
        if self._block is None:
            values = tf.cast(self._stored["values"], tf.float32)
        else:
            values = clusters.decode(self._stored["indices"], self._stored["codebooks"], self._block)
        self._decoded.assign(values)


def to_half(name: str, values: np.ndarray) -> np.ndarray:
    """Rounds to float16.

    Args:
      name: the variable's name, for the message.
      values: float array of any shape.

    Returns:
      float16 array of the same shape. Magnitudes below 6e-8, float16's smallest, become 0.

    Raises:
      InputError: a value is beyond float16's range of +-65504, infinite or NaN.
    """
    values = np.asarray(values, np.float32)
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    wrong = ~np.isfinite(halves)
    if wrong.any():
        first = values[np.unravel_index(np.argmax(wrong), wrong.shape)]
        raise InputError(
            f"variable '{name}': {int(wrong.sum())} of {values.size} values do not fit float16 (-65504 to 65504), the"
            f" first is {first:g}; store it with --precision='{name}:float32,*:float16'"
        )
    return halves


def _key(path: str, arrays: dict[str, np.ndarray]) -> str:
    """Returns a name that depends only on the contents, so that an export can be repeated byte for byte."""
    digest = hashlib.sha256(path.encode())
    for name, array in arrays.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)  # type: ignore[arg-type]  # a buffer to all but the stubs
    return f"decoded/{path}/{digest.hexdigest()}"
