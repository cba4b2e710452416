"""Sample data with rated segments: posteriors by brute force, contents of records, the stated MAP."""

from __future__ import annotations

import csv
import dataclasses
import filecmp
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from shards import codes_of, decoded_mean

from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.segment_submissions import read_ratings
from yt8m_tf.sample_data.dataset import Layout
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.sample_data.generator import SampleConfig, make_model
from yt8m_tf.sample_data.scenes import SAME_TOPIC, SIZE, draw_clips, rate, scene_model, scene_posteriors
from yt8m_tf.sample_data.segment_dataset import write_segment_data
from yt8m_tf.serving.segment_submission import read_classes

CONFIG = SampleConfig(num_classes=24, num_topics=4, rgb_size=32, audio_size=8, seed=3)
LAYOUT = Layout({"train": 20, "validate": 60, "test": 10}, videos_per_shard=40, levels=("video", "frame"))
COUNTS = FrameCounts(3, 33)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    directory = tmp_path_factory.mktemp("segments")
    return directory, write_segment_data(str(directory), CONFIG, LAYOUT, COUNTS)


def _records(directory: Path, split: str) -> list[tf.train.SequenceExample]:
    paths = sorted(str(path) for path in (directory / "frame").glob(f"{split}*.tfrecord"))
    return [tf.train.SequenceExample.FromString(r) for r in tf.data.TFRecordDataset(paths).as_numpy_iterator()]


def _ratings(record: tf.train.SequenceExample) -> list[tuple[int, int, int, float]]:
    context = record.context.feature
    integers = [context[f"segment_{key}"].int64_list.value for key in ("start_times", "end_times", "labels")]
    return list(zip(*integers, context["segment_scores"].float_list.value, strict=True))


def _id(record: tf.train.SequenceExample) -> str:
    return record.context.feature["id"].bytes_list.value[0].decode()


def _scenes(directory: Path) -> dict[str, list[tuple[int, int, set[int]]]]:
    found: dict[str, list[tuple[int, int, set[int]]]] = {}
    with open(directory / "true_segments.csv", newline="") as file:
        for row in csv.DictReader(file):
            scene = (int(row["start"]), int(row["end"]), set(map(int, row["labels"].split())))
            found.setdefault(row["id"], []).append(scene)
    return found


def test_posteriors_equal_sums_over_all_outcomes() -> None:
    """Bayes' rule over main topics, topics of scenes, true and written classes; 3 classes, 2 topics."""
    config = SampleConfig(num_classes=3, num_topics=2, labels_per_video=1.0, rgb_size=4, audio_size=0, seed=5)
    model = scene_model(make_model(config))
    clips = draw_clips(model, np.array([4, 22, 31]), np.random.default_rng(1))
    found = scene_posteriors(model, clips)
    rgb, subsets = model.features["rgb"], np.array(list(itertools.product((0, 1), repeat=3)))
    keep = 1 - model.miss
    joint = np.zeros((len(clips.starts), 2, len(subsets)))  # [M, T, W]: P(features, written | topic)
    for scene, topic in np.ndindex(joint.shape[:2]):
        seen = clips.means["rgb"][scene] @ rgb.basis.T
        for true in subsets:
            prior = np.prod(np.where(true, model.label_probability[topic], 1 - model.label_probability[topic]))
            expected = np.zeros(4)
            np.add.at(expected, rgb.axes, true * rgb.strengths)
            likelihood = np.exp(-0.5 * np.sum(((seen - expected) / rgb.noise_std) ** 2))
            for number, written in enumerate(subsets):
                chance = np.where(true, keep, model.add)
                channel = np.prod(np.where(written, chance, 1 - chance))
                joint[scene, topic, number] += (number > 0) * prior * channel * likelihood
        some = 1 - np.prod(1 - model.written_probability[topic])
        joint[scene, topic] /= some
    alone = np.einsum("t,mtw->mw", model.topic_prior, joint)
    np.testing.assert_allclose(found["segment"], alone @ subsets / alone.sum(axis=1, keepdims=True), rtol=1e-6)
    for clip in range(3):
        scenes = np.flatnonzero(clips.clip_of == clip)
        total, with_class = 0.0, np.zeros((len(scenes), 3))
        for main in range(2):
            given = SAME_TOPIC * np.eye(2)[main] + (1 - SAME_TOPIC) * model.topic_prior
            own = np.einsum("t,mtw->mw", given, joint[scenes])  # [scenes, W]
            together = model.topic_prior[main] * np.prod(own.sum(axis=1))
            total += together
            with_class += together * (own @ subsets) / own.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found["clip"][scenes], with_class / total, rtol=1e-6)


def test_ratings_agree_with_the_posterior() -> None:
    """Calibration: of rated pairs with a probability of about p, a share p is present (5 standard errors)."""
    model = scene_model(make_model(CONFIG))
    rng = np.random.default_rng(0)
    clips = draw_clips(model, np.full(1500, 20), rng)
    posterior = scene_posteriors(model, clips)["clip"]
    pairs = rate(clips, posterior, np.arange(24), rng)
    probability = posterior[pairs.scenes, pairs.classes]
    for low, high in itertools.pairwise(np.linspace(0, 1, 6)):
        own = (probability > low) & (probability <= high)
        error = np.sqrt(np.sum(probability[own] * (1 - probability[own])))
        assert abs(np.sum(pairs.present[own]) - np.sum(probability[own])) < 5 * error and own.sum() > 100


