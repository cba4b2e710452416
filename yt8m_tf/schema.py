"""The schema of records, and that of YouTube-8M: keys, feature names and sizes, classes, quantisation.

Letters used in shape comments throughout the project: B batch, T frames, D features, K clusters, C classes,
L the fixed length of a padded list of labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Level = Literal["video", "frame"]
# How the values of a feature are stored: in bytes, or as a list of floats (`config.features.FeatureConfig`).
Dtype = Literal["uint8", "float16", "float32", "float_list"]
ITEM_BYTES: Mapping[str, int] = {"uint8": 1, "float16": 2, "float32": 4, "float_list": 4}

# 2018 files call the id "id", 2017 files "video_id": a record has one of them.
ID_KEYS = ("id", "video_id")
LABELS_KEY = "labels"
# Ratings of segments: lists of equal length in the context of a clip, with an entry for each rating. They contain the
# second at which the segment starts, the second at which it ends, the class, and 1 for present or 0 for absent.
SEGMENT_STARTS_KEY = "segment_start_times"
SEGMENT_ENDS_KEY = "segment_end_times"
SEGMENT_CLASSES_KEY = "segment_labels"
SEGMENT_SCORES_KEY = "segment_scores"

# The 2018 version of the dataset. The 2017 version has 4716 classes and the same features.
FEATURE_SIZES: Mapping[str, int] = {"rgb": 1024, "audio": 128}
NUM_CLASSES = 3862
MAX_FRAMES = 303  # one frame a second; the starter code's models use 300

# Mean number of labels per video: the class prior to start from when no counts are known.
MEAN_LABELS_PER_VIDEO = 3.0

# uint8 code q of YouTube-8M stands for q * QUANTISATION_STEP + QUANTISATION_OFFSET, from -1.9921875 to 2.0078125. This
# is the dataset's own formula for values in CODE_RANGE; the published solution uses q / 64 - 2.
CODE_RANGE = (-2.0, 2.0)
QUANTISATION_STEP = 4.0 / 255.0
QUANTISATION_OFFSET = 4.0 / 512.0 - 2.0

# Score shards store class ids as uint16.
MAX_STORED_CLASSES = 2**16

# Padding of a list of labels that is shorter than L.
NO_LABEL = -1


def id_keys_of(keys: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the keys under which records may store their id, given `data.keys`; a record has one of them."""
    return (keys["id"],) if "id" in keys else ID_KEYS


def labels_key_of(keys: Mapping[str, str]) -> str:
    """Returns the key under which records store their labels, given `data.keys`."""
    return keys.get("labels", LABELS_KEY)


def dequantise(codes: Any, limits: Sequence[float] = CODE_RANGE) -> Any:
    """Decodes uint8 feature codes: code q stands for q * (b - a) / 255 + (b - a) / 512 + a, with limits a and b.

    Args:
      codes: uint8 tensor or array of any shape. Padding (code 0) decodes to -1.99, not 0: mask after decoding.
      limits: a and b.

    Returns:
      float32 values of the same shape, with YouTube-8M's limits in [-1.9921875, 2.0078125].
    """
    from keras import ops  # Keras takes seconds to import, and the constants above do not need it.

    width = limits[1] - limits[0]
    return ops.cast(codes, "float32") * (width / 255.0) + (width / 512.0 + limits[0])
