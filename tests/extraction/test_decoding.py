"""Decoding: frames nearest to whole seconds, sound on the same clock, and damage is counted."""

from __future__ import annotations

import os
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import grey, steady, tone, write_video

from yt8m_tf.errors import InputError
from yt8m_tf.extraction.decoding import SAMPLE_RATE, DecodingError, VideoFile

_LOSSLESS = {"codec": "ffv1", "pixels": "bgr0"}


def _numbers(path: Path, max_seconds: int = 303) -> list[int]:
    """The numbers encoded in the frames of a video of `grey` pictures."""
    return [int(np.median(frame)) for frame in VideoFile(path).frames(max_seconds)]


def _nearest(times: list[Fraction], last_length: Fraction) -> list[int]:
    """The numbers of the frames nearest to each second before the end; of two equally near ones, the earlier."""
    seconds = range(-int(-(times[-1] + last_length) // 1))
    return [min(range(len(times)), key=lambda number: (abs(times[number] - k), number)) for k in seconds]


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(1, 2), 7])
def test_frames_of_a_constant_rate(rate: Fraction, tmp_path: Path) -> None:
    times = steady(rate, 8.2)
    path = write_video(tmp_path / "a.mkv", times, grey, **_LOSSLESS)
    # Matroska's own clock counts milliseconds.
    stored = [Fraction(round(time * 1000), 1000) for time in times]
    assert _numbers(path) == _nearest(stored, 1 / Fraction(rate))


def test_thirty_thousand_by_1001_does_not_drift(tmp_path: Path) -> None:
    """Even after hundreds of frames, the frame of second k is exactly number round(k * 30000 / 1001)."""
    rate = Fraction(30000, 1001)
    path = write_video(tmp_path / "a.mp4", steady(rate, 100), lambda n: grey(6 * (n % 40)))
    read = [round(float(frame.mean()) / 6) for frame in VideoFile(path).frames(303)]  # compression errors are below 3
    assert read == [round(k * rate) % 40 for k in range(100)]


def test_variable_rate_and_a_long_still(tmp_path: Path, rng: np.random.Generator) -> None:
    gaps = [Fraction(int(ms), 1000) for ms in rng.integers(10, 400, 30)]
    times = [sum(gaps[:n], Fraction(0)) for n in range(30)]
    times += [times[-1] + 5, times[-1] + Fraction(51, 10)]
    path = write_video(tmp_path / "a.mkv", times, grey, **_LOSSLESS)
    read = _numbers(path)
    assert read == _nearest(times, Fraction(1, 25))[: len(read)] and abs(len(read) - float(times[-1])) <= 2


