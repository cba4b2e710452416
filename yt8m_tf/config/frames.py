"""The configuration of frame sampling and preprocessing: `data.frames`.

The modules `data.sampling` and `data.preprocessing` implement them. The published code has them too, with differences
(docs/MODELS.md, "Departures from the published code"), but does not use them.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from yt8m_tf.config import checks

When = Literal["training", "always"]


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Frame sampling of a clip; options that `name` does not use have no effect.

    Attributes:
      name: "none"; "crop", `min_frames` to `max_frames` frames in a row; "random_frames", `count` frames drawn with
        replacement, in their order; "every_nth", every n-th frame, n from `min_step` to `max_step`; "random_segments",
        the clip cut at random into `count` segments, each replaced with its mean; "cosine", the first frame and the
        `count` - 1 frames that differ most from the frame before them; "farthest_first", the first frame and then
        `count` - 1 times the frame that is farthest from those chosen before.
      when: "training" only, or "always", that is, in evaluation and in the exported model, too, where random choices
        have deterministic counterparts (`data.sampling`).
      count: frames to keep, at least 1. Clips with fewer frames are kept whole ("random_frames" repeats frames).
      min_frames, max_frames: length of a crop, at least 1. Shorter clips are kept whole.
      min_step, max_step: range of n of "every_nth", at least 1.
    """

    name: Literal["none", "crop", "random_frames", "every_nth", "random_segments", "cosine", "farthest_first"] = "none"
    when: When = "training"
    count: int = 30
    min_frames: int = 100
    max_frames: int = 200
    min_step: int = 1
    max_step: int = 5

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "count", "min_frames", "min_step")
        for least, most in (("min_frames", "max_frames"), ("min_step", "max_step")):
            if getattr(self, most) < getattr(self, least):
                raise ValueError(
                    f"{most} must not be below {least}, got {getattr(self, most)} and {getattr(self, least)}"
                )

    def longest(self, num_frames: int) -> int:
        """Returns the largest number of frames that are left of a clip of `num_frames`."""
        match self.name:
            case "none":
                return num_frames
            case "crop":
                return min(num_frames, self.max_frames)
            case "random_frames":
                return self.count
            case "every_nth":
                return -(-num_frames // self.min_step)
            case _:
                return min(num_frames, self.count)


@dataclasses.dataclass(frozen=True)
class PreprocessingConfig:
    """Deterministic preprocessing of the sampled frames of a clip, taken as a matrix of shape T x D.

    A row is the concatenation of a frame's features. Options that `name` does not use have no effect.

    Attributes:
      name: "none"; "singular_vectors", the first `count` right singular vectors of the matrix; "moving_average", each
        frame minus the mean of the `window` frames around it; "high_pass", Daubechies-3 detail coefficients along time,
        half as many as frames; "robust_pca", the low-rank or sparse `part` of the matrix after `iterations`.
      when: "training" only, or "always", that is, in evaluation and in the exported model, too.
      count: the most singular vectors to keep, at least 1.
      window: length of the moving average in frames, at least 2.
      iterations: number of iterations of "robust_pca", at least 1.
      part: the part that "robust_pca" keeps, "low_rank" or "sparse".
    """

    name: Literal["none", "singular_vectors", "moving_average", "high_pass", "robust_pca"] = "none"
    when: When = "always"
    count: int = 10
    window: int = 10
    iterations: int = 10
    part: Literal["low_rank", "sparse"] = "low_rank"

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "count", "iterations")
        checks.at_least(self, 2, "window")

    def longest(self, num_frames: int) -> int:
        """Returns the largest number of frames that are left of a clip of `num_frames`."""
        match self.name:
            case "singular_vectors":
                return min(num_frames, self.count)
            case "high_pass":
                return (num_frames + 5) // 2
            case _:
                return num_frames


@dataclasses.dataclass(frozen=True)
class FramesConfig:
    """Sampling of the frames of a clip, then preprocessing. Mixup comes after both."""

    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    preprocessing: PreprocessingConfig = dataclasses.field(default_factory=PreprocessingConfig)

    def steps(self, training: bool) -> tuple[SamplingConfig | PreprocessingConfig, ...]:
        """Returns the steps that run in training or, with `training` False, in evaluation."""
        parts = (self.sampling, self.preprocessing)
        return tuple(part for part in parts if part.name != "none" and (training or part.when == "always"))

    def longest(self, num_frames: int) -> int:
        """Returns the most frames that a model gets, in training or evaluation, of a clip of `num_frames`."""
        lengths = []
        for training in (True, False):
            length = num_frames
            for part in self.steps(training):
                length = part.longest(length)
            lengths.append(length)
        return max(lengths)
