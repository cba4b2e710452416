"""A directory of sample data: its records, its stated GAP, determinism, overwriting."""

import dataclasses
import errno
import filecmp
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from shards import codes_of, decoded_mean

from yt8m_tf.data.record_writing import video_example
from yt8m_tf.errors import InputError
from yt8m_tf.sample_data import dataset, records
from yt8m_tf.sample_data.dataset import Layout, write_sample_data
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.sample_data.generator import SampleConfig, make_model
from yt8m_tf.sample_data.tally import global_average_precision, top_pairs

CONFIG = SampleConfig(num_classes=24, num_topics=4, rgb_size=32, audio_size=8, seed=3)
LAYOUT = Layout({"train": 50, "validate": 45, "test": 20}, videos_per_shard=30, levels=("video", "frame"))
COUNTS = FrameCounts(2, 9)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sample")
    return directory, write_sample_data(str(directory), CONFIG, LAYOUT, COUNTS)


def read(directory, split, kind):
    level = "video" if kind is tf.train.Example else "frame"
    paths = sorted(str(path) for path in (directory / level).glob(f"{split}*.tfrecord"))
    return [kind.FromString(record) for record in tf.data.TFRecordDataset(paths).as_numpy_iterator()]


def context_of(record):
    features = record.features if isinstance(record, tf.train.Example) else record.context
    fields = features.feature
    labels = list(fields["labels"].int64_list.value) if "labels" in fields else None
    return fields["id"].bytes_list.value[0], labels


def multi_hot(labels, num_classes):
    result = np.zeros((len(labels), num_classes), bool)
    for row, ids in zip(result, labels, strict=True):
        row[ids] = True
    return result


def slow_gap(scores, labels):
    """GAP by definition, pair by pair."""
    pairs = []
    for row, truth in zip(scores.tolist(), labels.tolist(), strict=True):
        pairs += sorted(zip(row, truth, strict=True), key=lambda pair: -pair[0])[:20]
    total = hits = 0
    for rank, (_, truth) in enumerate(sorted(pairs, key=lambda pair: -pair[0]), start=1):
        hits += truth
        total += hits / rank if truth else 0
    return total / labels.sum()


def gap(scores, labels):
    return global_average_precision(*top_pairs(scores, labels), int(labels.sum()))


def test_gap_by_hand_and_against_the_definition():
    scores = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.05]])
    labels = np.array([[True, False, True], [False, True, False]])
    assert gap(scores, labels) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3, abs=1e-15)
    tied = np.array([[0.5, 0.5, 0.1]])
    assert gap(tied, np.array([[True, False, False]])) == 0.5  # whichever of the equal scores comes first
    rng = np.random.default_rng()
    scores, labels = rng.random((40, 30)), rng.random((40, 30)) < 0.2
    assert gap(scores, labels) == pytest.approx(slow_gap(scores, labels), abs=1e-12)


def test_records_have_the_original_formats(sample):
    directory, summary = sample
    names = [f"{split}{shard:04d}.tfrecord" for split in ("test", "train", "validate") for shard in range(2)]
    names.remove("test0001.tfrecord")
    all_ids = []
    for level in ("video", "frame"):
        assert sorted(path.name for path in (directory / level).iterdir()) == names
    for split, number in LAYOUT.num_videos.items():
        videos, clips = read(directory, split, tf.train.Example), read(directory, split, tf.train.SequenceExample)
        assert len(videos) == number
        assert [context_of(video) for video in videos] == [context_of(clip) for clip in clips]
        for video, clip in zip(videos, clips, strict=True):
            video_id, labels = context_of(video)
            all_ids.append(video_id)
            keys = {"id", "mean_rgb", "mean_audio"} | ({"labels"} if split != "test" else set())
            assert set(video.features.feature) == keys
            assert set(clip.context.feature) == keys - {"mean_rgb", "mean_audio"}
            assert set(clip.feature_lists.feature_list) == {"rgb", "audio"}
            assert split == "test" or (labels and labels == sorted(set(labels)) and max(labels) < 24)
            for name, size in (("rgb", 32), ("audio", 8)):
                mean = np.array(video.features.feature[f"mean_{name}"].float_list.value)
                frames = codes_of(clip)[name]
                assert mean.shape == (size,)
                assert frames.shape[1] == size
                assert 1 <= len(frames) <= 9
                assert -1.9921875 <= mean.min() <= mean.max() <= 2.0078125
                assert np.abs(decoded_mean(frames) - mean).max() <= 2 / 255
    assert len(set(all_ids)) == 115
    assert {len(video_id) for video_id in all_ids} == {4}
    assert summary["splits"]["validate"]["num_videos"] == 45
    assert json.loads((directory / "sample_data.json").read_text()) == summary
    assert all((directory / name).stat().st_size == size for name, size in summary["shard_bytes"].items())


