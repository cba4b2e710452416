"""Statistics of features over the real frames of a clip.

The functions map frames [B, T, D] and a mask [B, T], True for real frames, to [B, D]. T is arbitrary, and padding must
be finite. For a clip without frames their results are undefined, but `frame_statistics` returns zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from yt8m_tf.layers.masking import masked_max, masked_mean
from yt8m_tf.layers.numerics import square_root

Shape = tuple[int | None, ...]
Statistic = Literal["mean", "std", "min", "max", "median", "mode"]


def masked_std(frames: Any, frame_mask: Any) -> Any:
    """Computes the population standard deviation over real frames; 0 for a single frame, with gradient 0.

    The published code computes the sample standard deviation, which is not defined for a single frame.

    The mean is subtracted before squaring: E[x^2] - E[x]^2 would lose digits by cancellation. XLA fuses the
    subtraction, the square and the sum, and so makes no centred copy of the frames.
    """
    real = ops.cast(frame_mask, frames.dtype)  # [B, T]
    deviations = frames - masked_mean(frames, frame_mask)[:, None]  # [B, T, D]
    squares = ops.sum(ops.square(deviations) * real[:, :, None], axis=1)
    return square_root(squares / ops.maximum(ops.sum(real, axis=1), 1)[:, None])


def masked_min(frames: Any, frame_mask: Any) -> Any:
    """Returns the smallest value over real frames."""
    return -masked_max(-frames, frame_mask)


def sort_frames(frames: Any, frame_mask: Any) -> Any:
    """Sorts the values of each feature, [B, T, D]: those of real frames in ascending order, then infinities.

    Sorting costs far more than the rest of this module (docs/BENCHMARKS.md).
    """
    return ops.sort(ops.where(frame_mask[:, :, None], frames, np.inf), axis=1)


def median(ordered: Any, num_frames: Any) -> Any:
    """Returns the median; for an even number of values, the mean of the two middle ones, as in NumPy.

    PyTorch takes the lower of the two.

    Args:
      ordered: [B, T, D], from `sort_frames`.
      num_frames: [B] int32, at least 1.
    """
    middles = ops.stack([(num_frames - 1) // 2, num_frames // 2], axis=1)  # [B, 2]
    middles = ops.maximum(middles, 0)  # -1 where there are no frames
    return ops.mean(ops.take_along_axis(ordered, middles[:, :, None], axis=1), axis=1)


def mode(ordered: Any, num_frames: Any) -> Any:
    """Returns the most frequent value, and the smallest of equally frequent ones. Arguments as in `median`.

    Frames are quantized to 256 values, so equal values are common. If all values differ, as after mixup, the mode is
    the minimum. A loop of T steps on [B, D] finds the longest run of equal values in sorted order.
    """
    values = ops.stop_gradient(ordered)

    def advance(t: Any, state: Any) -> Any:
        run, longest, position = state
        repeats = ops.take(values, t, axis=1) == ops.take(values, ops.maximum(t - 1, 0), axis=1)  # [B, D]
        run = ops.where(repeats, run + 1, 1)
        longer = (run > longest) & (t < num_frames)[:, None]
        return run, ops.where(longer, run, longest), ops.where(longer, t, position)

    zeros = ops.zeros_like(values[:, 0], dtype="int32")
    position = ops.fori_loop(0, ops.shape(values)[1], advance, (zeros, zeros, zeros))[2]
    return ops.take_along_axis(ordered, position[:, None], axis=1)[:, 0]


_OF_FRAMES = {"mean": masked_mean, "std": masked_std, "min": masked_min, "max": masked_max}
_OF_SORTED = {"median": median, "mode": mode}


def frame_statistics(frames: Any, frame_mask: Any, statistics: Sequence[str]) -> Any:
    """Computes several statistics and concatenates them.

    Args:
      frames: [B, T, D] float, any T; padding must be finite, too.
      frame_mask: [B, T] bool, False for padding.
      statistics: names, in the order of the output; "median" and "mode" share one sort.

    Returns:
      [B, S * D] for S statistics; zeros for a clip without frames.
    """
    num_frames = ops.sum(ops.cast(frame_mask, "int32"), axis=1)  # [B]
    ordered = sort_frames(frames, frame_mask) if set(statistics) & set(_OF_SORTED) else None
    results = [
        _OF_FRAMES[name](frames, frame_mask) if name in _OF_FRAMES else _OF_SORTED[name](ordered, num_frames)
        for name in statistics
    ]
    return ops.where(num_frames[:, None] > 0, ops.concatenate(results, axis=-1), 0.0)


@keras.saving.register_keras_serializable(package="yt8m_tf")
class FrameStatistics(keras.layers.Layer):
    """`frame_statistics` as a layer, always in float32: [B, T, D] and a mask [B, T] to [B, S * D].

    Args:
      statistics: names from mean, std, min, max, median, mode.
      dtype: float32 by default, even with mixed precision: 16-bit sums over 300 frames would lose most digits.
      **kwargs: arguments of every layer: name, trainable.
    """

    def __init__(self, statistics: tuple[str, ...], *, dtype: str = "float32", **kwargs: Any) -> None:
        for name in statistics:
            if name not in get_args(Statistic):
                known = ", ".join(get_args(Statistic))
                raise ValueError(f"FrameStatistics: statistics must be names out of {known}, got '{name}'")
        super().__init__(dtype=dtype, **kwargs)
        self.statistics = statistics

    def call(self, frames: Any, frame_mask: Any) -> Any:
        """Returns [B, S * D]; arguments as in `frame_statistics`."""
        return frame_statistics(frames, frame_mask, self.statistics)

    def compute_output_shape(self, frames_shape: Shape, frame_mask_shape: Shape) -> Shape:
        """[B, S * D]."""
        size = frames_shape[2]
        assert size is not None
        return (frames_shape[0], len(self.statistics) * size)
