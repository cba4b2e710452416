"""Writes a set of sample data with rated segments: clips of scenes, and the best possible MAP."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from yt8m_tf.console.progress import Progress
from yt8m_tf.data.record_writing import VideoRecord, clip_example, video_example, write_shard
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.segment_map import mean_average_precision, ratings_by_class
from yt8m_tf.sample_data.dataset import SPLITS, Layout, label_text, video_id
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.sample_data.generator import SampleConfig, make_model
from yt8m_tf.sample_data.output import (
    SEGMENT_CLASSES,
    TEST_LABELS,
    TRUE_LABELS,
    TRUE_SEGMENTS,
    VOCABULARY,
    csv_text,
    finish_output,
    start_output,
    vocabulary_text,
    write_text,
)
from yt8m_tf.sample_data.scenes import Clips, RatedPairs, draw_clips, rate, scene_model, scene_posteriors
from yt8m_tf.sample_data.tally import Tally

_NOTE = (
    "best_reachable_map: MAP over all classes with a positive rating, of the generator's own posterior of the ratings"
    " of a segment. segment: given only the frames of its scene; clip: given the whole clip. No model can be expected"
    " to do better. video_map: if all segments of a video have the same score, the probability that raters write the"
    " class for any scene: the value of knowing a video's labels. best_reachable_gap: GAP@20 of that score, given the"
    " frames of each scene, against the labels of videos, which are the classes that raters write for any scene. With"
    " video-level features, which are means over all frames, less can be reached; that value has no closed form."
)


def write_segment_data(
    output_dir: str, config: SampleConfig, layout: Layout, counts: FrameCounts, overwrite: bool = False
) -> dict[str, Any]:
    """Generates the data; the same arguments give the same bytes (from the same NumPy on the same kind of machine).

    Args:
      output_dir: directory of the data.
      config: configuration of scenes; `labels_per_video` is the mean number of labels of a scene.
      layout: videos of each split and their files. Ratings are in the frame-level files of every split.
      counts: numbers of frames of clips.
      overwrite: see `start_output`.

    Returns:
      The contents of sample_data.json: parameters, numbers of videos, labels and ratings, MAPs and GAPs, and sizes of
      the shards.

    Raises:
      InputError: `layout` has no frame level; see `start_output`; or a file cannot be written.
    """
    if "frame" not in layout.levels:
        raise InputError(f"--levels={','.join(layout.levels)}: ratings of segments need frame-level records; add frame")
    planned = [f"{level}/{name}" for _, name, _ in layout.shards() for level in layout.levels]
    start_output(output_dir, planned, overwrite)
    model = scene_model(make_model(config))
    # Half of the classes, of all frequencies.
    chosen = np.random.default_rng([config.seed, len(SPLITS) + 1]).permutation(config.num_classes)
    classes = np.sort(chosen[: config.num_classes // 2])
    tallies = {split: Tally(config.num_classes) for split in layout.num_videos}
    rated = {split: _RatingTally() for split in layout.num_videos}
    shard_bytes: dict[str, int] = {}
    hidden, truth = [("id", "labels")], [("id", "labels")]
    scenes: list[tuple[str, ...]] = [("id", "start", "end", "labels")]
    with Progress(total=sum(layout.num_videos.values()), unit=" videos", desc="sample data") as progress:
        for split, name, numbers in layout.shards():
            rng = np.random.default_rng([config.seed, 1 + SPLITS.index(split), numbers.start])
            clips = draw_clips(model, counts.draw(len(numbers), rng), rng)
            posteriors = scene_posteriors(model, clips)
            pairs = rate(clips, posteriors["clip"], classes, rng)
            ids = [video_id(split, number) for number in numbers]
            for level, size in _write(output_dir, name, layout, split, ids, clips, pairs).items():
                shard_bytes[f"{level}/{name}"] = size
            labels, of_video = clips.any_scene(clips.written), clips.some_scene(posteriors["clip"])
            scores = {"frame": of_video, "prior": np.broadcast_to(model.class_prior, labels.shape)}
            tallies[split].add(labels, scores if split != "train" else {})
            rated[split].add(pairs, posteriors | {"video": of_video[clips.clip_of]})
            names = [own.decode() for own in ids]
            truth += zip(names, map(label_text, clips.any_scene(clips.true)), strict=True)
            scenes += _true_scenes(names, clips)
            if split == "test":
                hidden += zip(names, map(label_text, labels), strict=True)
            progress.update(len(numbers))
    texts = {
        VOCABULARY: vocabulary_text(model, tallies["train"].class_counts),
        TEST_LABELS: csv_text(hidden),
        TRUE_LABELS: csv_text(truth),
        TRUE_SEGMENTS: csv_text(scenes),
        SEGMENT_CLASSES: csv_text([("Index",), *((class_id,) for class_id in classes.tolist())]),
    }
    for name, text in texts.items():
        write_text(os.path.join(output_dir, name), text)
    evaluated = [split for split in tallies if split != "train"]
    parameters = {"videos_per_shard": layout.videos_per_shard, "frames": dataclasses.asdict(counts), "segments": True}
    summary = {
        "parameters": dataclasses.asdict(config) | parameters,
        "splits": {split: tally.statistics() | rated[split].statistics() for split, tally in tallies.items()},
        "best_reachable_gap": {split: tallies[split].gaps() for split in evaluated},
        "class_prior_gap": {split: tallies[split].prior_gap() for split in evaluated},
        "best_reachable_map": {split: rated[split].maps("segment", "clip") for split in evaluated},
        "video_map": {split: rated[split].maps("video").get("video") for split in evaluated},
        "note": _NOTE,
    }
    return finish_output(output_dir, summary, shard_bytes)


class _RatingTally:
    """Collects the ratings of a split, and the scores of the rated pairs."""

    def __init__(self) -> None:
        self._classes: list[np.ndarray] = []
        self._present: list[np.ndarray] = []
        self._scores: dict[str, list[np.ndarray]] = {}

    def add(self, pairs: RatedPairs, scores: dict[str, np.ndarray]) -> None:
        """Adds the ratings of a shard; scores are those of its scenes, [M, C]."""
        self._classes.append(pairs.classes)
        self._present.append(pairs.present)
        for key, values in scores.items():
            self._scores.setdefault(key, []).append(values[pairs.scenes, pairs.classes])

    def statistics(self) -> dict[str, int]:
        """Returns the number of ratings, and of those that say present."""
        present = [int(np.count_nonzero(own)) for own in self._present]
        return {"num_ratings": sum(map(len, self._present)), "num_present": sum(present)}

    def maps(self, *keys: str) -> dict[str, float]:
        """Returns MAP by kind of score; empty for a split without ratings that say present.

        Among equal scores of a class, the pair that was written first ranks first.
        """
        if not any(own.any() for own in self._present):
            return {}
        classes, present = np.concatenate(self._classes), np.concatenate(self._present)
        # Each pair counts as a separate segment, because lists are by class and contain only rated pairs.
        ratings = ratings_by_class(np.arange(len(classes)), classes, present)
        found = {}
        for key in keys:
            order = np.argsort(-np.concatenate(self._scores[key]), kind="stable")
            lists = ((class_id, order[classes[order] == class_id]) for class_id in ratings)
            found[key] = mean_average_precision(lists, ratings, k=len(classes)).mean
        return found


def _write(
    output_dir: str, name: str, layout: Layout, split: str, ids: list[bytes], clips: Clips, pairs: RatedPairs
) -> dict[str, int]:
    """Writes the shards of both levels, and returns their sizes; records of the test split have no labels of videos."""
    labels, means = clips.any_scene(clips.written), clips.clip_means()
    records = [
        VideoRecord(
            own,
            None if split == "test" else np.flatnonzero(labels[row]).tolist(),
            {key: values[row].astype(np.float32) for key, values in means.items()},
        )
        for row, own in enumerate(ids)
    ]
    sizes = {}
    if "video" in layout.levels:
        sizes["video"] = write_shard(os.path.join(output_dir, "video", name), map(video_example, records))
    rated = pairs.of_clips(len(ids))
    sizes["frame"] = write_shard(
        os.path.join(output_dir, "frame", name), map(clip_example, records, clips.frames, rated)
    )
    return sizes


def _true_scenes(names: list[str], clips: Clips) -> list[tuple[str, ...]]:
    rows = zip(clips.clip_of, clips.starts, clips.stops, clips.true, strict=True)
    return [(names[clip], str(start), str(stop), label_text(true)) for clip, start, stop, true in rows]
