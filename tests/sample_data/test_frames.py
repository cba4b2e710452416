"""Frames with a given mean, and frame-level shards made from video-level ones."""

import numpy as np
import pytest
import tensorflow as tf
from shards import codes_of, decoded_mean

from yt8m_tf.data.record_writing import VideoRecord, video_example, write_shard
from yt8m_tf.errors import InputError
from yt8m_tf.sample_data import frames as frames_module
from yt8m_tf.sample_data.dataset import Layout, write_clips, write_sample_data
from yt8m_tf.sample_data.frames import FrameCounts, clip_from_means, frames_with_mean
from yt8m_tf.sample_data.generator import SampleConfig
from yt8m_tf.sample_data.records import read_video_shard

COUNTS = FrameCounts(2, 9)


def read_clips(path):
    return [tf.train.SequenceExample.FromString(r) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 17, 300])
def test_frames_have_the_given_mean(num_frames):
    rng = np.random.default_rng()
    low, high = np.float32(-1.9921875), np.float32(2.0078125)
    ends = [
        low,
        np.nextafter(low, high),
        low + np.float32(1e-4),
        high - np.float32(0.01),
        np.nextafter(high, low),
        high,
    ]
    mean = np.concatenate([np.array(ends, np.float32), rng.uniform(low, high, 400).astype(np.float32)])
    frames = frames_with_mean(mean, np.arange(num_frames) // 4, rng)
    assert frames.shape == (num_frames, 406)
    assert frames.dtype == np.uint8
    assert np.abs(decoded_mean(frames) - mean).max() <= 2 / 255 / num_frames + 1e-12
    assert np.all(frames[:, 0] == 0)
    assert np.all(frames[:, 5] == 255)
    inner = np.abs(mean) < 1
    assert num_frames < 17 or np.all(np.ptp(frames[:, inner].astype(int), axis=0) > 4)


def test_shorter_audio_leaves_both_means_right(monkeypatch):
    monkeypatch.setattr(frames_module, "SHORT_AUDIO_SHARE", 1.0)
    rng = np.random.default_rng()
    means = {"rgb": rng.uniform(-1.9, 2, 64), "audio": rng.uniform(-1.9, 2, 16)}
    for num_frames in (2, 3, 30):
        clip = clip_from_means(means, num_frames, rng)
        assert (len(clip["rgb"]), len(clip["audio"])) == (num_frames, num_frames - 1)
        for frames, mean in (
            (clip["rgb"], means["rgb"]),
            (clip["rgb"][:-1], means["rgb"]),
            (clip["audio"], means["audio"]),
        ):
            assert np.abs(decoded_mean(frames) - mean).max() <= 2 / 255 + 1e-12
    assert len(clip_from_means(means, 1, rng)["audio"]) == 1


def test_frame_counts(tmp_path):
    rng = np.random.default_rng()
    drawn = FrameCounts(120, 300).draw(5000, rng)
    assert drawn.min() >= 120
    assert np.mean(drawn == 300) == pytest.approx(0.29, abs=0.04)
    assert np.mean(drawn[drawn < 300] < 210) > 0.52
    assert set(FrameCounts(7, 7).draw(5, rng)) == {7}
    histogram = tmp_path / "counts.csv"
    histogram.write_text("num_frames,num_videos\n5,100\n150,10\n160,30\n170,0\n")
    drawn = FrameCounts(100, 300, str(histogram)).draw(4000, rng)
    assert set(drawn) == {150, 160}
    assert np.mean(drawn == 160) == pytest.approx(0.75, abs=0.05)
    with pytest.raises(InputError, match="no videos of 200 to 300 frames"):
        FrameCounts(200, 300, str(histogram))
    with pytest.raises(InputError, match="--min_frames=9"):
        FrameCounts(9, 8)
    histogram.write_text("frames,videos\n5,100\n")
    with pytest.raises(InputError, match="num_frames,num_videos"):
        FrameCounts(1, 300, str(histogram))


def test_clips_from_video_level_shards(tmp_path):
    rng = np.random.default_rng()
    sources = {}
    for name, id_key, audio in (("validate0007.tfrecord", "id", 8), ("train_2017.tfrecord", "video_id", 0)):
        records = []
        for number in range(12):
            features = {"rgb": np.clip(rng.normal(0, 1.2, 40), -1.9921875, 2.0078125).astype(np.float32)}
            features |= {"audio": rng.uniform(-1.99, 2, audio).astype(np.float32)} if audio else {}
            records.append(VideoRecord(f"v{number}".encode(), [7, 3] if number % 2 else None, features, id_key))
        sources[name] = records
        write_shard(str(tmp_path / "real" / name), map(video_example, records))
    for output in ("a", "b"):
        write_clips(str(tmp_path / output), str(tmp_path / "real" / "*.tfrecord"), FrameCounts(1, 20), seed=5)
    for name, records in sources.items():
        path = tmp_path / "a" / "frame" / name
        assert path.read_bytes() == (tmp_path / "b" / "frame" / name).read_bytes()
        for record, clip in zip(records, read_clips(path), strict=True):
            context = clip.context.feature
            assert context[record.id_key].bytes_list.value[0] == record.video_id
            assert ("labels" in context) == (record.labels is not None)
            assert list(context["labels"].int64_list.value) == (record.labels or [])
            codes = codes_of(clip)
            assert set(codes) == set(record.features)
            for feature, mean in record.features.items():
                assert np.abs(decoded_mean(codes[feature]) - mean).max() <= 2 / 255 + 1e-12


def test_clips_from_real_videos(real_data_dir, tmp_path):
    real = real_data_dir / "yt8m_2018"
    shard = str(real / "validate" / "validate0000.tfrecord")
    videos = list(read_video_shard(shard))
    for name, counts in (
        ("one", FrameCounts(1, 100, str(real / "frame_count_histogram.csv"))),
        ("more", FrameCounts(5, 24)),
    ):
        write_clips(str(tmp_path / name), shard, counts, seed=0)
        clips = read_clips(tmp_path / name / "frame" / "validate0000.tfrecord")
        for video, clip in zip(videos, clips, strict=True):
            assert clip.context.feature["id"].bytes_list.value[0] == video.video_id
            assert list(clip.context.feature["labels"].int64_list.value) == video.labels
            for feature, codes in codes_of(clip).items():
                assert (len(codes) == 1) == (name == "one") or feature == "audio"
                assert np.abs(decoded_mean(codes) - video.features[feature]).max() <= 2 / 255 + 1e-12


def test_bad_video_level_shards_are_named(tmp_path):
    for level in ("video", "frame"):
        layout = Layout({"train": 30, "validate": 0, "test": 0}, 30, (level,))
        write_sample_data(str(tmp_path / "in" / level), SampleConfig(6, 2, rgb_size=8, audio_size=4), layout, COUNTS)
    with pytest.raises(InputError, match="no file matches"):
        write_clips(str(tmp_path / "out"), str(tmp_path / "none*"), COUNTS, 0)
    with pytest.raises(InputError, match=r"train0000.*give video-level shards"):
        write_clips(str(tmp_path / "level"), str(tmp_path / "in/frame/frame/train0000.tfrecord"), COUNTS, 0)
    with pytest.raises(InputError, match="same file name"):
        write_clips(str(tmp_path / "twice"), str(tmp_path / "in/*/*/train0000.tfrecord"), COUNTS, 0)
    for value in (np.nan, 2.5):
        bad = VideoRecord(b"abcd", [1], {"rgb": np.array([0.0, value], np.float32)})
        write_shard(str(tmp_path / "bad.tfrecord"), [video_example(bad)])
        with pytest.raises(InputError, match=r"bad\.tfrecord: record 0 \('abcd'\) has a mean outside"):
            write_clips(str(tmp_path / f"bad{value}"), str(tmp_path / "bad.tfrecord"), COUNTS, 0)
    whole = (tmp_path / "in/video/video/train0000.tfrecord").read_bytes()
    (tmp_path / "cut.tfrecord").write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"cut\.tfrecord: record 29 cannot be read; .*yt8m-inspect"):
        write_clips(str(tmp_path / "cut"), str(tmp_path / "cut.tfrecord"), COUNTS, 0)
    assert list((tmp_path / "cut" / "frame").iterdir()) == []  # neither a shard nor a partial one


