"""Extracts the features of one video file, [T, D] each, with notes about problems."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from yt8m_tf.extraction.backbones import Backbones, Recipe
from yt8m_tf.extraction.decoding import SAMPLE_RATE, DecodingError, VideoFile

_T = TypeVar("_T")
_BATCH = 32  # pictures, or seconds of sound, per call of a backbone


@dataclasses.dataclass(frozen=True)
class VideoFeatures:
    """The features of a video.

    Attributes:
      frames: name of a feature to [T, D] float32, one row for each second; all have the same T of at least 1.
      seconds: the length that the file states; None if it states none.
      has_sound: whether the video has sound.
      notes: remarks for the user, each a few words.
    """

    frames: dict[str, np.ndarray]
    seconds: float | None
    has_sound: bool
    notes: tuple[str, ...]


def extract_features(path: str | os.PathLike[str], backbones: Backbones, recipe: Recipe) -> VideoFeatures:
    """Decodes a video and extracts its features.

    Sound is aligned with the pictures: there is one second of sound for each picture, and missing sound is silence.

    Raises:
      DecodingError: the file has no usable content, no pictures although the recipe needs them, or no sound although
        there must be some.
      InputError: PyAV is not installed.
    """
    video = VideoFile(path)
    notes = []
    frames: dict[str, np.ndarray] = {}
    if backbones.pictures:
        if not video.has_pictures:
            raise DecodingError("has no pictures")
        frames |= _of_pictures(video, backbones, recipe.max_seconds)
    has_sound = video.has_sound
    if backbones.sounds:
        if has_sound:
            try:
                frames |= _of_sound(video, backbones, recipe.max_seconds, frames)
            except DecodingError as error:
                notes.append(str(error))
                has_sound = False
        if not has_sound:
            if recipe.without_audio == "skip" or not frames:
                raise DecodingError(notes[0] if notes else "has no sound")
            frames |= _of_silence(backbones, frames)
            notes.append("no sound: its features are those of silence")
    seconds = video.found.seconds
    notes += _notes(video, recipe.max_seconds)
    return VideoFeatures(frames, None if seconds is None else float(seconds), has_sound, tuple(notes))


def _of_pictures(video: VideoFile, backbones: Backbones, max_seconds: int) -> dict[str, np.ndarray]:
    made: dict[str, list[np.ndarray]] = {name: [] for name in backbones.pictures}
    prepared = (
        [backbone.prepare(picture) for backbone in backbones.pictures.values()] for picture in video.frames(max_seconds)
    )
    for batch in _batches(prepared):
        for (name, backbone), inputs in zip(backbones.pictures.items(), zip(*batch, strict=True), strict=True):
            made[name].append(backbone(inputs))
    return {name: np.concatenate(parts) for name, parts in made.items()}


def _of_sound(
    video: VideoFile, backbones: Backbones, max_seconds: int, frames: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    length = _length(frames)
    seconds: Iterator[np.ndarray] = (_padded(piece) for piece in video.sound(length or max_seconds))
    first = next(seconds)  # raises if the sound cannot be decoded
    seconds = itertools.chain([first], seconds)
    if length is not None:
        seconds = itertools.islice(itertools.chain(seconds, itertools.repeat(_padded(first[:0]))), length)
    made: dict[str, list[np.ndarray]] = {name: [] for name in backbones.sounds}
    for batch in _batches(seconds):
        for name, backbone in backbones.sounds.items():
            made[name].append(backbone(np.stack(batch)))
    return {name: np.concatenate(parts) for name, parts in made.items()}


def _of_silence(backbones: Backbones, frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    silence, length = np.zeros([1, SAMPLE_RATE], np.float32), _length(frames) or 0
    return {name: np.repeat(backbone(silence), length, axis=0) for name, backbone in backbones.sounds.items()}


def _length(frames: dict[str, np.ndarray]) -> int | None:
    return len(next(iter(frames.values()))) if frames else None


def _batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    values = iter(values)
    while batch := list(itertools.islice(values, _BATCH)):
        yield batch


def _padded(piece: np.ndarray) -> np.ndarray:
    """Pads sound with silence to a second: [N] -> [16000]."""
    return np.pad(piece, (0, SAMPLE_RATE - len(piece)))


def _notes(video: VideoFile, max_seconds: int) -> list[str]:
    found, notes = video.found, []
    if found.is_cut or (found.seconds is not None and found.end >= max_seconds and found.seconds > max_seconds):
        of = "" if found.seconds is None else f" of {float(found.seconds):,.1f}"
        notes.append(f"cut at {max_seconds:,}{of} s")
    elif video.breaks_off():
        notes.append(f"truncated at {float(found.end):,.1f} of {float(found.seconds or 0):,.1f} s")
    if found.num_damaged:
        notes.append(f"packets that cannot be decoded: {found.num_damaged:,}")
    if found.num_untimed:
        notes.append(f"frames without a timestamp: {found.num_untimed:,}")
    return notes