@pytest.mark.parametrize(("turn", "matrix"), [(-1, (0, 1, -1, 0)), (1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1)), (0, None)])
def test_rotation(turn: int, matrix: tuple[int, ...] | None, tmp_path: Path) -> None:
    """The matrix of `tkhd`, which maps (x, y) to (ax + cy, bx + dy): phones write the first one."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255  # the upper left quarter
    path = write_video(tmp_path / "a.mp4", steady(25, 0.2), lambda _: picture)
    if matrix:
        data = bytearray(path.read_bytes())
        start = data.index(b"tkhd") + 4 + 40  # after version, times, id, duration, layer, volume
        for place, value in zip((0, 1, 3, 4), matrix, strict=True):
            data[start + 4 * place : start + 4 * place + 4] = (value * 2**16).to_bytes(4, "big", signed=True)
        path.write_bytes(bytes(data))
    (frame,) = VideoFile(path).frames(303)
    wanted = np.rot90(picture, turn)
    assert frame.shape == wanted.shape
    assert np.abs(frame.astype(int) - wanted).mean() < 12


def test_cut_at_the_limit(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(5, 6), grey, tone(440, 6))
    video = VideoFile(path)
    assert len(list(video.frames(4))) == 4 and video.found.is_cut
    assert len(list(video.sound(4))) == 4
    assert len(list(video.frames(6))) == 6 and not video.found.is_cut


def test_frames_without_timestamps_take_the_average_rate_and_are_counted(tmp_path: Path) -> None:
    """A bare H.264 stream has no timestamps."""
    path = write_video(tmp_path / "a.h264", steady(25, 4), lambda n: grey(2 * n + 16))
    video = VideoFile(path)
    read = [round((float(frame.mean()) - 16) / 2) for frame in video.frames(303)]
    assert read == [0, 25, 50, 75] and video.found.num_untimed == 100


def test_sound_is_the_mean_of_the_channels_at_16_khz(tmp_path: Path) -> None:
    """Two tones on two channels: each is present with half its loudness."""
    channels = np.concatenate([tone(500, 3, loudness=0.8), tone(1500, 3, loudness=0.4)])
    path = write_video(tmp_path / "a.mkv", steady(5, 3), grey, channels, sound_codec="pcm_s16le")
    sound = list(VideoFile(path).sound(303))
    assert [len(piece) for piece in sound] == [SAMPLE_RATE] * 3 and {piece.dtype for piece in sound} == {np.dtype("f4")}
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    wanted = 0.4 * np.sin(2 * np.pi * 500 * time) + 0.2 * np.sin(2 * np.pi * 1500 * time)
    np.testing.assert_allclose(sound[1], wanted, atol=2e-3)


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    options = {"sound_codec": "pcm_s16le", "sound_start": 1.5}
    path = write_video(tmp_path / "a.mkv", steady(5, 3), grey, tone(500, 1.5), **options)
    sound = np.concatenate(list(VideoFile(path).sound(303)))
    assert len(sound) == pytest.approx(3 * SAMPLE_RATE, abs=100)
    assert not sound[: int(1.49 * SAMPLE_RATE)].any()
    assert np.abs(sound[int(1.52 * SAMPLE_RATE) :]).max() == pytest.approx(0.5, abs=0.02)


def test_no_sound_and_no_pictures(tmp_path: Path) -> None:
    silent = VideoFile(write_video(tmp_path / "a.mp4", steady(5, 1), grey))
    assert silent.has_pictures and not silent.has_sound


@pytest.mark.parametrize("kind", ["text", "empty", "image", "noise", "missing", "folder", "pipe"])
def test_a_file_that_is_not_a_video(kind: str, tmp_path: Path) -> None:
    path = tmp_path / {"text": "a.txt", "image": "a.png"}.get(kind, "a.mp4")
    if kind == "image":
        import keras

        keras.utils.save_img(str(path), grey(9))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes({"text": b"no video\n" * 99, "empty": b"", "noise": bytes(range(256)) * 40}[kind])
    with pytest.raises(DecodingError) as error:
        VideoFile(path)
    assert "\n" not in str(error.value)


def test_without_pyav_one_line_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        InputError, match=r"PyAV.*is not installed; install the package with its extra: yt8m-tf\[video\]"
    ):
        VideoFile(tmp_path / "a.mp4")


def test_a_truncated_file(tmp_path: Path) -> None:
    """Its beginning is decoded; the length in its header shows that more is missing."""
    path = write_video(tmp_path / "a.mkv", steady(25, 10), lambda n: grey(n % 200, 64), tone(300, 10), **_LOSSLESS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    video = VideoFile(path)
    frames = list(video.frames(303))
    assert 3 <= len(frames) < 9 and video.found.seconds is not None and video.found.seconds > video.found.end + 1


def test_packets_that_cannot_be_decoded_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(25, 6), lambda n: grey(n, 64))
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size and not packet.is_keyframe]
    data = bytearray(path.read_bytes())
    for place in places[40:43]:
        data[place : place + 4] = b"\xff" * 4  # the length of the following data
    path.write_bytes(bytes(data))
    video = VideoFile(path)
    assert len(list(video.frames(303))) == 6 and video.found.num_damaged == 3


def test_memory_is_flat(tmp_path: Path) -> None:
    """Python uses as much memory for 50 s as for 5 s: no data of a file is kept."""
    peaks = []
    for seconds in (5, 50):
        options = {"sound_codec": "pcm_s16le", "sound_rate": 8000}
        sound = tone(99, seconds, rate=8000)
        path = write_video(tmp_path / f"{seconds}.mkv", steady(1, seconds), grey, sound, **options)
        video = VideoFile(path)
        tracemalloc.start()
        assert sum(1 for _ in video.frames(10**6)) == seconds == sum(1 for _ in video.sound(seconds))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
