"""Decodes video files as streams: one frame for each second, and sound at 16 kHz, both on the same clock.

FFmpeg does the work, through PyAV. Times are rational numbers, so that 30000/1001 frames per second do not drift. They
count from the earliest start of the streams that are read. Frames are found by their times, never by counting, because
rates vary and frames may be missing. Memory does not grow with the length of a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np

from yt8m_tf.errors import InputError

SAMPLE_RATE = 16_000  # of decoded sound, in Hz

# FFmpeg reads a text file as the screen of an old terminal, and an image as a video of one frame.
_NO_VIDEO_FORMATS = ("tty", "image2")
_PIPED_IMAGE = "_pipe"
# Sound counts as continuous if its times deviate by no more than this, in seconds.
_TOLERANCE = Fraction(1, 10)
# The frame rate of streams that state none.
_USUAL_RATE = Fraction(25)
# A file that ends more than this many seconds before its stated length has been cut off.
_CUT_OFF = Fraction(3, 2)
_RESAMPLED_FORMAT = "fltp"  # float32, a row for each channel


class DecodingError(ValueError):
    """A file has no usable content; the message says why in a few words, without the file's name."""


@dataclasses.dataclass
class Found:
    """Facts about a file, collected while it is decoded; complete once all has been read.

    Attributes:
      seconds: the length that the file states; None if it states none.
      end: end of the decoded part, in seconds.
      is_cut: whether there are frames after the limit.
      num_untimed: frames without a timestamp, which follow the previous frame at the average rate.
      num_damaged: packets that could not be decoded.
    """

    seconds: Fraction | None = None
    end: Fraction = Fraction(0)
    is_cut: bool = False
    num_untimed: int = 0
    num_damaged: int = 0


