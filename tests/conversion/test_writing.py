"""Shards of videos: the same bytes in any order, readable by the reader, and foreign files are never replaced."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from shards import codes_of, decoded_mean

from yt8m_tf.conversion.encoding import Encoded, Storage, encode
from yt8m_tf.conversion.tables import LabelTable, Row
from yt8m_tf.conversion.writing import Layout, Written, check_inputs, check_output, write_dataset
from yt8m_tf.errors import InputError

_SIZES = {"rgb": 3, "audio": 2}
_TABLE = LabelTable(
    {f"v{i}": Row((i % 4, 4) if i % 5 else None, "validate" if i % 3 == 0 else "train") for i in range(20)},
    ["a", "b", "c", "d", "e"],
)
_LAYOUT = Layout(("video", "frame"), 5, _SIZES, Storage())


def _load(video_id: str) -> Encoded:
    rng = np.random.default_rng(int(video_id[1:]))
    length = 2 + int(video_id[1:])
    return encode({name: rng.normal(size=[length, size]) for name, size in _SIZES.items()}, _SIZES, Storage())


def _write(where: Path, videos: list[str] | None = None, fingerprint: str = "f", layout: Layout = _LAYOUT) -> Written:
    return write_dataset(where, _TABLE, videos or list(_TABLE.rows), _load, layout, fingerprint)


def _contents(where: Path) -> dict[str, bytes]:
    return {str(path.relative_to(where)): path.read_bytes() for path in where.rglob("*") if path.is_file()}


def test_records_are_those_of_the_dataset(tmp_path: Path) -> None:
    written = _write(tmp_path)
    assert written.num_videos == {"train": 13, "validate": 7, "test": 0}
    assert written.shards == {
        f"{level}/{name}": count
        for level in ("video", "frame")
        for name, count in {
            "train0000.tfrecord": 4,
            "train0001.tfrecord": 4,
            "train0002.tfrecord": 5,
            "validate0000.tfrecord": 3,
            "validate0001.tfrecord": 4,
        }.items()
    }
    seen = {}
    for name in written.shards:
        if not name.startswith("frame/"):
            continue
        videos = tf.data.TFRecordDataset(str(tmp_path / name.replace("frame/", "video/"))).as_numpy_iterator()
        for serialized, other in zip(
            tf.data.TFRecordDataset(str(tmp_path / name)).as_numpy_iterator(), videos, strict=True
        ):
            clip, video = tf.train.SequenceExample.FromString(serialized), tf.train.Example.FromString(other)
            context, means = clip.context.feature, video.features.feature
            video_id = context["id"].bytes_list.value[0].decode()
            assert means["id"] == context["id"]
            row, codes = _TABLE.rows[video_id], codes_of(clip)
            assert name.startswith(f"frame/{row.split}")
            assert ("labels" in context) == (row.labels is not None) == ("labels" in means)
            if row.labels is not None:
                assert tuple(context["labels"].int64_list.value) == row.labels
            for feature, stored in _load(video_id).frames.items():
                np.testing.assert_array_equal(codes[feature], stored)
                np.testing.assert_allclose(
                    means[f"mean_{feature}"].float_list.value, decoded_mean(codes[feature]), rtol=1e-5
                )
            seen[video_id] = name
    assert seen.keys() == _TABLE.rows.keys()
    data = yaml.safe_load((tmp_path / "frame" / "data.yaml").read_text())["data"]
    assert data == {"level": "frame", "features": _SIZES, "num_classes": 5, "vocabulary": "../vocabulary.csv"}


def test_the_same_videos_give_the_same_bytes(tmp_path: Path) -> None:
    _write(tmp_path / "a")
    _write(tmp_path / "b", list(reversed(_TABLE.rows)))
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_existing_output_is_recognised_and_not_replaced_unasked(tmp_path: Path) -> None:
    assert check_output(tmp_path, "f", False) is None
    written = _write(tmp_path)
    assert check_output(tmp_path, "f", False) == written
    (tmp_path / "video" / "train0000.tfrecord").unlink()
    assert check_output(tmp_path, "f", False) is None
    with pytest.raises(
        InputError, match=r"contains shards that were made from other input or with other options.*--overwrite"
    ):
        check_output(tmp_path, "other", False)
    assert check_output(tmp_path, "other", True) is None
    few = Layout(("frame",), 100, _SIZES, Storage())
    _write(tmp_path, ["v1", "v2"], "other", few)
    assert [name for name in sorted(_contents(tmp_path)) if name.endswith(".tfrecord")] == ["frame/train0000.tfrecord"]


def test_shards_from_elsewhere_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "train0000.tfrecord").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"train0000.tfrecord was not written by this command; name another directory"):
        check_output(tmp_path, "f", True)


def test_interrupted_writing_is_done_again(tmp_path: Path) -> None:
    calls = []

    def load(video_id: str) -> Encoded:
        calls.append(video_id)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return _load(video_id)

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "a", _TABLE, _TABLE.rows, load, _LAYOUT, "f")
    assert check_output(tmp_path / "a", "f", False) is None
    assert check_output(tmp_path / "a", "other", False) is None  # no complete file is lost
    _write(tmp_path / "a")
    _write(tmp_path / "b")
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_input_is_not_overwritten(tmp_path: Path) -> None:
    """An existing vocabulary is not replaced either, unless the labels come from it."""
    report, vocabulary = tmp_path / "report.csv", tmp_path / "vocabulary.csv"
    read = dataclasses.replace(_TABLE, path=report)
    for table, inputs in ((read, []), (_TABLE, [str(tmp_path / "." / "report.csv")])):
        with pytest.raises(InputError, match=rf"--output_dir={tmp_path}: would write over '{report}', which is to be"):
            check_inputs(tmp_path, table, inputs)
    vocabulary.write_text("Index,Name\n0,cat\n")
    with pytest.raises(InputError, match=rf"{vocabulary} was not written by this command; name another directory"):
        check_inputs(tmp_path, _TABLE, [])
    check_inputs(tmp_path, None, [])
    check_inputs(tmp_path, dataclasses.replace(_TABLE, vocabulary=vocabulary), [])
    _write(tmp_path)
    check_inputs(tmp_path, _TABLE, [])