def test_records_have_ratings_of_segments_of_the_listed_classes(sample) -> None:
    directory, summary = sample
    classes = read_classes(directory / "segment_label_ids.csv", 24)
    assert len(classes) == 12
    scenes, tails = _scenes(directory), 0
    for split in ("train", "validate", "test"):
        records = _records(directory, split)
        assert len(records) == LAYOUT.num_videos[split]
        ratings = [_ratings(record) for record in records]
        assert sum(map(len, ratings)) == summary["splits"][split]["num_ratings"]
        assert sum(row[3] for own in ratings for row in own) == summary["splits"][split]["num_present"]
        for record, own in zip(records, ratings, strict=True):
            length = len(record.feature_lists.feature_list["rgb"].feature)
            assert len(own) == 5 == len({(start, class_id) for start, _, class_id, _ in own})
            for start, end, class_id, score in own:
                assert start % SIZE == 0 and start < length and end == start + SIZE and class_id in classes
                assert score in (0, 1)
                # The clip's frames in a segment lie within one scene.
                assert any(low <= start and min(end, length) <= high for low, high, _ in scenes[_id(record)])
                tails += end > length
            assert ("labels" in record.context.feature) == (split != "test")
    assert tails
    assert len(read_ratings(str(directory / "frame/*.tfrecord"), 24).names) <= 5 * 90


def test_without_wrong_ratings_ratings_are_true_and_videos_have_the_labels_of_all_scenes(tmp_path: Path) -> None:
    write_segment_data(str(tmp_path), dataclasses.replace(CONFIG, noise_labels=0.0), LAYOUT, COUNTS)
    scenes = _scenes(tmp_path)
    for record in _records(tmp_path, "validate"):
        own = scenes[_id(record)]
        for start, _, class_id, score in _ratings(record):
            assert score == any(low <= start < high and class_id in labels for low, high, labels in own)
        assert set(record.context.feature["labels"].int64_list.value) == set().union(*(labels for *_, labels in own))


def test_the_stated_map_is_that_of_the_posterior_of_the_frames_in_the_records(sample) -> None:
    directory, summary = sample
    model, scenes = scene_model(make_model(CONFIG)), _scenes(directory)
    scored: dict[int, list[tuple[float, float]]] = {}
    for record in _records(directory, "validate"):
        codes = codes_of(record)
        for start, _, class_id, score in _ratings(record):
            low, high = next((low, high) for low, high, _ in scenes[_id(record)] if low <= start < high)
            means = {name: decoded_mean(own[low:high])[None] for name, own in codes.items()}
            scored.setdefault(class_id, []).append((model.posterior(means)[0, class_id], score))
    found = []
    for pairs in scored.values():
        if positives := sum(score for _, score in pairs):
            hits, precisions = 0, 0.0
            for rank, (_, score) in enumerate(sorted(pairs, key=lambda pair: -pair[0]), start=1):
                hits += score == 1
                precisions += score * hits / rank
            found.append(precisions / positives)
    assert summary["best_reachable_map"]["validate"]["segment"] == pytest.approx(np.mean(found), abs=1e-9)
    assert summary["best_reachable_map"]["validate"]["clip"] > summary["video_map"]["validate"] + 0.1


def test_features_of_videos_are_means_of_their_frames(sample) -> None:
    directory, _ = sample
    videos = tf.data.TFRecordDataset(str(directory / "video/test0000.tfrecord")).as_numpy_iterator()
    for video, clip in zip(videos, _records(directory, "test"), strict=True):
        features = tf.train.Example.FromString(video).features.feature
        for name, codes in codes_of(clip).items():
            np.testing.assert_allclose(features[f"mean_{name}"].float_list.value, decoded_mean(codes), atol=1e-6)


def test_the_same_flags_give_the_same_bytes_and_replace_an_earlier_run(sample, tmp_path: Path) -> None:
    flags = ["--segments", "--num_classes=24", "--num_topics=4", "--rgb_size=32", "--audio_size=8", "--seed=3"]
    flags += ["--num_train=20", "--num_validate=60", "--num_test=10", "--videos_per_shard=40"]
    flags += ["--min_frames=3", "--max_frames=33", f"--output_dir={tmp_path}", "--overwrite"]
    for _ in range(2):
        result = run_command("sample-data", *flags)
        assert result.returncode == 0, result.stderr
    assert "ratings of segments" in result.stdout and "best reachable MAP on validate: 0." in result.stdout
    names = [*json.loads((tmp_path / "sample_data.json").read_text())["shard_bytes"], "sample_data.json"]
    names += ["segment_label_ids.csv", "true_segments.csv", "true_labels.csv", "test_labels.csv", "vocabulary.csv"]
    assert filecmp.cmpfiles(sample[0], tmp_path, names, shallow=False)[0] == names


def test_ratings_need_frames_of_generated_videos(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--levels=video: ratings of segments need frame-level records"):
        layout = dataclasses.replace(LAYOUT, levels=("video",))
        write_segment_data(str(tmp_path), CONFIG, layout, COUNTS)
    result = run_command("sample-data", "--segments", f"--output_dir={tmp_path}", "--from_video_level=x*.tfrecord")
    assert (
        result.returncode == 1
        and "--segments: the contents of --from_video_level videos over time are unknown; give" in result.stderr
    )
