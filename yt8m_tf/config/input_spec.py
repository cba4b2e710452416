"""The input specification of models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from yt8m_tf import schema
from yt8m_tf.config.frames import FramesConfig


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Input specification of a model: the properties of the data that its builder needs.

    Attributes:
      level: "video" (one vector per feature) or "frame" (a sequence of vectors per feature).
      features: feature name to size D, in the order in which models concatenate them.
      num_classes: C.
      max_frames: T, the length to which longer sequences are truncated. Not used at video level.
      num_tags: V, the number of verticals that a model predicts in addition to the classes; 0 for none.
      frames: sampling and preprocessing of the frames of clips (`data.clips`).
      ranges: feature name to the [lowest, highest] value of its uint8 codes, for features whose range is not
        `schema.CODE_RANGE`.

    Example:
      >>> import yt8m_tf
      >>> yt8m_tf.InputSpec().features  # those of YouTube-8M's 2018 version, at video level
      {'rgb': 1024, 'audio': 128}
      >>> yt8m_tf.InputSpec(level="frame", features={"rgb": 1024}, num_classes=4716).max_frames
      303
    """

    level: schema.Level = "video"
    features: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(schema.FEATURE_SIZES))
    num_classes: int = schema.NUM_CLASSES
    max_frames: int = schema.MAX_FRAMES
    num_tags: int = 0
    frames: FramesConfig = dataclasses.field(default_factory=FramesConfig)
    ranges: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    @property
    def num_outputs(self) -> int:
        """C + V: the number of a model's logits, classes first."""
        return self.num_classes + self.num_tags