def test_reachable_gap_is_that_of_the_records(sample):
    directory, summary = sample
    model = make_model(CONFIG)
    hidden = [line.split(",") for line in (directory / "test_labels.csv").read_text().splitlines()[1:]]
    for split in ("validate", "test"):
        videos, clips = read(directory, split, tf.train.Example), read(directory, split, tf.train.SequenceExample)
        ids, labels = zip(*map(context_of, videos), strict=True)
        if split == "test":
            assert [row[0].encode() for row in hidden] == list(ids)
            labels = [[int(label) for label in row[1].split()] for row in hidden]
        means = {
            n: np.array([v.features.feature[f"mean_{n}"].float_list.value for v in videos]) for n in model.features
        }
        decoded = {name: [] for name in model.features}
        for codes in map(codes_of, clips):
            for name in decoded:
                decoded[name].append(decoded_mean(codes[name][: min(map(len, codes.values()))]))
        truth = multi_hot(labels, 24)
        for level, features in (("video", means), ("frame", {k: np.array(v) for k, v in decoded.items()})):
            stated = summary["best_reachable_gap"][split][level]
            assert stated == pytest.approx(slow_gap(model.posterior(features), truth), abs=1e-9)
        assert summary["class_prior_gap"][split] < summary["best_reachable_gap"][split]["video"] < 1


def true_labels_of(directory):
    rows = [line.split(",") for line in (directory / "true_labels.csv").read_text().splitlines()[1:]]
    return {video_id.encode(): [int(label) for label in labels.split()] for video_id, labels in rows}


def test_true_labels_are_those_that_the_features_show(tmp_path):
    config = SampleConfig(24, 4, 3.0, 0.3, 64, 8, int(np.random.default_rng().integers(1000)))
    layout = Layout({"train": 600, "validate": 40, "test": 60}, 250, ("video",))
    write_sample_data(str(tmp_path), config, layout, COUNTS)
    truth, rgb = true_labels_of(tmp_path), make_model(config).features["rgb"]
    ids, differs, wrong, missing, of_true, written = [], 0, 0, 0, 0, 0
    for split in layout.num_videos:
        for video in read(tmp_path, split, tf.train.Example):
            video_id, labels = context_of(video)
            ids.append(video_id)
            true = multi_hot([truth[video_id]], 24)[0]
            # On the axis of a class, its prototype is 4 to 6 standard deviations long: a threshold at half of it errs
            # in 1 to 2 %.
            seen = (np.array(video.features.feature["mean_rgb"].float_list.value) @ rgb.basis.T)[rgb.axes]
            differs += np.sum((seen / rgb.strengths > 0.5) != true)
            if labels is not None:
                noisy = multi_hot([labels], 24)[0]
                wrong, missing = wrong + np.sum(noisy & ~true), missing + np.sum(true & ~noisy)
                of_true, written = of_true + true.sum(), written + noisy.sum()
    assert list(truth) == ids
    assert differs / (24 * len(ids)) < 0.03  # the written labels differ in 7 %
    assert wrong / written == pytest.approx(0.3, abs=0.06)
    assert missing / of_true == pytest.approx(0.3, abs=0.06)


def test_without_wrong_labels_the_written_ones_are_true(tmp_path):
    config = dataclasses.replace(CONFIG, noise_labels=0.0)
    write_sample_data(str(tmp_path), config, dataclasses.replace(LAYOUT, levels=("video",)), COUNTS)
    truth = true_labels_of(tmp_path)
    for split in ("train", "validate"):
        for video in read(tmp_path, split, tf.train.Example):
            video_id, labels = context_of(video)
            assert truth[video_id] == labels
    hidden = (tmp_path / "test_labels.csv").read_text().splitlines()[1:]
    assert (tmp_path / "true_labels.csv").read_text().splitlines()[-len(hidden) :] == hidden


def test_vocabulary_counts_the_training_videos(sample):
    directory, _ = sample
    lines = (directory / "vocabulary.csv").read_text().splitlines()
    assert lines[0] == (
        "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription"
    )
    labels = multi_hot([context_of(video)[1] for video in read(directory, "train", tf.train.Example)], 24)
    rows = [line.split(",") for line in lines[1:]]
    assert [int(row[0]) for row in rows] == list(range(24))
    assert [int(row[1]) for row in rows] == labels.sum(axis=0).tolist()
    assert len({row[3] for row in rows}) == 24


