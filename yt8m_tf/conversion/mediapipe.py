"""Reads MediaPipe's feature files: one serialized `tf.train.SequenceExample` each, without TFRecord framing.

Frames are lists of floats under `RGB/feature/floats` and `AUDIO/feature/floats`; every list `X/feature/floats` is the
feature x. Times (`X/feature/timestamp`, in microseconds) are not needed: frames of the same number belong together, as
in the dataset.

Source: https://github.com/google-ai-edge/mediapipe, mediapipe/examples/desktop/youtube8m/README.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yt8m_tf.conversion.videos import Chunk, Problem, Video

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (".pb",)
_FLOATS = re.compile(r"(.+)/feature/floats")
_ID_KEYS = ("id", "video_id")
_USUAL_NAME = "features"
_FILES = 32  # files in a chunk


def chunks(paths: Sequence[str]) -> list[Chunk]:
    """Returns feature files in chunks."""
    groups = [paths[first : first + _FILES] for first in range(0, len(paths), _FILES)]
    return [Chunk(group, num_videos=len(group)) for group in groups]


@dataclasses.dataclass(frozen=True)
class MediaPipeReader:
    """Reads feature files. A video's id is in its file; if not, it is the name of the file, or of the folder.

    The name of the folder is used for files called `features.pb`.

    Attributes:
      wanted: names of the features to read; None: all.
    """

    wanted: Sequence[str] | None = None

    def read(self, chunk: Chunk) -> Iterator[Video | Problem]:
        """See `videos.Reader`."""
        from yt8m_tf.data.record_check import parse_record

        for path in chunk.paths:
            video_id = _id_of(Path(path))
            try:
                record = parse_record(Path(path).read_bytes())
            except OSError as error:
                yield Problem(path, video_id, f"cannot be read: {error.strerror}")
                continue
            if record is None:
                yield Problem(path, video_id, "not a serialized tf.train.SequenceExample")
                continue
            given = (record.context.feature[key] for key in _ID_KEYS if key in record.context.feature)
            ids = [feature.bytes_list.value[0] for feature in given if feature.bytes_list.value]
            video_id = ids[0].decode("utf-8", "backslashreplace") if ids else video_id
            try:
                yield Video(path, video_id, self._features(record))
            except ValueError as error:
                yield Problem(path, video_id, str(error))

    def _features(self, record: tf.train.SequenceExample) -> dict[str, np.ndarray]:
        features = {}
        for key, frames in record.feature_lists.feature_list.items():
            match = _FLOATS.fullmatch(key)
            name = match[1].rpartition("/")[2].lower() if match else ""
            if not match or (self.wanted is not None and name not in self.wanted):
                continue
            if name in features:
                raise ValueError(f"has two lists of {name}")
            rows = [frame.float_list.value for frame in frames.feature]
            if len({len(row) for row in rows}) > 1:
                raise ValueError(f"'{key}' has frames of different sizes")
            features[name] = np.array(rows, np.float32).reshape(len(rows), -1 if rows else 0)
        if not features:
            there = ", ".join(sorted(record.feature_lists.feature_list)) or "no lists of frames"
            raise ValueError(f"has no list of floats such as 'RGB/feature/floats'; it has: {there}")
        return features


def _id_of(path: Path) -> str:
    return path.absolute().parent.name if path.stem == _USUAL_NAME else path.stem
