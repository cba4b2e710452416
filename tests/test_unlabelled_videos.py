"""Videos without labels among labelled ones: an error, left out, or negative, as the user chooses, and counted."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from shards import frame_record, video_record, write_shard
from stacking_world import make_world

from yt8m_tf.config.data import DataConfig
from yt8m_tf.config.experiment import LabelsConfig
from yt8m_tf.data import integrity
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.pipeline import check_any_record, evaluation_stream, training_stream
from yt8m_tf.data.record_check import Reader
from yt8m_tf.data.statistics import class_prior
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards import records as score_records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.score_shards.soft_labels import beside
from yt8m_tf.stacking.inputs import LeftOut

_VIDEO = DataConfig(features={"rgb": 2}, num_classes=6, shuffle_records=0)
_FRAME = dataclasses.replace(_VIDEO, level="frame", max_frames=4)
_IDS, _LABELS = [b"a", b"b", b"c", b"d"], [[1, 2], [], None, [3]]


def _shard(path: Path, data: DataConfig) -> str:
    """Writes two labelled videos, one with an empty list of labels and one without the field."""
    if data.level == "video":
        records = [video_record(i, own, rgb=np.ones(2, np.float32)) for i, own in zip(_IDS, _LABELS, strict=True)]
    else:
        records = [frame_record(i, own, rgb=np.ones((2, 2), np.uint8)) for i, own in zip(_IDS, _LABELS, strict=True)]
    return str(write_shard(path, records))


@pytest.mark.parametrize("data", [_VIDEO, _FRAME], ids=["video", "frame"])
def test_reading(data: DataConfig, tmp_path: Path) -> None:
    shard = _shard(tmp_path / "x.tfrecord", data)
    for flags, advice in ((True, "; --on_unlabelled=skip leaves such videos out"), (False, "give labelled ones$")):
        for make in (
            lambda faults: training_stream([shard], data, 2, seed=0, faults=faults),
            lambda faults: evaluation_stream([shard], data, 4, faults=faults),
        ):
            with pytest.raises(InputError, match=f"x.tfrecord: record 1, video 'b': no labels.*{advice}"):
                next(make(Faults(reader=Reader(has_flags=flags))))
    for policy, ids, counted in (("skip", [b"a", b"d"], 2), ("negative", _IDS, 2)):
        faults = Faults(on_unlabelled=policy)
        batch = next(evaluation_stream([shard], data, 5, faults=faults))
        assert batch["id"].numpy()[batch["valid"].numpy()].tolist() == ids
        assert faults.num_unlabelled == counted
        faults = Faults(on_unlabelled=policy)
        stream = training_stream([shard], data, 2, seed=0, faults=faults)
        rows = np.concatenate([next(stream)["labels"].numpy()[:, 0] for _ in range(2)])
        assert sorted(rows.tolist()) == ([1, 1, 3, 3] if policy == "skip" else [-1, -1, 1, 3])
        for _ in range(6):  # later passes count no video again
            next(stream)
        next(evaluation_stream([shard], data, 5, faults=faults))  # nor does a validation on the same videos
        assert faults.num_unlabelled == 2


@pytest.mark.parametrize(
    ("content", "flag", "message"),
    [
        (
            "unlabelled",
            "on_unlabelled",
            "data.validation: no usable record in 1 shards (for example, '{}': 2 videos without labels",
        ),
        ("damaged", "on_damaged", "no record was read: {}: not a TFRecord file: no record starts anywhere in it"),
    ],
)
def test_unusable_validation_shards_are_found_before_training(
    content: str, flag: str, message: str, tmp_path: Path
) -> None:
    record = video_record(b"a", [1], rgb=np.ones(2, np.float32))
    write_shard(tmp_path / "train0.tfrecord", [record])
    place = tmp_path / "validate0.tfrecord"
    write_shard(place, [video_record(name, [], rgb=np.ones(2, np.float32)) for name in (b"b", b"c")])
    if content == "damaged":
        place.write_bytes(b"\xff" * 99)
    settings = ("--set=data.features={rgb: 2}", "--set=data.num_classes=6", "--set=train.steps_per_epoch=1")
    where = (f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}", f"--{flag}=skip")
    result = run_command("train", "--config=first_level/logistic.yaml", *settings, *where)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert message.format(place) in result.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_records_without_labels_are_usable_beside_soft_labels(tmp_path: Path) -> None:
    shard = str(write_shard(tmp_path / "x.tfrecord", [video_record(b"b", [], rgb=np.ones(2, np.float32))]))
    tolerant = Faults(on_unlabelled="skip")
    check_any_record([shard], _VIDEO, tolerant, need_labels=False)
    with pytest.raises(InputError, match=r"x\.tfrecord': 1 videos without labels\); correct data\.train"):
        check_any_record([shard], _VIDEO, tolerant)


def test_labels_are_not_read_if_they_are_not_needed(tmp_path: Path) -> None:
    shard = _shard(tmp_path / "x.tfrecord", _VIDEO)
    batch = next(evaluation_stream([shard], _VIDEO.records, 4, faults=Faults()))
    assert batch["id"].numpy().tolist() == _IDS


def test_prior_counts_labelled_videos(tmp_path: Path) -> None:
    """Class 3 is a label of one of the two labelled videos, or of one of four videos in all."""
    shard = _shard(tmp_path / "x.tfrecord", _VIDEO)
    for policy, videos in (("skip", 2), ("negative", 4)):
        prior = class_prior([shard], _VIDEO, 100, Faults(on_unlabelled=policy))
        assert prior[3] == pytest.approx((1 + 0.5) / (videos + 1), rel=1e-12)
    empty = write_shard(tmp_path / "empty.tfrecord", [])
    with pytest.raises(InputError, match=r"no training record was read: for example, '.*empty\.tfrecord' is empty"):
        class_prior([str(empty)], _VIDEO, 100, Faults())


def _soft_labels(directory: Path, ids: list[bytes]) -> None:
    manifest = Manifest(("model",), "f", 6, 2, "video")
    start(directory, manifest)
    rows = [(video, np.array([4, 5]), np.array([0.75, 0.25], np.float16)) for video in ids]
    score_records.write_shard(directory / "x.tfrecord", rows)
    finish(directory, dataclasses.replace(manifest, shards={"x.tfrecord": len(ids)}))


@pytest.mark.slow
def test_soft_labels_in_place_of_hard_ones(tmp_path: Path) -> None:
    """Videos need no hard labels if soft labels are the whole target; otherwise they do."""
    shard = _shard(tmp_path / "x.tfrecord", _VIDEO)
    _soft_labels(tmp_path / "all", _IDS)

    def stream(config: LabelsConfig, policy: str = "error") -> object:
        attach = beside(config, str(tmp_path), _VIDEO)
        return training_stream([shard], _VIDEO, 4, seed=0, faults=Faults(on_unlabelled=policy), beside=attach)

    assert next(stream(LabelsConfig("all")))["soft_classes"].numpy().tolist() == [[4, 5]] * 4
    for config in (LabelsConfig("all", weight=0.5), LabelsConfig("all", unlisted_classes="hard")):
        with pytest.raises(InputError, match="video 'b': no labels"):
            next(stream(config))
    # If unlabelled videos are left out, scores of the labelled ones suffice.
    _soft_labels(tmp_path / "some", [b"a", b"d"])
    assert len(next(stream(LabelsConfig("some", weight=0.5), "skip"))["soft_classes"]) == 4
    with pytest.raises(InputError, match="2 of 4 videos have no soft labels"):
        next(stream(LabelsConfig("some", weight=0.5), "negative"))


@pytest.mark.slow
def test_commands_count_unlabelled_videos(tmp_path: Path) -> None:
    """Training and evaluation that leave out the unlabelled half equal those on shards without it."""
    rng = np.random.default_rng(3)
    labelled = [video_record(b"l%d" % i, [i % 6], rgb=rng.normal(size=2).astype(np.float32)) for i in range(8)]
    without = [video_record(b"u%d" % i, [], rgb=rng.normal(size=2).astype(np.float32)) for i in range(8)]
    mixed = [record for pair in zip(labelled, without, strict=True) for record in pair]
    for name, records in (("mixed", mixed), ("labelled", labelled)):
        for split in ("train", "validate"):
            write_shard(tmp_path / name / f"{split}0.tfrecord", records)

    def train(name: str, *flags: str) -> tuple[int, str, str]:
        run = tmp_path / f"run_{name}{len(flags)}"
        settings = ("data.features={rgb: 2}", "data.num_classes=6", "train.batch_size=4", "train.epochs=1")
        settings += ("train.steps_per_epoch=2", "data.shuffle_records=0", "train.prior_bias=none")
        overrides = [f"--set={setting}" for setting in settings]
        where = (f"--data_dir={tmp_path / name}", f"--workdir={run}", "--xla=false", "--steps_per_call=1")
        result = run_command("train", "--config=first_level/logistic.yaml", *where, *overrides, *flags)
        gap = re.search(r"best GAP@20 ([\d.]+)", result.stdout)
        return result.returncode, gap.group(1) if gap else result.stderr, result.stdout

    status, message, _ = train("mixed")
    assert status == 1 and "video 'u0': no labels" in message and "--on_unlabelled=skip" in message
    skipped = train("mixed", "--on_unlabelled=skip")
    assert skipped[:2] == train("labelled")[:2] and "left out 8 videos without labels" in skipped[2]
    for policy, num_videos in (("skip", "8"), ("negative", "16")):
        result = run_command(
            *("evaluate", f"--workdir={tmp_path / 'run_labelled0'}", f"--data_dir={tmp_path / 'mixed'}"),
            *("--xla=false", f"--on_unlabelled={policy}"),
        )
        assert re.search(rf"Videos +{num_videos}\b", result.stdout), result.stderr
        done = "left out" if policy == "skip" else "kept as negatives"
        assert f"{done} 8 videos without labels" in result.stdout
    result = run_command(
        *("evaluate", f"--workdir={tmp_path / 'run_labelled0'}", f"--data_dir={tmp_path / 'mixed'}", "--xla=false")
    )
    assert result.returncode == 1 and result.stderr.count("no labels") == 1 and "Traceback" not in result.stderr


def _set_labels(shard: str, without: list[int]) -> list[bytes]:
    """Rewrites a shard with one label a video, and none for some; returns the ids of those."""
    records = [tf.train.Example.FromString(record) for record in integrity.good_records(shard)]
    for row, record in enumerate(records):
        record.features.feature["labels"].int64_list.value[:] = [] if row in without else [row % 20]
    write_shard(Path(shard), [record.SerializeToString() for record in records])
    return [records[row].features.feature["id"].bytes_list.value[0] for row in without]


def test_stacking(rng: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(rng, tmp_path, each=12)
    shards = world.train[:2]
    gone = _set_labels(shards[0], [4]) + _set_labels(shards[1], [0, 7])
    for policy in ("skip", "negative"):
        inputs = world.inputs("train", shards, on_unlabelled=policy)
        assert inputs.check_labels(needed=True) == LeftOut(24, 3, 0)
        ids = [video for shard in shards for video in inputs.read(shard).ids.tolist()]
        assert len(ids) == 24 - 3 * (policy == "skip") and (set(gone) <= set(ids)) == (policy == "negative")
    with pytest.raises(
        InputError, match=f"video '{gone[0].decode()}' has no labels; nor have 2 of the other 23 videos"
    ):
        world.inputs("train", shards).check_labels(needed=True)


def test_kept_labels_are_read_again_if_the_shard_has_changed(rng: np.random.Generator, tmp_path: Path) -> None:
    """A stacking that was refused because of missing labels resumes once the shard has them."""
    world = make_world(rng, tmp_path, each=4)
    shard = Path(world.train[0])
    _set_labels(str(shard), [])
    whole = shard.read_bytes()
    _set_labels(str(shard), [2])
    for content in (None, whole):
        if content:
            shard.write_bytes(content)
        inputs = world.inputs("train", world.train[:1])
        inputs.cache_labels(tmp_path / "labels")
        if content:
            assert inputs.check_labels(needed=True).unlabelled == 0
        else:
            with pytest.raises(InputError, match="has no labels"):
                inputs.check_labels(needed=True)


def test_a_test_split_is_stacked_without_labels(rng: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(rng, tmp_path, each=4)
    for shard in world.validate:
        _set_labels(shard, [0, 1, 2, 3])
    assert world.inputs("validate", world.validate).check_labels(needed=False) == LeftOut(8, 0, 0)
    with pytest.raises(InputError, match="has no labels; nor have 7 of the other 7 videos"):
        world.inputs("validate", world.validate, on_unlabelled="skip").check_labels(needed=True)


def test_validation_data_is_checked_before_the_first_epoch(tmp_path: Path) -> None:
    """If the data is of the wrong level, unlabelled or damaged, nothing is trained, and no checkpoint written."""
    good = [video_record(b"l%d" % i, [i % 6], rgb=np.ones(2, np.float32)) for i in range(8)]
    write_shard(tmp_path / "train0.tfrecord", good)
    for records, message in (
        (  # no value of data.level would work, so none is suggested
            [frame_record(b"a", [1], rgb=np.ones((2, 2), np.uint8))],
            f"data.train matches video-level shards ('{tmp_path}/train0.tfrecord') and data.validation matches"
            f" frame-level shards ('{tmp_path}/validate0.tfrecord'); a run reads shards of one level: correct the",
        ),
        ([video_record(b"u", [], rgb=np.ones(2, np.float32))], "record 0, video 'u': no labels"),
        ([video_record(b"s", [1], rgb=np.ones(3, np.float32))], "record 0, video 's': 'mean_rgb' has 3 values"),
        (None, "damaged at byte 0"),
    ):
        shard = write_shard(tmp_path / "validate0.tfrecord", records or good)
        if records is None:
            shard.write_bytes(b"x" + shard.read_bytes()[1:])
        result = run_command(
            *("train", "--config=first_level/logistic.yaml", f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}"),
            *("--set=data.features={rgb: 2}", "--set=data.num_classes=6", "--set=train.batch_size=4"),
        )
        assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
        assert not (tmp_path / "run" / "checkpoints").exists()
