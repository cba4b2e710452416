"""Encodes features for storage: as floats, or quantised to one-byte codes as in the dataset."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from yt8m_tf.errors import InputError

Dtype = Literal["uint8", "float16", "float32"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
# The range of values that the dataset's codes cover.
_DATASET_RANGE = (-2.0, 2.0)


class EncodingError(ValueError):
    """Error of features that cannot be stored; the message says why in a few words, without the video's name."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Storage format of a feature's frames.

    Attributes:
      dtype: "uint8" for one-byte codes, or floats of 2 or 4 bytes.
      low, high: the values of the codes 0 and 255.
    """

    dtype: Dtype = "uint8"
    low: float = _DATASET_RANGE[0]
    high: float = _DATASET_RANGE[1]

    @classmethod
    def parse(cls, dtype: Dtype, limits: Any, flag: str) -> Storage:
        """Creates a storage format from the texts of the lowest and the highest value.

        Raises:
          InputError: the texts are not two finite numbers in ascending order.
        """
        try:
            low, high = map(float, limits)
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError
        except ValueError as error:
            raise InputError(f"{flag}={','.join(limits)}: must be LOW,HIGH, such as -2,2") from error
        return cls(dtype, low, high)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Encodes values [T, D] as uint8 codes, truncated as in the dataset, or as little-endian floats.

        Decoding adds half a step, so for uniformly distributed values the mean error of truncation is 0; that of
        rounding would not be.

        Raises:
          EncodingError: a value is not finite, or too large for float16.
        """
        if not np.isfinite(values).all():
            raise EncodingError(f"{_count(~np.isfinite(values))} are not finite numbers (NaN or infinite)")
        if self.dtype == "uint8":
            clipped = np.clip(values.astype(np.float64), self.low, self.high)
            return np.floor((clipped - self.low) * 255 / (self.high - self.low)).astype(np.uint8)
        with np.errstate(over="ignore"):
            stored = values.astype("<f2" if self.dtype == "float16" else "<f4")
        if not np.isfinite(stored).all():
            raise EncodingError(f"{_count(~np.isfinite(stored))} are too large for {self.dtype}")
        return stored

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Decodes stored values as a reader does, to float64 of the same shape."""
        if self.dtype != "uint8":
            return stored.astype(np.float64)
        width = self.high - self.low
        return stored.astype(np.float64) * (width / 255) + (width / 512 + self.low)

    def outside(self, values: np.ndarray) -> int:
        """Counts the values outside the range of the codes; 0 for floats."""
        return int(np.sum((values < self.low) | (values > self.high))) if self.dtype == "uint8" else 0

    def config(self, size: int) -> Any:
        """Returns the feature's value in `data.features` of a frame-level configuration."""
        if self.dtype != "uint8":
            return {"size": size, "dtype": self.dtype}
        if (self.low, self.high) == _DATASET_RANGE:
            return size
        return {"size": size, "dtype": "uint8", "range": [self.low, self.high]}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The encoded features of a video.

    Attributes:
      frames: name to [T, D], all of the same T; empty if only means are known.
      means: name to [D] float32, the means over the decoded frames.
      outside: name to the number of values outside the range of the codes.
      num_values: name to the total number of values.
    """

    frames: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]
    outside: Mapping[str, int] = dataclasses.field(default_factory=Counter)
    num_values: Mapping[str, int] = dataclasses.field(default_factory=Counter)

    @property
    def num_frames(self) -> int:
        """T; 0 if only means are known."""
        return len(next(iter(self.frames.values()))) if self.frames else 0


def encode(features: Mapping[str, np.ndarray], sizes: Mapping[str, int], storage: Storage) -> Encoded:
    """Encodes the features of a video.

    Args:
      features: name to floats [T, D], or for all features [D]: one vector each, as in video-level records.
      sizes: name to D, the same for all videos of the dataset.
      storage: storage format of frames.

    Raises:
      EncodingError: the features or sizes differ from `sizes`, there are no frames, numbers of frames differ by more
        than one, or values cannot be stored.
    """
    if features.keys() != sizes.keys():
        raise EncodingError(f"has the features {_listed(features)}, and others have {_listed(sizes)}")
    ranks = {np.ndim(values) for values in features.values()}
    for name, values in features.items():
        if values.dtype.kind not in "fiu":
            raise EncodingError(f"{name} contains {values.dtype}, not numbers")
        if values.ndim not in (1, 2):
            raise EncodingError(f"{name} has the shape {list(values.shape)}, not [frames, {sizes[name]}]")
        if values.shape[-1] != sizes[name]:
            raise EncodingError(f"{name} has {values.shape[-1]} values, and others have {sizes[name]}")
    if len(ranks) > 1:
        raise EncodingError("has frames for some features, but a single vector for others")
    if ranks == {1}:
        whole = Storage("float32")
        means = {name: _named(name, whole, values) for name, values in features.items()}
        return Encoded({}, means)
    lengths = {name: len(values) for name, values in features.items()}
    shortest, longest = min(lengths.values()), max(lengths.values())
    if longest - shortest > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise EncodingError(f"the numbers of frames differ by more than one: {told}")
    if not shortest:
        raise EncodingError("has no frames")
    kept = {name: features[name][:shortest] for name in sizes}
    frames = {name: _named(name, storage, values) for name, values in kept.items()}
    return Encoded(
        frames,
        {name: storage.decode(stored).mean(axis=0).astype(np.float32) for name, stored in frames.items()},
        {name: storage.outside(values) for name, values in kept.items()},
        {name: values.size for name, values in kept.items()},
    )


def _named(name: str, storage: Storage, values: np.ndarray) -> np.ndarray:
    try:
        return storage.encode(values)
    except EncodingError as error:
        raise EncodingError(f"{name}: {error}") from error


def _count(wrong: np.ndarray) -> str:
    return f"{int(wrong.sum()):,} of {wrong.size:,} values"


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
