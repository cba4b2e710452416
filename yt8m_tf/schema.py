"""What YouTube-8M records hold: feature names and sizes, classes, quantisation.

Letters used in shape comments throughout the project: B batch, T frames, D features, K clusters, C classes,
L the fixed length of a padded list of labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Level = Literal["video", "frame"]

# The 2018 version of the dataset. The 2017 version has 4716 classes and the same features.
FEATURE_SIZES: Mapping[str, int] = {"rgb": 1024, "audio": 128}
NUM_CLASSES = 3862
MAX_FRAMES = 303  # one frame a second; the starter code's models use 300

# Mean number of labels per video: the class prior to start from when no counts are known.
MEAN_LABELS_PER_VIDEO = 3.0

# uint8 code q stands for q * QUANTISATION_STEP + QUANTISATION_OFFSET, from -1.9921875 to 2.0078125: the dataset's own
# formula, where the published solution has q / 64 - 2.
QUANTISATION_STEP = 4.0 / 255.0
QUANTISATION_OFFSET = 4.0 / 512.0 - 2.0

# Padding of a list of labels that is shorter than L.
NO_LABEL = -1


def dequantise(codes: Any) -> Any:
    """Decodes uint8 feature codes.

    Args:
      codes: uint8 tensor or array of any shape. Padding (code 0) decodes to -1.99, not 0: mask after decoding.

    Returns:
      float32 values in [-1.9921875, 2.0078125], of the same shape.
    """
    from keras import ops  # Keras takes seconds to import, and plain facts above need none of it.

    return ops.cast(codes, "float32") * QUANTISATION_STEP + QUANTISATION_OFFSET
