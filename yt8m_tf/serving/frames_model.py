"""Wraps SavedModels that take frames, as the starter code exports them for MediaPipe, so that they take records.

https://github.com/google/youtube-8m/blob/master/export_model_mediapipe.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.assertions import require
from yt8m_tf.data.records import parse_records
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.batch_statistics import TOP_K

_FRAMES, _COUNTS, _SCORES = "rgb_and_audio", "num_frames", "predictions"


def takes_frames(signature: Any) -> bool:
    """Returns whether a signature takes frames and the number of frames."""
    return {_FRAMES, _COUNTS} == {*signature.structured_input_signature[1]}


def of_records(signature: Any, where: str, num_classes: int | None) -> tuple[Callable[..., Any], DataConfig]:
    """Wraps a signature that takes frames into one that takes serialized frame-level records.

    Args:
      signature: maps `rgb_and_audio` [B, T, 1152] float32 and `num_frames` [B, 1] int32 to `predictions` [B, C]
        probabilities; B and T may be fixed.
      where: the flag and its value, for messages.
      num_classes: C, for a signature that does not state it.

    Returns:
      A function from `examples` [B] strings to `video_id`, `class_indexes` and the 20 highest `predictions`, and the
      records that it reads. Frames are dequantised, and 0 after a clip's end, as in the starter code.

    Raises:
      InputError: the inputs or outputs have other names, shapes or dtypes.
    """
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    frames, counts = inputs[_FRAMES], inputs[_COUNTS]
    size = sum(schema.FEATURE_SIZES.values())
    # In graphs of TensorFlow 1, shapes may be unknown or partly known.
    if frames.dtype != tf.float32 or not frames.shape.is_compatible_with([None, None, size]):
        raise InputError(f"{where}: {_FRAMES} is {frames.dtype.name} {frames.shape}, not float32 (B, T, {size})")
    if not counts.dtype.is_integer or not counts.shape.is_compatible_with([None, 1]):
        raise InputError(f"{where}: {_COUNTS} is {counts.dtype.name} {counts.shape}, not int32 (B, 1)")
    scores = outputs.get(_SCORES)
    if scores is None or not scores.dtype.is_floating or not scores.shape.is_compatible_with([None, num_classes]):
        found = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in outputs.items())
        raise InputError(f"{where}: gives {found}, not {_SCORES} of (B, {num_classes or 'C'}) probabilities")
    known = scores.shape[-1] if scores.shape.rank else None
    fixed_batch, length = (frames.shape[0], frames.shape[1]) if frames.shape.rank else (None, None)
    data = DataConfig(
        level="frame", num_classes=known or num_classes or schema.NUM_CLASSES, max_frames=length or schema.MAX_FRAMES
    )

    def serve(*, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = parse_records(examples, data.records)
        num_frames = parsed["num_frames"]
        check = require(tf.reduce_all(num_frames > 0), "a clip has no frames")
        codes = tf.concat([parsed[name] for name in schema.FEATURE_SIZES], axis=2)  # [B, T, D]
        real = tf.sequence_mask(num_frames, tf.shape(codes)[1])[:, :, None]
        with tf.control_dependencies([check]):
            values = tf.where(real, schema.dequantise(codes), 0.0)
        given = {_FRAMES: tf.ensure_shape(values, frames.shape), _COUNTS: tf.cast(num_frames[:, None], counts.dtype)}
        found = tf.ensure_shape(signature(**given)[_SCORES], [None, data.num_classes])
        best, classes = tf.math.top_k(tf.cast(found, tf.float32), min(TOP_K, data.num_classes))
        return {"video_id": parsed["id"], "class_indexes": classes, "predictions": best}

    examples = tf.TensorSpec([fixed_batch], tf.string, name="examples")
    return tf.function(serve, autograph=False).get_concrete_function(examples=examples), data
