"""Every mismatch between a record and the configuration has a message with a remedy."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.integrity import check_record
from yt8m_tf.data.records import PARSE_FAILURES, parse_records


def feature(values):
    if isinstance(values, list) and values and isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    if isinstance(values, list) and values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def video(**fields):
    """A valid video-level record for VIDEO, except for the given fields; None leaves a field out."""
    fields = {"id": [b"abcd"], "labels": [3, 0], "mean_rgb": [0.5] * 4, "mean_audio": [0.1] * 2} | fields
    features = {key: feature(values) for key, values in fields.items() if values is not None}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def clip(context=None, **lists):
    """A valid frame-level record for FRAME, except for what is given."""
    context = {"id": [b"abcd"], "labels": [3]} if context is None else context
    lists = {"rgb": [b"1234"] * 3, "audio": [b"12"] * 2} | lists
    return tf.train.SequenceExample(
        context=tf.train.Features(feature={key: feature(values) for key, values in context.items()}),
        feature_lists=tf.train.FeatureLists(
            feature_list={
                key: tf.train.FeatureList(
                    feature=[f if isinstance(f, tf.train.Feature) else feature([f]) for f in frames]
                )
                for key, frames in lists.items()
                if frames is not None
            }
        ),
    ).SerializeToString()


VIDEO = DataConfig(features={"rgb": 4, "audio": 2}, num_classes=10, max_labels=3)
FRAME = DataConfig(level="frame", features={"rgb": 4, "audio": 2}, num_classes=10, max_labels=3)


def test_sound_records():
    assert check_record(video(), VIDEO, need_labels=True) is None
    assert check_record(video(id=None, video_id=[b"abcdefghijk"], labels=None), VIDEO, need_labels=False) is None
    assert check_record(clip(), FRAME, need_labels=True) is None  # lists of 3 and 2 frames
    segment = {"id": [b"abcd"], "labels": [3], "segment_start_times": [5], "segment_scores": [0.5]}
    assert check_record(clip(segment), FRAME, need_labels=True) is None
    renamed = DataConfig(features={"rgb": 4}, keys={"rgb": "mean_rgb_v2"}, num_classes=10)
    assert check_record(video(mean_rgb_v2=[0.0] * 4, mean_rgb=None), renamed, need_labels=True) is None
    # The 2018 video-level files were written as SequenceExample without feature lists.
    written_2018 = tf.train.SequenceExample.FromString(video())
    written_2018.feature_lists.SetInParent()
    assert check_record(written_2018.SerializeToString(), VIDEO, need_labels=True) is None


ALL_KEYS = "it has: id, labels, mean_audio, mean_rgb"
VIDEO_PROBLEMS = {
    "other level": (clip(), "a frame-level record; set data.level: frame, or give video-level shards"),
    "other file": (b"\x07\x07", "2 bytes that are not a tf.train.Example or SequenceExample; give YouTube-8M shards"),
    "no id": (
        video(id=None),
        "neither 'id' nor 'video_id' (it has: labels, mean_audio, mean_rgb); name its key in data.keys.id, or give"
        " YouTube-8M shards",
    ),
    "id type": (video(id=[7]), "'id' is a list of 1 int64 value, not one of bytes; write the shard again"),
    "label type": (video(labels=[0.5, 1.0]), "'labels' is a list of 2 float values, not int64; write the shard again"),
    "no labels": (
        video(labels=None),
        "no labels, which training and evaluation need (it has: id, mean_audio, mean_rgb); a test shard?"
        " give labelled ones",
    ),
    "negative label": (video(labels=[2, -7]), "label -7 is negative; write the shard again"),
    "label too large": (
        video(labels=[10, 2]),
        "label 10 is not below data.num_classes: 10; raise data.num_classes (the 2018 version has 3862 classes,"
        " 2017 has 4716)",
    ),
    "too many labels": (video(labels=[1, 2, 3, 4]), "4 labels, more than data.max_labels: 3; raise data.max_labels"),
    "no feature": (
        video(mean_audio=None),
        "no 'mean_audio' (it has: id, labels, mean_rgb); name the right key in data.keys.audio,"
        " or leave audio out of data.features",
    ),
    "size": (
        video(mean_rgb=[0.0] * 3),
        "'mean_rgb' has 3 values, data.features says rgb: 4; set data.features.rgb: 3, or give other shards",
    ),
    "type": (
        video(mean_rgb=[b"1234"]),
        "'mean_rgb' is a list of 1 bytes value, not float; set data.features.rgb.dtype: uint8, or name the right key in"
        " data.keys.rgb",
    ),
    "nan": (
        video(mean_audio=[0.0, float("nan")]),
        "'mean_audio' contains nan at 1, 1 of 2 values are not finite; write the shard again",
    ),
    "inf": (
        video(mean_rgb=[0.0, -np.inf, 1.0, np.inf]),
        "'mean_rgb' contains -inf at 1, 2 of 4 values are not finite; write the shard again",
    ),
}
FRAME_PROBLEMS = {
    "other level": (video(), "a video-level record; set data.level: video, or give frame-level shards"),
    "no lists": (clip(rgb=None, audio=None), "no frames at all"),
    "no frames": (clip(audio=[]), "no frames at all in 'audio'"),
    "no feature": (
        clip(audio=None),
        "no 'audio' (it has: rgb); name the right key in data.keys.audio, or leave audio out of data.features",
    ),
    "size": (
        clip(rgb=[b"1234", b"123"]),
        "frame 1 of 'rgb' has 3 bytes, data.features says rgb: 4; set data.features.rgb: 3, or give other shards",
    ),
    "type": (
        clip(rgb=[feature([0.5] * 4)]),
        "frame 0 of 'rgb' is a list of 4 float values, not one of bytes; set data.features.rgb.dtype: float_list, or"
        " name the right key in data.keys.rgb",
    ),
    "empty frame": (
        clip(rgb=[tf.train.Feature()]),
        "frame 0 of 'rgb' is an empty feature, not one of bytes; name the right key in data.keys.rgb",
    ),
    "label too large": (
        clip({"id": [b"abcd"], "labels": [11]}),
        "label 11 is not below data.num_classes: 10; raise data.num_classes (the 2018 version has 3862 classes,"
        " 2017 has 4716)",
    ),
}


@pytest.mark.parametrize(("record", "message"), VIDEO_PROBLEMS.values(), ids=VIDEO_PROBLEMS)
def test_video_level_problems(record, message):
    assert check_record(record, VIDEO, need_labels=True) == message


@pytest.mark.parametrize(("record", "message"), FRAME_PROBLEMS.values(), ids=FRAME_PROBLEMS)
def test_frame_level_problems(record, message):
    assert check_record(record, FRAME, need_labels=True) == message


def test_labels_and_frames_that_are_not_needed():
    assert check_record(video(labels=None), VIDEO, need_labels=False) is None
    for empty in (clip(rgb=None, audio=None), clip(audio=[])):
        assert check_record(empty, FRAME, need_labels=True, need_frames=False) is None
    # A wrong label is reported even if labels are not needed.
    assert "label 10" in check_record(video(labels=[10]), VIDEO, need_labels=False)


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ({"id": [b"abcd"], "video_id": [7]}, "'video_id' is a list of 1 int64 value, not one of bytes"),
        ({"id": [b"abcd"], "video_id": [b"x", b"y"]}, "'video_id' is a list of 2 bytes values, not one of bytes"),
        ({"id": [b""], "video_id": [b""]}, "'id' is empty"),
        ({"id": [b""], "video_id": [b"abcd"]}, None),
        ({"id": [b"abcd"], "video_id": tf.train.Feature()}, None),
        ({"id": tf.train.Feature(), "video_id": [b"abcd"]}, None),
    ],
)
def test_records_with_both_ids(ids, problem):
    fields = {"labels": [3, 0], "mean_rgb": [0.5] * 4, "mean_audio": [0.1] * 2} | ids
    features = {key: f if isinstance(f, tf.train.Feature) else feature(f) for key, f in fields.items()}
    record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    found = check_record(record, VIDEO, need_labels=True)
    assert found is None if problem is None else found.startswith(problem)
    if problem is None:
        assert parse_records(tf.constant([record]), VIDEO)["id"].numpy().tolist() == [b"abcd"]
    else:  # the parser also fails for the reason that was found
        with pytest.raises(PARSE_FAILURES):
            parse_records(tf.constant([record]), VIDEO)
