"""Generates frames with a given mean: scenes, drift and noise around it, as uint8 codes, in NumPy only."""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from yt8m_tf import schema
from yt8m_tf.csv_rows import CsvRows
from yt8m_tf.errors import InputError

# Standard deviations of the variation within a clip, in units of decoded values.
SCENE_STD, DRIFT_STD, NOISE_STD = 0.25, 0.05, 0.08
FULL_LENGTH_SHARE = 0.29  # of clips that have the most frames, because longer videos were cut
SHORT_AUDIO_SHARE = 0.03  # of clips whose audio list is one frame shorter than the rgb one
# Frames stay a little within the interval, so that rounding cannot carry a code out of it.
_ROOM = 0.99
_TINY = 1e-3  # lower bound of a divisor, in codes


@dataclasses.dataclass(frozen=True)
class FrameCounts:
    """Distribution of the number of frames of a clip.

    Without a histogram, the distribution has the shape of the real one, whose `shortest` is 120 and `longest` 300: a
    spike at `longest`, and the rest over the whole range, with about half of its mean density at the upper end.

    Attributes:
      shortest, longest: the range of the counts; those of a histogram outside of it are ignored.
      histogram: path of a CSV file with the columns num_frames,num_videos.

    Raises:
      InputError: `shortest` is not from 1 to `longest`; or the file cannot be read, has other columns or values, or has
        no videos in the range.
    """

    shortest: int
    longest: int
    histogram: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            wanted = f"give 1 to --max_frames, which is {self.longest}"
            raise InputError(f"--min_frames={self.shortest}: {wanted}")
        if self.histogram and not self._table[1].any():
            problem = f"no videos of {self.shortest} to {self.longest} frames; change --min_frames and --max_frames"
            raise InputError(f"--frame_count_histogram={self.histogram}: {problem}")

    def draw(self, num_videos: int, rng: np.random.Generator) -> np.ndarray:
        """Draws the numbers of frames of N videos, [N] int64."""
        if self.histogram:
            counts, videos = self._table
            return rng.choice(counts, num_videos, p=videos / videos.sum(dtype=np.float64))
        uniform, triangular = rng.random((2, num_videos))
        position = np.where(rng.random(num_videos) < 0.5, uniform, 1 - np.sqrt(1 - triangular))  # in [0, 1)
        position[rng.random(num_videos) < FULL_LENGTH_SHARE] = 1.0
        return self.shortest + np.floor(position * (self.longest - self.shortest)).astype(np.int64)

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of frames in the range, and how many videos have each, both [K] int64."""
        try:
            with open(str(self.histogram), newline="", encoding="utf-8-sig") as file:
                rows = [(int(row["num_frames"]), int(row["num_videos"])) for row in CsvRows(file)]
            table = np.array([row for row in rows if self.shortest <= row[0] <= self.longest and row[1] > 0], np.int64)
        except OSError as error:
            raise InputError(f"--frame_count_histogram={self.histogram}: {error.strerror}; name a CSV file") from error
        except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
            wanted = f"give the columns num_frames,num_videos, whole numbers in UTF-8 ({error})"
            raise InputError(f"--frame_count_histogram={self.histogram}: {wanted}") from error
        return table.reshape(-1, 2)[:, 0], table.reshape(-1, 2)[:, 1]


def clip_from_means(
    means: Mapping[str, np.ndarray], num_frames: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Generates the frames of one clip whose decoded features have the given means.

    In a few clips the audio list is one frame shorter, as in real data. Then the frames that both lists have, which are
    those that readers use, have the given mean. The last rgb frame is the rounded mean, so that the whole list has it,
    too.

    Args:
      means: {name: [D]}, values in the interval of the quantisation; see `frames_with_mean`.
      num_frames: T, at least 1.
      rng: source of the variation.

    Returns:
      {name: [T, D] uint8}; audio may have T - 1 frames.
    """
    cuts = _scene_cuts(num_frames, rng)
    short = rng.random() < SHORT_AUDIO_SHARE and num_frames > 1 and "audio" in means and len(means) > 1
    common = num_frames - short
    frames = {name: frames_with_mean(mean, cuts[:common], rng) for name, mean in means.items()}
    if short:
        last = {name: np.round(_codes(means[name])).astype(np.uint8)[None] for name in means if name != "audio"}
        frames |= {name: np.concatenate([frames[name], last[name]]) for name in last}
    return frames


def frames_with_mean(mean: np.ndarray, scenes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Generates frames of one feature whose decoded mean equals `mean` up to half a quantisation step divided by T.

    The variation is centred over time, and shrunk per dimension until all frames are within the interval, so a mean at
    the interval's end gives constant frames. Rounding errors are then diffused along time: the sum of the first t codes
    is the rounded sum of the first t values, for every t.

    Args:
      mean: [D], values in [-1.9921875, 2.0078125].
      scenes: [T] int, the scene of each frame, counted from 0.
      rng: source of the variation.

    Returns:
      [T, D] uint8.

    Raises:
      ValueError: a mean is outside the interval, or NaN.
    """
    target = _codes(mean)  # [D] float64
    if not np.all((target > -1e-3) & (target < 255 + 1e-3)):
        raise ValueError("a mean outside the interval of the quantisation, -1.9921875 to 2.0078125")
    target = np.clip(target, 0, 255)
    variation = _variation(scenes, len(target), rng)  # [T, D]
    down, up = -variation.min(axis=0), variation.max(axis=0)  # [D], not negative
    room = np.minimum(target / np.maximum(down, _TINY), (255 - target) / np.maximum(up, _TINY))
    variation *= np.minimum(room * _ROOM, 1.0).astype(np.float32)
    target -= variation.mean(axis=0, dtype=np.float64)  # the error of float32 in the variation's mean
    frames = np.empty(variation.shape, np.uint8)
    carry = np.full(target.shape, 0.5)  # in [0, 1) between frames
    for frame, deviation in zip(frames, variation, strict=True):  # whole-array temporaries would be slower
        carry += target + deviation
        code = np.floor(carry)
        frame[:] = code
        carry -= code
    return frames


def _codes(values: np.ndarray) -> np.ndarray:
    """Converts decoded values to codes, not rounded, in float64."""
    return (np.asarray(values, np.float64) - schema.QUANTISATION_OFFSET) / schema.QUANTISATION_STEP


def _scene_cuts(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the scene of each frame, [T] int: 2 to 6 scenes, or fewer in a clip of fewer frames."""
    num_scenes = min(int(rng.integers(2, 7)), num_frames)
    starts = 1 + rng.choice(num_frames - 1, num_scenes - 1, replace=False) if num_scenes > 1 else np.zeros(0)
    return np.isin(np.arange(num_frames), starts).cumsum()


def _variation(scenes: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws an offset for each scene, a drift over the clip, and noise; their sum in codes, centred, [T, D] float32."""
    num_frames = len(scenes)
    offsets = rng.standard_normal((scenes[-1] + 1, size), np.float32) * np.float32(SCENE_STD)
    drift = rng.standard_normal(size, np.float32) * np.float32(DRIFT_STD)
    variation = rng.standard_normal((num_frames, size), np.float32)
    variation *= np.float32(NOISE_STD)
    variation += offsets[scenes]
    variation += np.linspace(-1, 1, num_frames, dtype=np.float32)[:, None] * drift
    variation /= np.float32(schema.QUANTISATION_STEP)
    variation -= variation.mean(axis=0, dtype=np.float64).astype(np.float32)
    return variation
