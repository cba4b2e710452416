"""The configuration of rated segments of clips as examples: `data.segments`."""

from __future__ import annotations

import dataclasses

from yt8m_tf.config import checks


@dataclasses.dataclass(frozen=True)
class SegmentsConfig:
    """Rated segments of clips as examples, each with the ratings of its classes; unrated classes are unknown.

    Attributes:
      size: number of frames of a segment, from its start on: 5 in YouTube-8M, which has one frame a second.
      context: number of frames before and after a segment that the example includes, if the clip has them.
    """

    size: int
    context: int = 0

    def __post_init__(self) -> None:
        checks.positive(self, "size")
        checks.at_least(self, 0, "context")

    @property
    def length(self) -> int:
        """The largest number of frames of an example."""
        return self.size + 2 * self.context
