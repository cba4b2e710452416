"""The configuration of examples that are rated segments of clips: `data.segments`."""

from __future__ import annotations

import dataclasses

from yt8m_tf.config import checks


@dataclasses.dataclass(frozen=True)
class SegmentsConfig:
    """Examples are the rated segments of clips, each with the ratings of its classes; what was not rated is unknown.

    Attributes:
      size: frames of a segment, from its start on: 5 in YouTube-8M, which has one frame a second.
      context: so many frames before and after it belong to the example, too, as far as the clip has them.
    """

    size: int
    context: int = 0

    def __post_init__(self) -> None:
        checks.positive(self, "size")
        checks.at_least(self, 0, "context")

    @property
    def length(self) -> int:
        """The most frames of an example."""
        return self.size + 2 * self.context
