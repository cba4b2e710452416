"""The configuration of one feature of the records: its size, and how its values are stored."""

from __future__ import annotations

import dataclasses
from typing import Literal

from yt8m_tf import schema
from yt8m_tf.config import checks


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """A feature of the records. A plain size, `rgb: 1024`, is short for `rgb: {size: 1024}`.

    Attributes:
      size: D, the number of values in a vector.
      dtype: how a vector is stored: "uint8", D bytes of codes; "float16" or "float32", little-endian bytes;
        "float_list", D floats in a list of floats, as MediaPipe writes them. null: as in YouTube-8M, "float_list" at
        video level and "uint8" at frame level.
      range: [lowest, highest]. For codes, the values of 0 and 255 in YouTube-8M's formula (`schema.dequantise`); null:
        [-2, 2], as in YouTube-8M. For floats, the bounds: a value outside is an error; null: any finite value is valid.
      in_context: for clips: the values are in the context of the record (or in a `tf.train.Example`), not in a list of
        frames. A single vector applies to every frame; several vectors, concatenated, are the frames.
      mean_of: for clips: this feature is the mean of the feature of this name over the whole clip, as floats, repeated
        for every frame. A segment thus gets its clip as a second input. If the record's context has the mean, that is
        used.
    """

    size: int
    dtype: schema.Dtype | None = None
    range: tuple[float, ...] | None = None
    in_context: bool = False
    mean_of: str | None = None

    def __post_init__(self) -> None:
        checks.positive(self, "size")
        if self.range is not None and (len(self.range) != 2 or self.range[0] >= self.range[1]):
            raise ValueError(f"range must be [lowest, highest], got {list(self.range)}")
        if self.mean_of is not None and self.dtype not in (None, "float_list"):
            raise ValueError(f"dtype of a mean is float_list, got {self.dtype}; leave it out")

    @property
    def num_bytes(self) -> int:
        """The stored bytes of a vector; needs a `dtype`."""
        assert self.dtype
        return self.size * schema.ITEM_BYTES[self.dtype]


def completed(feature: int | FeatureConfig, level: Literal["video", "frame"]) -> FeatureConfig:
    """Returns a feature with its dtype and, for codes, its range filled in."""
    given = FeatureConfig(feature) if isinstance(feature, int) else feature
    if given.mean_of is not None:
        return dataclasses.replace(given, dtype="float_list", in_context=True)
    dtype = given.dtype or ("float_list" if level == "video" else "uint8")
    limits = given.range or (schema.CODE_RANGE if dtype == "uint8" else None)
    return dataclasses.replace(given, dtype=dtype, range=limits)
