"""Transforms clips between reading and the model: frame sampling, then preprocessing.

On the device, before the compiled part of a step. In the input pipeline it is no faster, and beside an accelerator the
host has the parsing to do. Outside of XLA, whose eigenvalues are slow on a CPU (docs/BENCHMARKS.md).
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
    """A parsed batch as a model's inputs, in evaluation: `prepare_clips`, then `decode_features`."""
    return decode_features(prepare_clips(batch, spec), spec)


def with_frames(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A parsed batch of clips, each of which has frames, or else the graph fails: records of other kinds have none."""
    check = require(tf.reduce_all(batch["num_frames"] > 0), "a clip has no frames")
    with tf.control_dependencies([check]):
        return {**batch, "num_frames": tf.identity(batch["num_frames"])}


def prepare_clips(
    batch: Mapping[str, tf.Tensor], spec: InputSpec, seed: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """A parsed batch as `spec.frames` wants it; `decode_features` comes after.

    Args:
      batch: features as they are stored and, of clips, "num_frames" [B] int32; anything else beside them.
      spec: features, and what to do with frames.
      seed: [2] integers, in training. Without one, only what is to be done `always` is done, and nothing is random.

    Returns:
      The batch with other frames: [B, S, D] as they are stored, or float32 where they are computed, S at most
      `spec.frames.longest(T)`; "num_frames" [B] int32, at least 1. Unchanged where there is nothing to do.
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
    """A parsed batch as a model's inputs; runs on the device.

    Args:
      batch: features as they are stored, [B, D] or [B, T, D], and of clips "num_frames" [B]: uint8 codes, float16, or
        float32, which frames that were computed are, too (`prepare_clips`).
      spec: which features, and what their codes stand for.

    Returns:
      The same names, all float32 but "num_frames".
    """
    decoded = {name: decode(batch[name], spec.ranges.get(name, schema.CODE_RANGE)) for name in spec.features}
    return decoded if spec.level == "video" else decoded | {"num_frames": batch["num_frames"]}
