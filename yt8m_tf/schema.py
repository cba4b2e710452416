"""What YouTube-8M records hold: feature names and sizes, classes, quantisation.

Letters used in shape comments throughout the project: B batch, T frames, D features, K clusters, C classes,
L the fixed length of a padded list of labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from yt8m_tf.frames import FramesConfig

Level = Literal["video", "frame"]

# The 2018 version of the dataset. The 2017 version has 4716 classes and the same features.
FEATURE_SIZES: Mapping[str, int] = {"rgb": 1024, "audio": 128}
NUM_CLASSES = 3862
MAX_FRAMES = 303  # one frame a second; the starter code's models use 300

# Mean number of labels per video: the class prior to start from when no counts are known.
MEAN_LABELS_PER_VIDEO = 3.0

# uint8 code q stands for q * QUANTISATION_STEP + QUANTISATION_OFFSET, from -1.9921875 to 2.0078125.
QUANTISATION_STEP = 4.0 / 255.0
QUANTISATION_OFFSET = 4.0 / 512.0 - 2.0

# Padding of a list of labels that is shorter than L.
NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a model reads and predicts; everything a builder needs to know of the data.

    Attributes:
      level: "video" (one vector per feature) or "frame" (a sequence of vectors per feature).
      features: feature name to size D, in the order in which models concatenate them.
      num_classes: C.
      max_frames: the longest sequence, T; longer ones are cut. Meaningless at video level.
      num_tags: what a model predicts beside the classes, V: the verticals that the classes belong to, or nothing.
      frames: what happens to the frames of clips before the model sees them (`data.clips`).
    """

    level: Level = "video"
    features: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(FEATURE_SIZES))
    num_classes: int = NUM_CLASSES
    max_frames: int = MAX_FRAMES
    num_tags: int = 0
    frames: FramesConfig = dataclasses.field(default_factory=FramesConfig)

    @property
    def num_outputs(self) -> int:
        """C + V: the logits of a model, classes first."""
        return self.num_classes + self.num_tags


def dequantise(codes: Any) -> Any:
    """Decodes uint8 feature codes.

    Args:
      codes: uint8 tensor or array of any shape. Padding (code 0) decodes to -1.99, not 0: mask after decoding.

    Returns:
      float32 values in [-1.9921875, 2.0078125], of the same shape.
    """
    from keras import ops  # Keras takes seconds to import, and plain facts above need none of it.

    return ops.cast(codes, "float32") * QUANTISATION_STEP + QUANTISATION_OFFSET


def decode_features(batch: Mapping[str, Any], spec: InputSpec) -> dict[str, Any]:
    """A parsed batch as a model's inputs; runs on the device.

    Args:
      batch: features as they are stored, [B, D] float32, or [B, T, D] uint8 and "num_frames" [B]; frames that are
        float32 were computed (`data.clips`), and stay as they are.
      spec: which features.

    Returns:
      The same names, all float32 but "num_frames".
    """
    if spec.level == "video":
        return {name: batch[name] for name in spec.features}
    frames = {name: batch[name] for name in spec.features}
    decoded = {name: dequantise(codes) if codes.dtype == "uint8" else codes for name, codes in frames.items()}
    return decoded | {"num_frames": batch["num_frames"]}
