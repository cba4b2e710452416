"""Windows of clips, as records that any model of clips can score."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.errors import InputError

_DTYPES = {"uint8": "u1", "float16": "<f2", "float32": "<f4"}
_DROPPED = (
    schema.LABELS_KEY,
    schema.SEGMENT_STARTS_KEY,
    schema.SEGMENT_ENDS_KEY,
    schema.SEGMENT_CLASSES_KEY,
    schema.SEGMENT_SCORES_KEY,
)


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of frames that are scored together.

    Attributes:
      size: number of frames of a window; a window at the end of a clip may have fewer.
      stride: number of frames between the starts of windows.
      context: number of frames before and after a window that are scored with it, as far as the clip has them, the same
        as in training (`config.segments`).
    """

    size: int = 5
    stride: int = 5
    context: int = 0

    @classmethod
    def parse(cls, text: str, flag: str = "--segments") -> Windows:
        """Parses `SIZE` or `SIZE:STRIDE`; the default stride is the size.

        Raises:
          InputError: the numbers are not integers from 1 to `schema.MAX_FRAMES`.
        """
        words = text.split(":")
        fits = all(word.isascii() and word.isdecimal() and 1 <= int(word) <= schema.MAX_FRAMES for word in words)
        if not fits or len(words) > 2:
            raise InputError(f"{flag}={text}: give SIZE or SIZE:STRIDE, from 1 to {schema.MAX_FRAMES} frames each")
        return cls(int(words[0]), int(words[-1]))

    def starts(self, num_frames: int) -> range:
        """Returns the first frame of each window of a clip."""
        return range(0, num_frames, self.stride)

    @property
    def length(self) -> int:
        """The largest number of frames that are scored together."""
        return self.size + 2 * self.context


@dataclasses.dataclass(frozen=True)
class ClipMean:
    """The mean over the frames of a clip, which its windows have in their context (`FeatureConfig.mean_of`).

    Attributes:
      key: the key of the mean.
      source: the key of the frames.
      feature: storage of the frames.
      max_frames: the number of frames in the mean; later ones are left out.
    """

    key: str
    source: str
    feature: FeatureConfig
    max_frames: int

    def of(self, frames: Sequence[tf.train.Feature]) -> tf.train.Feature:
        """Returns the mean of frames as a Feature of floats."""
        if self.feature.dtype == "float_list":
            values = np.array([own.float_list.value for own in frames[: self.max_frames]], np.float32)
        else:
            stored = b"".join(own.bytes_list.value[0] for own in frames[: self.max_frames])
            values = np.frombuffer(stored, _DTYPES[str(self.feature.dtype)]).reshape(-1, self.feature.size)
        mean = values.astype(np.float32).mean(axis=0)
        if self.feature.dtype == "uint8":
            low, high = self.feature.range or schema.CODE_RANGE
            mean = mean * ((high - low) / 255) + ((high - low) / 512 + low)
        return tf.train.Feature(float_list=tf.train.FloatList(value=mean))


@dataclasses.dataclass(frozen=True)
class CutClip:
    """The windows of a clip.

    Attributes:
      video_id: the id; "" if the record has none.
      num_frames: number of frames of its shortest feature.
      starts: the first frame of each window.
      records: [W] serialized, each with the id of the clip and the frames of a window and its context.
    """

    video_id: bytes
    num_frames: int
    starts: Sequence[int]
    records: Sequence[bytes]


def cut_clip(
    serialized: bytes,
    windows: Windows,
    keys: Collection[str] | None = None,
    id_keys: Sequence[str] = schema.ID_KEYS,
    means: Sequence[ClipMean] = (),
) -> CutClip:
    """Cuts the frames of a record into windows.

    Args:
      serialized: a `tf.train.SequenceExample`.
      windows: sizes of the windows.
      keys: keys of the lists of frames to keep; None: all.
      id_keys: the keys under which its id may be stored.
      means: means of the whole clip for every window; their sources are in `keys`.

    Raises:
      google.protobuf.message.DecodeError: `serialized` is not such a record.
    """
    record = tf.train.SequenceExample.FromString(serialized)
    context, lists = record.context.feature, record.feature_lists.feature_list
    video_id = next((own for key in id_keys for own in context[key].bytes_list.value if own), b"")
    frames = {key: own.feature for key, own in lists.items() if keys is None or key in keys}
    lacking = keys is not None and not set(keys) <= set(frames)
    num_frames = 0 if lacking else min(map(len, frames.values()), default=0)
    shared = {key: own for key, own in context.items() if key not in _DROPPED}
    if num_frames:
        shared |= {own.key: own.of(frames[own.source][:num_frames]) for own in means if own.key not in shared}
    records = []
    for start in windows.starts(num_frames):
        first, stop = max(start - windows.context, 0), min(start + windows.size + windows.context, num_frames)
        window = tf.train.SequenceExample(
            context=tf.train.Features(feature=shared),
            feature_lists=tf.train.FeatureLists(
                feature_list={key: tf.train.FeatureList(feature=own[first:stop]) for key, own in frames.items()}
            ),
        )
        records.append(window.SerializeToString())
    return CutClip(video_id, num_frames, windows.starts(num_frames), records)
