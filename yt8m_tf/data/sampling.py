"""Frame sampling (`SamplingConfig`) for a whole batch of padded clips at once.

The draws of an example depend on the seed and on its place in the batch, not on the other examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from keras import ops

from yt8m_tf import schema
from yt8m_tf.config.frames import SamplingConfig

Features = Mapping[str, tf.Tensor]
Ranges = Mapping[str, Sequence[float]]


def sample(
    features: Features,
    num_frames: tf.Tensor,
    config: SamplingConfig,
    seed: tf.Tensor | None = None,
    ranges: Ranges | None = None,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Keeps some frames of every clip, the same ones for all features.

    Without a seed nothing is random: "crop" takes the middle `max_frames`, "random_frames" evenly spaced ones,
    "every_nth" uses the middle of its range of steps, "random_segments" segments of equal length.

    Args:
      features: feature to [B, T, D], uint8 codes or floats.
      num_frames: [B] int32, at most T. A clip without frames counts as a single frame of padding.
      config: which frames to keep.
      seed: [2] integers, in training.
      ranges: the value ranges of the codes (`InputSpec.ranges`).

    Returns:
      Feature to [B, S, D], with S at most `config.longest(T)`, of the same dtype, or float32 for segment means; values
      after a clip's frames are meaningless. Then the number of frames, [B] int32, at least 1.
    """
    num_frames = tf.maximum(num_frames, 1)
    if config.name == "random_segments":
        return _segment_means(_decoded(features, ranges or {}), num_frames, config, seed)
    given = _decoded(features, ranges or {}) if config.name in ("cosine", "farthest_first") else features
    indices, kept = _SELECTIONS[config.name](given, num_frames, config, seed)  # [B, S], [B]
    indices = tf.minimum(indices, num_frames[:, None] - 1)
    return {name: tf.gather(frames, indices, batch_dims=1) for name, frames in features.items()}, kept


def length_of(frames: tf.Tensor) -> Any:
    """Returns T of [B, T, D]: a number if it is known when the graph is built, otherwise a tensor."""
    return tf.shape(frames)[1] if frames.shape[1] is None else frames.shape[1]


def _crop(features: Features, num_frames: tf.Tensor, config: SamplingConfig, seed: tf.Tensor | None) -> Any:
    longest = length_of(_any(features)[:, : config.max_frames])
    length = tf.minimum(num_frames, config.max_frames)
    start = (num_frames - length) // 2
    if seed is not None:
        length_seed, start_seed = tf.unstack(tf.random.split(seed, 2, alg="philox"))
        drawn = config.min_frames + _draw(length_seed, num_frames, config.max_frames - config.min_frames + 1)
        length = tf.minimum(num_frames, drawn)
        start = _draw(start_seed, num_frames, num_frames - length + 1)
    return start[:, None] + tf.range(longest), length


def _random_frames(features: Features, num_frames: tf.Tensor, config: SamplingConfig, seed: tf.Tensor | None) -> Any:
    upper = tf.repeat(num_frames[:, None], config.count, axis=1)  # [B, count]
    if seed is None:
        indices = (2 * tf.range(config.count) + 1) * upper // (2 * config.count)  # the middles of equal parts
    else:
        indices = tf.sort(_draw(seed, upper, upper), axis=1)
    return indices, tf.fill(tf.shape(num_frames), config.count)