class VideoFile:
    """A video file; it is open only while it is being read.

    Args:
      path: a local file.

    Attributes:
      has_pictures, has_sound: whether the file has such streams. A cover image is not a stream of pictures.
      found: the facts found so far.

    Raises:
      DecodingError: the file has neither pictures nor sound, or FFmpeg cannot open it.
      InputError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._av = _import_av()
        self._path = os.fspath(path)
        if os.path.exists(path) and not os.path.isfile(path):  # FFmpeg would wait for data from a pipe
            raise DecodingError("is not a file")
        with self._open() as container:
            video, audio = self._streams(container)
            self.has_pictures, self.has_sound = video is not None, audio is not None
            if not self.has_pictures and not self.has_sound:
                raise DecodingError("contains neither pictures nor sound")
            starts = [s.start_time * s.time_base for s in (video, audio) if s is not None and s.start_time is not None]
            self._zero: Fraction = min(starts, default=Fraction(0))
            length = container.duration
            self.found = Found(seconds=None if length is None else Fraction(length, self._av.time_base))

    def frames(self, max_seconds: int) -> Iterator[np.ndarray]:
        """Yields, for k = 0, 1, 2, ..., the frame whose time is nearest to k seconds; ties go to the earlier frame.

        There is a frame for every k before the end of the last frame: ten for a video of 10 s, one for a video of
        0.1 s.

        Args:
          max_seconds: the most frames to yield.

        Yields:
          [H, W, 3] uint8 RGB, rotated for display as the file says.

        Raises:
          DecodingError: no frame can be decoded.
        """
        before: tuple[Fraction, Any] | None = None
        second, end = 0, Fraction(0)
        for time, length, frame in self._timed_frames():
            while second <= time:
                if second == max_seconds:
                    self.found.is_cut = True
                    return
                nearest = frame if before is None or time - second < second - before[0] else before[1]
                yield _upright(nearest)
                second += 1
            if before is None or time >= before[0]:
                before, end = (time, frame), time + length
            self.found.end = end
        if before is None:
            raise DecodingError("not one frame can be decoded")
        while second < end and second < max_seconds:
            yield _upright(before[1])
            second += 1
        self.found.is_cut = second < end

    def breaks_off(self) -> bool:
        """Returns whether the file ends before its stated length; reads the packets of all streams if necessary."""
        stated, last = self.found.seconds, self.found.end
        if stated is None or stated - last <= _CUT_OFF:
            return False
        with self._open() as container:
            for packet in self._packets(container):
                if packet.pts is not None:
                    last = max(last, (packet.pts + (packet.duration or 0)) * packet.time_base - self._zero)
        return stated - last > _CUT_OFF

    def _timed_frames(self) -> Iterator[tuple[Fraction, Fraction, Any]]:
        """Yields time, length and frame, in display order."""
        time: Fraction | None = None
        with self._open() as container:
            stream = self._streams(container)[0]
            rate = Fraction(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
            for frame in self._decoded(container, stream):
                if (stamp := frame.pts if frame.pts is not None else frame.dts) is not None:
                    time = stamp * frame.time_base - self._zero
                else:
                    time = Fraction(0) if time is None else time + 1 / rate
                    self.found.num_untimed += 1
                yield time, frame.duration * frame.time_base if frame.duration else 1 / rate, frame

    def sound(self, max_seconds: int) -> Iterator[np.ndarray]:
        """Yields the sound in pieces of one second, on the clock of the frames; gaps are silent.

        Args:
          max_seconds: the most pieces to yield.

        Yields:
          [16000] float32 in [-1, 1], the mean of the channels; the last piece may be shorter.

        Raises:
          DecodingError: no sound can be decoded.
        """
        pieces: list[np.ndarray] = []
        held = given = 0
        for samples in self._placed_sound():
            pieces.append(samples)
            held += len(samples)
            if held < SAMPLE_RATE:
                continue
            joined = np.concatenate(pieces)
            while len(joined) >= SAMPLE_RATE and given < max_seconds:
                yield joined[:SAMPLE_RATE]
                joined, given = joined[SAMPLE_RATE:], given + 1
            if given == max_seconds:
                return
            pieces, held = [joined], len(joined)
        if not given and not held:
            raise DecodingError("its sound cannot be decoded")
        if held:
            yield np.concatenate(pieces)

    def _placed_sound(self) -> Iterator[np.ndarray]:
        """Yields [N] float32 pieces from second 0 on; gaps between times become silence, overlaps are removed."""
        placed = 0  # samples
        skip = 0
        for start, samples in self._resampled():
            if start is not None:
                gap = round((start - self._zero) * SAMPLE_RATE) - placed
                for silent in _pieces(gap):
                    yield np.zeros(silent, np.float32)
                placed, skip = placed + max(gap, 0), max(-gap, 0)
            kept = samples[skip:]
            skip -= len(samples) - len(kept)
            placed += len(kept)
            self.found.end = max(self.found.end, Fraction(placed, SAMPLE_RATE))
            yield kept

    def _resampled(self) -> Iterator[tuple[Fraction | None, np.ndarray]]:
        """Yields the start time and samples of pieces at 16 kHz; the time is None if the previous piece continues."""
        with self._open() as container:
            resampler, kind, expected = None, None, None
            start: Fraction | None = None
            for frame in self._decoded(container, self._streams(container)[1]):
                time = None if frame.pts is None else frame.pts * frame.time_base
                jumps = time is not None and (expected is None or abs(time - expected) > _TOLERANCE)
                own_kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None or jumps or own_kind != kind:
                    yield from self._converted(resampler, None, None)
                    resampler = self._av.AudioResampler(format=_RESAMPLED_FORMAT, rate=SAMPLE_RATE)
                    kind, start = own_kind, time if jumps else None
                    expected = time if jumps else expected
                for piece in self._converted(resampler, frame, start):
                    start = None
                    yield piece
                if expected is not None:
                    expected += Fraction(frame.samples, frame.sample_rate)
            yield from self._converted(resampler, None, start)

    def _converted(self, resampler: Any, frame: Any, start: Fraction | None) -> Iterator[tuple[Fraction | None, Any]]:
        """Yields the output of a resampler for a frame, or for the end of the stream (None)."""
        if resampler is None:
            return
        try:
            results = resampler.resample(frame)
        except self._av.error.FFmpegError:
            self.found.num_damaged += 1
            return
        for result in results:
            # FFmpeg's own mix of two channels is louder than their mean.
            mono = result.to_ndarray().mean(axis=0, dtype=np.float32)
            yield start, np.clip(np.nan_to_num(mono), -1.0, 1.0)
            start = None

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yields the frames of a stream up to the end of a truncated file; counts packets that cannot be decoded."""
        for packet in self._packets(container, stream):
            try:
                yield from packet.decode()
            except self._av.error.FFmpegError:
                self.found.num_damaged += 1

    def _packets(self, container: Any, *streams: Any) -> Iterator[Any]:
        packets = container.demux(*streams)
        while True:
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError:
                self.found.num_damaged += 1
                return
            if packet is None:
                return
            yield packet

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            # Only the given file: a playlist may name other files and network addresses.
            container = self._av.open(self._path, options={"protocol_whitelist": "file"}, metadata_errors="replace")
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise DecodingError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
        with container:
            if container.format.name.endswith(_PIPED_IMAGE) or container.format.name in _NO_VIDEO_FORMATS:
                raise DecodingError("is not a video")
            yield container

    def _streams(self, container: Any) -> tuple[Any, Any]:
        """Returns the streams of pictures and of sound to read; None if there is none."""
        cover = self._av.stream.Disposition.attached_pic
        video = next((s for s in container.streams.video if not s.disposition & cover), None)
        audio = next(iter(container.streams.audio), None)
        return video, audio


def _pieces(count: int) -> Iterator[int]:
    """Splits a number of samples into seconds, so that a gap of hours takes no memory."""
    while count > 0:
        yield min(count, SAMPLE_RATE)
        count -= SAMPLE_RATE


def _upright(frame: Any) -> np.ndarray:
    """Converts a frame to [H, W, 3] uint8 RGB, rotated by its display matrix in steps of 90 degrees."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _import_av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise InputError(
            "PyAV, which decodes videos, is not installed; install the package with its extra: yt8m-tf[video]"
        ) from error
    return av