def test_unreadable_input_is_reported_before_output_is_replaced(tmp_path):
    """Sample data is not removed if the clips would be made from it, or from a file that is not a shard."""
    layout = Layout({"train": 4, "validate": 0, "test": 0}, 4, ("video",))
    write_sample_data(str(tmp_path / "in"), SampleConfig(6, 2, rgb_size=8, audio_size=4), layout, COUNTS)
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "notes.txt").write_text("no shard of videos")
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    for source, message in (
        ("in/video/train*", r"contains '.*train0000\.tfrecord', which is to be read; name another directory"),
        ("link/video/train*", r"contains '.*train0000\.tfrecord', which is to be read; name another directory"),
        ("notes.txt", r"notes\.txt: not a TFRecord file: a text file: give TFRecord files"),
    ):
        with pytest.raises(InputError, match=message):
            write_clips(str(tmp_path / "in"), str(tmp_path / source), COUNTS, 0, overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()} == before


def test_odd_histograms(tmp_path):
    path = tmp_path / "counts.csv"
    huge = 2**63 - 1  # the sum of two of them exceeds int64
    path.write_text(f"\ufeffnum_frames,num_videos\n5,{huge}\n6,{huge}\n7,2\n")  # spreadsheets start files with U+FEFF
    assert set(FrameCounts(1, 300, str(path)).draw(50, np.random.default_rng(1))) == {5, 6}
    for row in ("5,1" + "0" * 30, "5,1" + "0" * 5000, "5", "5,x", '5,"' + "1" * 200_000):
        path.write_text(f"num_frames,num_videos\n{row}\n")
        with pytest.raises(InputError, match=r"counts\.csv: give the columns num_frames,num_videos"):
            FrameCounts(1, 300, str(path))
