"""Parses frame-level records in place, by walking their protobuf headers.

`tf.io.parse_sequence_example` copies every frame to a string, about 420 per clip, and decodes each. In the layout that
protobuf's libraries write, a list of n frames of W bytes (D codes or floats) repeats the same few bytes of headers
before each frame. The list is thus an array [n, headers + W], whose last W columns are the frames. Records of another
layout, and faulty records, are left to TensorFlow's parser, which reports the fault.

Reference: https://protobuf.dev/programming-guides/encoding, tensorflow/core/example/{example,feature}.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from yt8m_tf.config.data import RecordsConfig, targets_of
from yt8m_tf.config.features import FeatureConfig
from yt8m_tf.schema import NO_LABEL

# Protobuf tags of length-delimited fields number 1, 2 and 3, and of a varint field number 1.
_FIRST, _SECOND, _THIRD, _NUMBER = 0x0A, 0x12, 0x1A, 0x08
_DTYPES: Mapping[Any, str] = {"uint8": "u1", "float16": "<f2", "float32": "<f4", "float_list": "<f4"}
_ALIGNMENT = 64  # in bytes, of arrays that TensorFlow takes without a copy


class Clip(NamedTuple):
    """A frame-level record: id, labels as stored, and for each feature a view of its frames, bytes [n, W]."""

    id: bytes
    labels: list[int]
    frames: dict[str, np.ndarray]


class ClipParser:
    """Parses the frame-level records of a configuration.

    Args:
      data: description of the records.
      need_labels: whether clips without labels are left to TensorFlow's parser, too.
    """

    def __init__(self, data: RecordsConfig, need_labels: bool):
        self._data, self._targets, self._need_labels = data, targets_of(data), need_labels
        self._stored = data.stored
        self._features = {
            data.key_of(name).encode(): (name, feature.num_bytes, np.frombuffer(_headers(feature), np.uint8))
            for name, feature in self._stored.items()
        }
        self._id_keys, self._labels_key = [key.encode() for key in data.id_keys], data.labels_key.encode()
        self._lengths = np.array(data.padded_lengths)

    def parse(self, record: bytes | memoryview) -> Clip | None:
        """Parses a record; returns None if its layout is not that of protobuf's libraries, or it is incomplete."""
        try:
            return self._parse(record)
        except (IndexError, _OtherLayoutError):
            return None

    def parse_batch(self, serialized: Sequence[bytes | memoryview]) -> dict[str, np.ndarray] | None:
        """Parses records [B] to the arrays of `records.parse_records`; returns None if one has to be parsed there.

        This includes records with values that are out of range or not finite.
        """
        clips = [self.parse(record) for record in serialized]
        if not all(clips):
            return None
        found = [clip for clip in clips if clip]
        lengths = np.array([[len(frames) for frames in clip.frames.values()] for clip in found])  # [B, features]
        most = self._data.max_frame_difference
        if most is not None and (lengths.max(axis=1) - lengths.min(axis=1) > most).any():
            return None
        counts = np.minimum(lengths.min(axis=1), self._data.max_frames)
        length = int(self._lengths[np.searchsorted(self._lengths, counts.max())])
        batch = {"id": np.array([clip.id for clip in found], object), "num_frames": counts.astype(np.int32)}
        for name, feature in self._stored.items():
            if not all(_in_range(clip.frames[name], feature) for clip in found):
                return None
            padded = _aligned((len(found), length, feature.num_bytes))
            for row, (clip, count) in enumerate(zip(found, counts, strict=True)):
                padded[row, :count] = clip.frames[name][:count]
                padded[row, count:] = 0
            batch[name] = padded.view(_DTYPES[feature.dtype])
        if self._targets:
            labels = self._labels(found)
            if labels is None:
                return None
            batch["labels"] = labels
        return batch

    def _labels(self, clips: Sequence[Clip]) -> np.ndarray | None:
        assert self._targets
        padded = np.full((len(clips), self._targets.max_labels), NO_LABEL, np.int32)
        for row, clip in enumerate(clips):
            distinct = list(dict.fromkeys(clip.labels))
            if self._need_labels and not distinct:
                return None
            if len(distinct) > padded.shape[1] or any(label >= self._targets.num_classes for label in distinct):
                return None
            padded[row, : len(distinct)] = distinct
        return padded

    def _parse(self, record: bytes | memoryview) -> Clip:
        fields: dict[int, tuple[int, int]] = {}
        position, end = 0, len(record)
        while position < end:
            tag = record[position]
            start, position = _piece(record, position + 1, end)
            if tag in fields:  # protobuf merges repeated fields
                raise _OtherLayoutError
            fields[tag] = start, position
        if fields.keys() != {_FIRST, _SECOND}:
            raise _OtherLayoutError
        ids, labels = self._context(record, *fields[_FIRST])
        frames: dict[str, np.ndarray] = {}
        for key, start, stop in _entries(record, *fields[_SECOND]):
            if key not in self._features:
                continue
            name, num_bytes, headers = self._features[key]
            width = len(headers) + num_bytes
            count, rest = divmod(stop - start, width)
            if rest or not count or name in frames:
                raise _OtherLayoutError
            rows = np.frombuffer(record, np.uint8, stop - start, start).reshape(count, width)
            if not (rows[:, : len(headers)] == headers).all():
                raise _OtherLayoutError
            frames[name] = rows[:, len(headers) :]
        video_id = next((ids[key] for key in self._id_keys if ids.get(key)), None)
        if not video_id or len(frames) < len(self._features):
            raise _OtherLayoutError
        return Clip(video_id, labels or [], frames)

    def _context(self, record: bytes | memoryview, start: int, end: int) -> tuple[dict[bytes, bytes], list[int] | None]:
        ids: dict[bytes, bytes] = {}
        labels: list[int] | None = None
        for key, first, stop in _entries(record, start, end):
            if key in self._id_keys:
                if key in ids:
                    raise _OtherLayoutError
                ids[key] = _only_bytes(record, first, stop)
            elif key == self._labels_key and self._targets:
                if labels is not None:
                    raise _OtherLayoutError
                labels = _numbers(record, first, stop)
        return ids, labels


