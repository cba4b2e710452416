"""The configuration of what happens to the frames of a clip before a model sees them: `data.frames`.

`data.sampling` and `data.preprocessing` do it. The published code, which uses none of it, differs in details
(docs/MODELS.md, "Departures from the published code").
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from yt8m_tf.config import checks

When = Literal["training", "always"]


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Frame sampling of a clip; options that `name` does not use change nothing.

    Attributes:
      name: "none"; "crop", `min_frames` to `max_frames` frames in a row; "random_frames", `count` frames drawn with
        replacement, in their order; "every_nth", every n-th frame, n from `min_step` to `max_step`; "random_segments",
        the clip cut at random into `count` segments, each replaced with its mean; "cosine", the first frame and the
        `count` - 1 frames that resemble the one before them least; "farthest_first", `count` frames from the first on,
        each the farthest from those chosen before.
      when: "training" alone, or "always": in evaluation and in the exported model, too, where whatever is random in
        training has a fixed counterpart (`data.sampling`).
      count: frames to keep, at least 1. Clips of fewer frames are kept whole ("random_frames" repeats theirs).
      min_frames, max_frames: of a crop, from 1. Shorter clips are kept whole.
      min_step, max_step: from 1.
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
        """The most frames that are left of a clip of `num_frames`."""
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
    """Deterministic preprocessing of the sampled frames. A clip is one matrix, T x D.

    All features of a frame make up its row. Options that `name` does not use change nothing.

    Attributes:
      name: "none"; "singular_vectors", its first `count` right singular vectors; "moving_average", it minus its mean
        over the `window` frames around each; "high_pass", its Daubechies-3 detail coefficients along time, half as many
        as frames; "robust_pca", the `part` of its sum of a low-rank and a sparse matrix after `iterations`.
      when: "training" alone, or "always": in evaluation and in the exported model, too.
      count: at least 1.
      window: in frames, at least 2.
      iterations: at least 1.
      part: "low_rank" or "sparse".
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
        """The most frames that are left of a clip of `num_frames`."""
        match self.name:
            case "singular_vectors":
                return min(num_frames, self.count)
            case "high_pass":
                return (num_frames + 5) // 2
            case _:
                return num_frames


@dataclasses.dataclass(frozen=True)
class FramesConfig:
    """Sampling, and after it preprocessing, of the frames of a clip. Mixup comes after both."""

    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    preprocessing: PreprocessingConfig = dataclasses.field(default_factory=PreprocessingConfig)

    def steps(self, training: bool) -> tuple[SamplingConfig | PreprocessingConfig, ...]:
        """Returns the steps that run in training or, with `training` False, in evaluation."""
        parts = (self.sampling, self.preprocessing)
        return tuple(part for part in parts if part.name != "none" and (training or part.when == "always"))

    def longest(self, num_frames: int) -> int:
        """The most frames that a model is given of a clip of `num_frames`, in training or in evaluation."""
        lengths = []
        for training in (True, False):
            length = num_frames
            for part in self.steps(training):
                length = part.longest(length)
            lengths.append(length)
        return max(lengths)