def test_the_same_arguments_give_the_same_bytes(sample, tmp_path):
    directory, summary = sample
    again = write_sample_data(str(tmp_path / "again"), CONFIG, LAYOUT, COUNTS)
    names = [*summary["shard_bytes"], "sample_data.json", "vocabulary.csv", "test_labels.csv", "true_labels.csv"]
    assert again == summary
    assert filecmp.cmpfiles(directory, tmp_path / "again", names, shallow=False) == (names, [], [])
    one_level = dataclasses.replace(LAYOUT, levels=("video",))
    videos = write_sample_data(str(tmp_path / "videos"), CONFIG, one_level, COUNTS)["shard_bytes"]
    assert filecmp.cmpfiles(directory, tmp_path / "videos", videos, shallow=False)[0] == list(videos)
    other_seed = dataclasses.replace(CONFIG, seed=4)
    other = write_sample_data(str(tmp_path / "other"), other_seed, one_level, COUNTS)["shard_bytes"]
    assert filecmp.cmpfiles(directory, tmp_path / "other", other, shallow=False)[1] == list(other)


def test_output_directory_is_not_overwritten_by_mistake(tmp_path):
    output, layout = tmp_path / "out", Layout({"train": 9, "validate": 0, "test": 0}, 3, ("video",))
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty; .*--overwrite"):
        write_sample_data(str(output), CONFIG, layout, COUNTS)
    with pytest.raises(InputError, match=r"no sample_data\.json"):
        write_sample_data(str(output), CONFIG, layout, COUNTS, overwrite=True)
    (output / "mine.txt").unlink()
    write_sample_data(str(output), CONFIG, layout, COUNTS)
    (output / "video" / "mine.tfrecord").write_text("mine")
    fewer = dataclasses.replace(layout, num_videos={"train": 4, "validate": 0, "test": 0})
    write_sample_data(str(output), CONFIG, fewer, COUNTS, overwrite=True)
    names = {path.name for path in (output / "video").iterdir()}
    assert names == {"train0000.tfrecord", "train0001.tfrecord", "mine.tfrecord"}


def test_a_run_that_failed_can_be_repeated(tmp_path, monkeypatch):
    output, layout = str(tmp_path / "out"), Layout({"train": 9, "validate": 0, "test": 0}, 3, ("video",))

    def fail(record):
        if record.video_id[:1] != b"0":
            raise KeyboardInterrupt
        return video_example(record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset, "video_example", fail)
        write_sample_data(output, CONFIG, layout, COUNTS)
    assert not (tmp_path / "out" / "sample_data.json").exists()
    assert list((tmp_path / "out" / "video").iterdir()) == []
    summary = write_sample_data(output, CONFIG, layout, COUNTS, overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"sample_data.json", "video"}
    assert len(summary["shard_bytes"]) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SampleConfig(num_classes=1), "--num_classes=1: give a value of 2 to 6144"),
        (lambda: SampleConfig(num_classes=25, rgb_size=4), "--num_classes=25"),
        (lambda: SampleConfig(noise_labels=0.5), "--noise_labels=0.5"),
        (lambda: SampleConfig(labels_per_video=31), "--labels_per_video=31"),
        (lambda: SampleConfig(num_topics=0), "--num_topics=0"),
        (lambda: Layout({"train": -1}, 5, ("video",)), "--num_train=-1"),
        (lambda: Layout({"train": 0}, 5, ("video",)), "--num_train=0: no split has videos"),
        (lambda: Layout({"train": 1}, 0, ("video",)), "--videos_per_shard=0"),
        (lambda: Layout({"train": 1}, 5, ("clip",)), "--levels=clip"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_command_prints_one_line_for_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_command("sample-data", f"--output_dir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"yt8m-sample-data: error: --output_dir={tmp_path} is not empty")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_gives_a_one_line_error(tmp_path, monkeypatch):
    replace = os.replace

    def fail(source, target):
        if str(target).endswith(".tfrecord"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    layout = Layout({"train": 3, "validate": 0, "test": 0}, 3, ("video",))
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match=r"train0000\.tfrecord cannot be written: No space left") as caught,
    ):
        patch.setattr(records.os, "replace", fail)
        write_sample_data(str(tmp_path / "out"), CONFIG, layout, COUNTS)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["sample_data.json.tmp"]
