"""The features of a video: one row per second for each, on a common clock, and notes about odd files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from videos import grey, steady, tone, write_video

from yt8m_tf.extraction.backbones import Backbones, Recipe
from yt8m_tf.extraction.decoding import DecodingError
from yt8m_tf.extraction.features import VideoFeatures, extract_features


class _Colour:
    """The mean colour of a picture."""

    size = 3

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        return picture.mean(axis=(0, 1))

    def __call__(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(prepared).astype(np.float32)


class _Loudness:
    """The root mean square of each second."""

    size = 1

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        assert seconds.shape[1:] == (16000,) and seconds.dtype == np.float32
        return np.sqrt((seconds**2).mean(axis=1, keepdims=True))


_BOTH = Backbones({"rgb": _Colour()}, {"audio": _Loudness()})
_RMS = 0.5 / np.sqrt(2)  # of a tone from `tone`


def _features(path: Path, backbones: Backbones = _BOTH, **recipe: object) -> VideoFeatures:
    return extract_features(path, backbones, Recipe({"rgb": "x", "audio": "x"}, **recipe))  # type: ignore[arg-type]


def test_pictures_and_sound_are_aligned(tmp_path: Path) -> None:
    """The tone begins after one second, when the pictures change; 70 s are more than one batch."""
    sound = np.concatenate([np.zeros((1, 44100), np.float32), tone(440, 69)], axis=1)
    path = write_video(
        tmp_path / "a.mkv", steady(2, 70), lambda n: grey(200 * (n >= 2)), sound, sound_codec="pcm_s16le"
    )
    found = _features(path)
    assert found.frames["rgb"].shape == (70, 3) and found.frames["audio"].shape == (70, 1)
    np.testing.assert_allclose(found.frames["rgb"][:, 0], [0] + [200] * 69, atol=4)
    np.testing.assert_allclose(found.frames["audio"][:, 0], [0] + [_RMS] * 69, atol=3e-3)
    assert found.has_sound and found.notes == () and found.seconds == pytest.approx(70, abs=0.1)


@pytest.mark.parametrize("length", [1.5, 9.0])
def test_sound_that_is_shorter_or_longer_than_the_pictures(length: float, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", steady(5, 4), grey, tone(440, length), sound_codec="pcm_s16le")
    found = _features(path)
    wanted = [_RMS, _RMS / np.sqrt(2), 0, 0] if length == 1.5 else [_RMS] * 4
    np.testing.assert_allclose(found.frames["audio"][:, 0], wanted, atol=3e-3)
    assert len(found.frames["rgb"]) == 4 and found.notes == ()


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", steady(5, 3), grey)
    found = _features(path)
    assert not found.has_sound and found.notes == ("no sound: its features are those of silence",)
    np.testing.assert_array_equal(found.frames["audio"], np.zeros((3, 1)))
    with pytest.raises(DecodingError, match=r"^has no sound$"):
        _features(path, without_audio="skip")
    # If no sound is needed, there is nothing to report.
    assert _features(path, Backbones({"rgb": _Colour()}, {})).notes == ()
    with pytest.raises(DecodingError, match=r"^has no sound$"):
        _features(path, Backbones({}, {"audio": _Loudness()}))


def test_a_video_with_only_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", steady(5, 3), grey, tone(440, 2.5), sound_codec="pcm_s16le")
    found = _features(path, Backbones({}, {"audio": _Loudness()}))
    np.testing.assert_allclose(found.frames["audio"][:, 0], [_RMS, _RMS, _RMS / np.sqrt(2)], atol=3e-3)


def test_shortened_and_truncated_videos_are_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", steady(25, 10), lambda n: grey(n % 200, 64), codec="ffv1", pixels="bgr0")
    found = _features(path, max_seconds=4)
    assert len(found.frames["rgb"]) == 4 == len(found.frames["audio"]) and found.notes[1:] == ("cut at 4 of 10.0 s",)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    broken = _features(path)
    assert 3 <= len(broken.frames["rgb"]) <= 6
    assert broken.notes[1].startswith("truncated at") and broken.notes[1].endswith("of 10.0 s")
    bare = _features(write_video(tmp_path / "a.h264", steady(25, 2), grey))
    assert "frames without a timestamp: 50" in bare.notes


def test_ten_hours_are_cut_and_not_read_to_the_end(tmp_path: Path) -> None:
    """One frame every ten minutes: frames after the limit are not decoded."""
    path = write_video(tmp_path / "a.mkv", [600 * time for time in steady(1, 60)], grey, codec="ffv1", pixels="bgr0")
    found = _features(path, max_seconds=700)
    np.testing.assert_allclose(found.frames["rgb"][:, 0], [0] * 301 + [1] * 399)
    assert found.notes[-1].startswith("cut at 700 of 3")


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
def test_real_videos(name: str, real_data_dir: Path) -> None:
    found = _features(real_data_dir / "videos" / name)
    assert {key: len(values) for key, values in found.frames.items()} == (
        {"rgb": 10, "audio": 10} if name == "bikes.mp4" else {"rgb": 6, "audio": 6}
    )
    assert found.has_sound == (name == "bigbuckbunny.mp4")
    assert bool(found.frames["audio"].any()) == found.has_sound
    assert found.notes == (() if found.has_sound else ("no sound: its features are those of silence",))
