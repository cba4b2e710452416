"""Writes video files of moving shapes with tones, and of frames that show their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SHAPES = ("disc", "square", "cross")
TONES = (300.0, 900.0, 2700.0)  # Hz
_TICKS = 90_000  # units of timestamps in a second
_SOUND_RATE = 44_100


def write_video(
    path: Path,
    times: Sequence[Fraction],
    picture: Callable[[int], np.ndarray],
    sound: np.ndarray | None = None,
    *,
    sound_rate: int = _SOUND_RATE,
    sound_start: float = 0.0,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sound_codec: str = "aac",
) -> Path:
    """Writes a video with a frame at each of `times`.

    Args:
      path: the file; its suffix determines the format.
      times: times of the frames, in seconds.
      picture: maps the number of a frame to [H, W, 3] uint8, of even sizes.
      sound: [channels, samples] float32 in [-1, 1].
      sound_rate: samples per second.
      sound_start: where it begins, in seconds.
      codec, pixels, sound_codec: FFmpeg's names; "ffv1" with "bgr0" loses nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(25) if len(times) < 2 else 1 / (times[1] - times[0])
    height, width = picture(0).shape[:2]
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = width, height, pixels
        video.codec_context.time_base = Fraction(1, _TICKS)
        audio = None
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sound_rate, layout="mono" if len(sound) == 1 else "stereo")
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(time * _TICKS), Fraction(1, _TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None and sound is not None:
            planar = np.ascontiguousarray(sound, np.float32)
            for first in range(0, planar.shape[1], 1024):
                piece = np.ascontiguousarray(planar[:, first : first + 1024])
                own = av.AudioFrame.from_ndarray(piece, format="fltp", layout=audio.layout.name)
                own.sample_rate, own.time_base = sound_rate, Fraction(1, sound_rate)
                own.pts = first + round(sound_start * sound_rate)
                container.mux(audio.encode(own))
            container.mux(audio.encode())
    return path


def steady(rate: Fraction | int, seconds: float) -> list[Fraction]:
    """Returns the times of the frames of a video with a constant frame rate."""
    return [Fraction(number) / rate for number in range(round(seconds * float(rate)))]


def grey(number: int, size: int = 16) -> np.ndarray:
    """Returns a picture whose grey level is the frame's number, up to 255: [size, size, 3] uint8."""
    return np.full((size, size, 3), number, np.uint8)


def tone(frequency: float, seconds: float, rate: int = _SOUND_RATE, loudness: float = 0.5) -> np.ndarray:
    """Returns a sine wave, [1, samples] float32."""
    return (loudness * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate))[None].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Clip:
    """A moving shape with a tone, as in docs/OWN_VIDEOS.md; `seed` determines its random parameters."""

    shape: str
    pitch: float
    seed: int

    def write(self, path: Path, seconds: float = 2.0, rate: int = 5, size: int = 48) -> Path:
        """Writes the clip as H.264 with 16 kHz AAC, which is quick."""
        rng = np.random.default_rng(self.seed)
        colour, background = rng.integers(150, 256, 3), rng.integers(0, 80, 3)
        start, speed = rng.uniform(0.35, 0.65, 2), rng.uniform(-0.08, 0.08, 2)
        radius = rng.uniform(0.18, 0.26)
        rows, columns = np.mgrid[0:size, 0:size] / size

        def picture(number: int) -> np.ndarray:
            y, x = np.array([rows, columns]) - (start + speed * number / rate)[:, None, None]
            inside = {
                "disc": x**2 + y**2 < radius**2,
                "square": np.maximum(abs(x), abs(y)) < radius * 0.9,
                "cross": (np.minimum(abs(x), abs(y)) < radius * 0.25) & (np.maximum(abs(x), abs(y)) < radius),
            }[self.shape]
            noise = rng.normal(0, 6, (size, size, 1))
            return np.clip(np.where(inside[..., None], colour, background) + noise, 0, 255).astype(np.uint8)

        frequency = self.pitch * rng.uniform(0.95, 1.05)
        sound = tone(frequency, seconds, 16_000, loudness=rng.uniform(0.2, 0.6))
        sound += rng.normal(0, 0.01, sound.shape).astype(np.float32)
        return write_video(path, steady(rate, seconds), picture, sound, sound_rate=16_000)