def _every_nth(features: Features, num_frames: tf.Tensor, config: SamplingConfig, seed: tf.Tensor | None) -> Any:
    longest = length_of(_any(features)[:, :: config.min_step])
    step = tf.fill(tf.shape(num_frames), (config.min_step + config.max_step) // 2)  # [B]
    if seed is not None:
        step = config.min_step + _draw(seed, num_frames, config.max_step - config.min_step + 1)
    return step[:, None] * tf.range(longest), -(-num_frames // step)


def _cosine(features: Features, num_frames: tf.Tensor, config: SamplingConfig, seed: tf.Tensor | None) -> Any:
    """Keeps frame 0 and the frames least similar to the one before, by the cosine of the decoded features.

    The features of a frame are concatenated. Ties go to the earlier frame.
    """
    count = length_of(_any(features)[:, : config.count])
    frames = tf.concat(list(features.values()), axis=2)  # [B, T, D]
    products = tf.reduce_sum(frames[:, 1:] * frames[:, :-1], axis=2)  # [B, T - 1]
    norms = tf.norm(frames, axis=2)
    likeness = tf.abs(products) / tf.maximum(norms[:, 1:] * norms[:, :-1], 1e-12)
    number = tf.range(1, length_of(frames))  # of the later frame
    likeness = tf.where(number < num_frames[:, None], likeness, 2.0)  # padding is taken only after all frames
    others = tf.sort(tf.math.top_k(-likeness, count - 1).indices + 1, axis=1)  # [B, count - 1]
    return tf.pad(others, [[0, 0], [1, 0]]), tf.minimum(num_frames, count)


def _farthest_first(features: Features, num_frames: tf.Tensor, config: SamplingConfig, seed: tf.Tensor | None) -> Any:
    """Greedily adds the frame farthest from those chosen, by the Euclidean distance of the decoded features.

    Ties go to the earliest frame. All distances come from one matrix product, so each step reads T of them instead of
    all frames.

    Reference: Gonzalez, "Clustering to minimize the maximum intercluster distance",
    https://doi.org/10.1016/0304-3975(85)90224-5.
    """
    count = length_of(_any(features)[:, : config.count])
    frames = tf.concat(list(features.values()), axis=2)  # [B, T, D]
    products = tf.matmul(frames, frames, transpose_b=True)
    squares = tf.linalg.diag_part(products)  # [B, T]
    distances = tf.maximum(squares[:, :, None] + squares[:, None, :] - 2.0 * products, 0.0)
    number = tf.range(length_of(frames))

    def step(nearest: tf.Tensor) -> tuple[tf.Tensor]:
        # Squared distance to the nearest chosen frame, [B, T]; -1 for the chosen ones themselves, -2 for padding.
        farthest = tf.argmax(nearest, axis=1, output_type=tf.int32)  # [B]
        closer = tf.minimum(nearest, tf.gather(distances, farthest, batch_dims=1))
        return (tf.where(number == farthest[:, None], tf.minimum(nearest, -1.0), closer),)

    real = number < num_frames[:, None]
    start = tf.where(real, tf.where(number > 0, distances[:, 0], -1.0), -2.0)
    (nearest,) = tf.while_loop(lambda _: True, step, (start,), maximum_iterations=count - 1)
    chosen = tf.where(nearest == -1.0, number, length_of(frames))
    return tf.sort(chosen, axis=1)[:, :count], tf.minimum(num_frames, count)


_SELECTIONS: Mapping[str, Callable[..., Any]] = {
    "crop": _crop,
    "random_frames": _random_frames,
    "every_nth": _every_nth,
    "cosine": _cosine,
    "farthest_first": _farthest_first,
}


def _segment_means(
    features: Features, num_frames: tf.Tensor, config: SamplingConfig, seed: tf.Tensor | None
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Averages segments: every way of cutting n frames into S segments of at least one frame is equally likely."""
    length = length_of(_any(features))
    count = length_of(_any(features)[:, : config.count])
    kept = tf.minimum(num_frames, count)
    number = tf.range(length)
    if seed is None:
        segment = number * kept[:, None] // num_frames[:, None]  # [B, T]
    else:
        # A segment begins at each frame with one of the S - 1 highest draws; frames after a clip's end have none.
        # Draws are made frame by frame, so that more padding does not change the draws of the frames before it.
        draws = tf.transpose(_uniform([length - 1, tf.shape(num_frames)[0]], seed))  # [B, T - 1]
        draws = tf.where(number[1:] < num_frames[:, None], draws, -1.0)
        cuts = tf.math.top_k(draws, count - 1).indices + 1  # [B, S - 1]
        segment = tf.reduce_sum(tf.cast(cuts[:, None, :] <= number[:, None], tf.int32), axis=2)  # [B, T]
    segment = tf.where(number < num_frames[:, None], segment, -1)  # padding belongs to no segment
    members = tf.one_hot(segment, count)  # [B, T, S]
    weights = tf.math.divide_no_nan(members, tf.reduce_sum(members, axis=1, keepdims=True))
    means = {
        name: tf.matmul(weights, frames, transpose_a=True)  # [B, S, D]
        for name, frames in features.items()
    }
    return means, kept


def _any(features: Features) -> tf.Tensor:
    return next(iter(features.values()))


def decode(values: Any, limits: Sequence[float] = schema.CODE_RANGE) -> Any:
    """Converts a feature to a model's input, float32: dequantises uint8 codes, casts floats."""
    return schema.dequantise(values, limits) if values.dtype == "uint8" else ops.cast(values, "float32")


def _decoded(features: Features, ranges: Ranges) -> Features:
    return {name: decode(values, ranges.get(name, schema.CODE_RANGE)) for name, values in features.items()}


def _draw(seed: tf.Tensor, like: tf.Tensor, upper: Any) -> tf.Tensor:
    """Draws integers from 0 to `upper` - 1, in the shape of `like`; `upper` may differ for each.

    A draw has 2 ** 24 values: of 303 frames none is more than 0.002 % likelier than another.
    """
    upper = tf.cast(upper, tf.int32)
    draws = _uniform(tf.shape(like), seed) * tf.cast(upper, tf.float32)
    return tf.minimum(tf.cast(draws, tf.int32), upper - 1)


def _uniform(shape: Any, seed: tf.Tensor) -> tf.Tensor:
    """Draws float32 from [0, 1), the same with and without XLA: TensorFlow's own floats differ, its bits do not."""
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24