class _OtherLayoutError(Exception):
    """A record does not have the layout that protobuf's libraries write."""


def _in_range(frames: np.ndarray, feature: FeatureConfig) -> bool:
    """Returns whether the floats of frames [n, W] are all finite and, if the feature has a range, within it."""
    if feature.dtype == "uint8":
        return True
    values = frames.view(_DTYPES[feature.dtype])  # [n, D]
    if feature.range is None:
        return bool(np.isfinite(values).all())
    low, high = np.array(feature.range, values.dtype)
    return bool(((values >= low) & (values <= high)).all())


def _headers(feature: FeatureConfig) -> bytes:
    """Returns the bytes before each frame: headers of its Feature, its BytesList or FloatList, and its value."""
    headers = b""
    for tag in (_FIRST, _SECOND if feature.dtype == "float_list" else _FIRST, _FIRST):
        headers = bytes([tag]) + _varint(len(headers) + feature.num_bytes) + headers
    return headers


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _read_varint(record: bytes | memoryview, position: int) -> tuple[int, int]:
    """Reads the varint at a position, below 2 ** 35; returns it and the position after it."""
    byte = record[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while shift < 35:
        position += 1
        byte = record[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise _OtherLayoutError


def _piece(record: bytes | memoryview, position: int, end: int) -> tuple[int, int]:
    """Returns the start and end of a length-delimited value."""
    length, start = _read_varint(record, position)
    if start + length > end:
        raise _OtherLayoutError
    return start, start + length


def _entries(record: bytes | memoryview, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the entries of a map from strings to messages: each key, and the start and end of its value."""
    while position < end:
        if record[position] != _FIRST:
            raise _OtherLayoutError
        start, position = _piece(record, position + 1, end)
        if record[start] != _FIRST:
            raise _OtherLayoutError
        key_start, key_stop = _piece(record, start + 1, position)
        if key_stop == position or record[key_stop] != _SECOND:
            raise _OtherLayoutError
        first, stop = _piece(record, key_stop + 1, position)
        if stop != position:
            raise _OtherLayoutError
        yield bytes(record[key_start:key_stop]), first, stop


def _only_bytes(record: bytes | memoryview, start: int, end: int) -> bytes:
    """Returns the value of a Feature with a single bytes value."""
    for _ in range(2):  # the BytesList, and the value in it
        if start == end or record[start] != _FIRST:
            raise _OtherLayoutError
        start, stop = _piece(record, start + 1, end)
        if stop != end:
            raise _OtherLayoutError
    return bytes(record[start:end])


def _numbers(record: bytes | memoryview, start: int, end: int) -> list[int]:
    """Returns the values of a Feature of non-negative integers, packed or not."""
    if start == end or record[start] != _THIRD:
        raise _OtherLayoutError
    start, stop = _piece(record, start + 1, end)
    if stop != end:
        raise _OtherLayoutError
    is_packed, values = start < end and record[start] == _FIRST, []
    if is_packed:
        start, stop = _piece(record, start + 1, end)
        if stop != end:  # TensorFlow's parser reads the first of several packed lists, other parsers read all
            raise _OtherLayoutError
    while start < end:
        if not is_packed and record[start] != _NUMBER:
            raise _OtherLayoutError
        value, start = _read_varint(record, start + (not is_packed))
        values.append(value)
    if start != end:
        raise _OtherLayoutError
    return values


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Allocates a uint8 array that TensorFlow can take without a copy."""
    size = int(np.prod(shape))
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % _ALIGNMENT
    return memory[offset : offset + size].reshape(shape)
