"""The `data` section that yt8m-inspect prints reads the records it was derived from."""

from __future__ import annotations

from pathlib import Path

import feature_kinds
import numpy as np
import pytest
import tensorflow as tf
import yaml
from commands import run_command
from shards import frame_record, video_record, write_shard

from yt8m_tf import schema
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data.inspection import Contents, add_record
from yt8m_tf.data.integrity import good_records
from yt8m_tf.data.records import parse_records


def _section(records: list[bytes]) -> list[str]:
    halves = Contents(), Contents()
    for number, record in enumerate(records):
        add_record(halves[number % 2], record)
    halves[0].merge(halves[1])
    return halves[0].layout.section()


def _parsed(lines: list[str]) -> DataConfig:
    return strict_yaml.parse(DataConfig, yaml.safe_load("\n".join(lines))["data"], "data")


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize("kind", [kind for kind in feature_kinds.KINDS if kind != "one_list"])
def test_the_section_reads_the_records(kind: str, level: schema.Level, rng: np.random.Generator) -> None:
    records, clips = feature_kinds.records(kind, level, rng, 60)
    data, wanted = _parsed(_section(records)), feature_kinds.data_of(kind, level)
    found = {name: (data.key_of(name), feature.size, feature.dtype) for name, feature in data.stored.items()}
    assert found == {
        name: (wanted.key_of(name), feature.size, feature.dtype)
        for name, feature in wanted.stored.items()
        if level == "video" or not feature.in_context
    }
    batch = parse_records(tf.constant(records), data)
    assert batch["id"].numpy().tolist() == [clip.id for clip in clips]
    assert batch["labels"][:, 0].numpy().tolist() == [clip.labels[0] for clip in clips]
    if level == "frame":
        assert (
            data.max_frames == max(batch["num_frames"].numpy()) and batch[next(iter(found))].shape[1] == data.max_frames
        )


def test_features_of_youtube_8m_are_left_to_the_defaults(rng: np.random.Generator) -> None:
    means = {name: np.zeros(size, np.float32) for name, size in schema.FEATURE_SIZES.items()}
    assert _section([video_record(b"abcd", [3861], **means)]) == [
        "data:",
        "  features:",
        "    rgb: 1024",
        "    audio: 128",
    ]
    frames = {name: rng.integers(0, 256, (3, size), np.uint8) for name, size in schema.FEATURE_SIZES.items()}
    assert _parsed(_section([frame_record(b"abcd", [4715], **frames)])) == DataConfig(level="frame", num_classes=4716)


def test_other_content_of_records_is_described(rng: np.random.Generator) -> None:
    records, _ = feature_kinds.records("three", "frame", rng, 60)
    assert "    # in the context, a vector for all frames: text: {size: 6, dtype: float32, in_context: true}" in [
        line.partition("  # float32")[0] for line in _section(records)
    ]
    (note,) = [line for line in _section(feature_kinds.records("one_list", "frame", rng, 20)[0]) if "'clip'" in line]
    assert "frames in one list? then level: frame, and size: 6 with in_context: true" in note


def test_records_that_no_section_reads() -> None:
    clip, video = (
        frame_record(b"a", [1], rgb=np.ones((2, 4), np.uint8)),
        video_record(b"a", [1], rgb=np.ones(4, np.float32)),
    )
    assert _section([]) == []
    assert _section([clip, video]) == [
        "# to get the section 'data' of a configuration, inspect records of a single level"
    ]
    changing = [video_record(b"a", [1], rgb=np.ones(size, np.float32), text=np.ones(3, np.float32)) for size in (4, 5)]
    lines = _section([*changing, video_record(b"b", [1], rgb=np.ones(4, np.float32))])
    assert lines[0] == "# no feature has the same size in all records"
    assert [line.strip() for line in lines[1:]] == [
        "# left out: 'mean_rgb' (sizes 4, 5)",
        "# left out: 'mean_text' (1 of 3 records lack it)",
    ]


def test_features_without_ids_or_labels_and_of_different_lengths() -> None:
    message = tf.train.SequenceExample()
    for name, count in (("A.b", 9), ("c", 4)):
        for _ in range(count):
            message.feature_lists.feature_list[name].feature.add().float_list.value.extend([1.0, 2.0])
    lines = _section([message.SerializeToString()])
    assert "  keys: {a_b: 'A.b'}" in lines and "  max_frames: 4  # of the longest clip" in lines
    assert any("no key has an id in every record" in line for line in lines)
    assert any("no labels: set num_classes" in line for line in lines)
    assert _parsed(lines).max_frame_difference == 5


def test_real_clips(real_data_dir: Path) -> None:
    records = list(good_records(str(real_data_dir / "yt8m_2018_frame" / "clips.tfrecord")))
    data = _parsed(_section(records))
    assert data == DataConfig(level="frame")
    assert parse_records(tf.constant(records), data)["rgb"].shape == (3, 303, 1024)


def test_the_command_prints_it(tmp_path: Path, rng: np.random.Generator) -> None:
    records, _ = feature_kinds.records("audioset", "frame", rng, 20)
    done = run_command("inspect", write_shard(tmp_path / "a.tfrecord", records))
    assert done.returncode == 0
    printed = done.stdout.partition("to read them:\n\n")[2].rstrip().splitlines()
    assert printed == _section(records) and _parsed(printed).num_classes == 527
