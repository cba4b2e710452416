"""Transforms clips between reading and the model: frame sampling, then preprocessing.

This runs on the device, before the compiled part of a step. In the input pipeline it would be no faster, and with an
accelerator the host is busy parsing. It stays outside XLA, whose eigenvalues are slow on a CPU (docs/BENCHMARKS.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.frames import SamplingConfig
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.data.assertions import require
from yt8m_tf.data.preprocessing import preprocess
from yt8m_tf.data.sampling import decode, sample


def model_inputs(batch: Mapping[str, tf.Tensor], spec: InputSpec) -> dict[str, tf.Tensor]:
    """Converts a parsed batch to model inputs, in evaluation: `prepare_clips`, then `decode_features`."""
    return decode_features(prepare_clips(batch, spec), spec)


def with_frames(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Makes the graph fail if a clip of a parsed batch has no frames; a record of another kind has none."""
    check = require(tf.reduce_all(batch["num_frames"] > 0), "a clip has no frames")
    with tf.control_dependencies([check]):
        return {**batch, "num_frames": tf.identity(batch["num_frames"])}


def prepare_clips(
    batch: Mapping[str, tf.Tensor], spec: InputSpec, seed: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """Applies `spec.frames` to a parsed batch; `decode_features` comes after.

    Args:
      batch: features as stored and, for clips, "num_frames" [B] int32; other entries pass through.
      spec: the features, and what to do with frames.
      seed: [2] integers, in training. Without a seed, only the steps with `when: always` run, and nothing is random.

    Returns:
      The batch with new frames: [B, S, D] as stored, or float32 if computed, with S at most `spec.frames.longest(T)`;
      "num_frames" [B] int32, at least 1. Unchanged if there is nothing to do.
    """
    prepared = dict(batch)
    for step in spec.frames.steps(training=seed is not None):
        num_frames = prepared["num_frames"]
        if isinstance(step, SamplingConfig):
            stored = {name: prepared[name] for name in spec.features}
            features, num_frames = sample(stored, num_frames, step, seed, spec.ranges)
        else:
            decoded = decode_features(prepared, spec)
            features, num_frames = preprocess({name: decoded[name] for name in spec.features}, num_frames, step)
        prepared |= features | {"num_frames": num_frames}
    return prepared


def decode_features(batch: Mapping[str, Any], spec: InputSpec) -> dict[str, Any]:
    """Decodes a parsed batch to model inputs, on the device.

    Args:
      batch: features [B, D] or [B, T, D] as stored (uint8 codes, float16 or float32) or as computed by `prepare_clips`
        (float32), and for clips "num_frames" [B].
      spec: which features, and the value ranges of their codes.

    Returns:
      The same names; all float32 except "num_frames".
    """
    decoded = {name: decode(batch[name], spec.ranges.get(name, schema.CODE_RANGE)) for name in spec.features}
    return decoded if spec.level == "video" else decoded | {"num_frames": batch["num_frames"]}
