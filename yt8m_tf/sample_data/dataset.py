"""Writes a set of sample data: shards of both levels, vocabulary, hidden labels, and the best possible GAP."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from yt8m_tf import schema
from yt8m_tf.console.progress import Progress
from yt8m_tf.data.record_writing import VideoRecord, clip_example, video_example, write_shard
from yt8m_tf.data.shards import identity, list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.sample_data.frames import FrameCounts, clip_from_means
from yt8m_tf.sample_data.generator import SampleConfig, SampleModel, make_model
from yt8m_tf.sample_data.output import (
    TEST_LABELS,
    TRUE_LABELS,
    VOCABULARY,
    csv_text,
    finish_output,
    start_output,
    vocabulary_text,
    write_text,
)
from yt8m_tf.sample_data.records import make_clips, read_video_shard
from yt8m_tf.sample_data.tally import Tally

SPLITS = ("train", "validate", "test")
_NUM_IDS = 62**4 // len(SPLITS)  # number of ids of 4 letters or digits, for each split
_NOTE = (
    "best_reachable_gap: GAP@20 of the generator's own posterior, given the features as they are written, against the"
    " labels as they are written, including wrong ones. No model can be expected to do better. At frame level it is the"
    " posterior given the mean over a clip's frames, which is the video-level feature up to half a quantisation step"
    " divided by the number of frames; otherwise the frames are independent of the labels. class_prior_gap: GAP@20 if"
    " every video has the class prior as its scores."
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Numbers of videos and shards of each split.

    Attributes:
      num_videos: number of videos by split; 0 for none.
      videos_per_shard: the last shard of a split may have fewer.
      levels: "video", "frame", or both, which have the same videos in files of the same names and order.

    Raises:
      InputError: a number is out of range, or a level is unknown.
    """

    num_videos: Mapping[str, int]
    videos_per_shard: int
    levels: Sequence[str]

    def __post_init__(self) -> None:
        for split, number in self.num_videos.items():
            if not 0 <= number <= _NUM_IDS:
                raise InputError(f"--num_{split}={number}: give 0 to {_NUM_IDS}, the number of ids")
        if not any(self.num_videos.values()):
            raise InputError("--num_train=0: no split has videos; give at least one split a number above 0")
        if self.videos_per_shard < 1:
            raise InputError(f"--videos_per_shard={self.videos_per_shard}: give at least 1")
        if not self.levels or set(self.levels) - {"video", "frame"}:
            raise InputError(f"--levels={','.join(self.levels)}: give video, frame, or video,frame")

    def shards(self) -> Iterator[tuple[str, str, range]]:
        """Yields the split, file name, and video numbers in the split of every shard."""
        for split, number in self.num_videos.items():
            for shard, first in enumerate(range(0, number, self.videos_per_shard)):
                yield split, f"{split}{shard:04d}.tfrecord", range(first, min(first + self.videos_per_shard, number))


def write_sample_data(
    output_dir: str, config: SampleConfig, layout: Layout, counts: FrameCounts, overwrite: bool = False
) -> dict[str, Any]:
    """Generates the data; the same arguments give the same bytes, with the same NumPy on the same kind of machine.

    Returns:
      The contents of sample_data.json: parameters, numbers of videos and labels, GAPs, and sizes of the shards.

    Raises:
      InputError: see `start_output`; or a file cannot be written.
    """
    planned = [f"{level}/{name}" for _, name, _ in layout.shards() for level in layout.levels]
    start_output(output_dir, planned, overwrite)
    model = make_model(config)
    tallies = {split: Tally(config.num_classes) for split in layout.num_videos}
    shard_bytes: dict[str, int] = {}
    hidden, truth = [("id", "labels")], [("id", "labels")]
    with Progress(total=sum(layout.num_videos.values()), unit=" videos", desc="sample data") as progress:
        for split, name, numbers in layout.shards():
            rng = np.random.default_rng([config.seed, 1 + SPLITS.index(split), numbers.start])
            true, labels, features = model.sample_with_truth(len(numbers), rng)
            records = _records(split, numbers, labels, features)
            seen = {}  # the features that a model can see, by level
            if "video" in layout.levels:
                path = os.path.join(output_dir, "video", name)
                shard_bytes[f"video/{name}"] = write_shard(path, map(video_example, records))
                seen["video"] = features
            if "frame" in layout.levels:
                path = os.path.join(output_dir, "frame", name)
                means: list[dict[str, np.ndarray]] = []
                shard_bytes[f"frame/{name}"] = write_shard(path, _clips(records, counts, rng, means))
                seen["frame"] = {key: np.stack([mean[key] for mean in means]) for key in features}
            tallies[split].add(labels, _best_scores(model, labels, seen) if split != "train" else {})
            ids = [record.video_id.decode() for record in records]
            truth += zip(ids, map(label_text, true), strict=True)
            if split == "test":
                hidden += zip(ids, map(label_text, labels), strict=True)
            progress.update(len(numbers))
    write_text(os.path.join(output_dir, VOCABULARY), vocabulary_text(model, tallies["train"].class_counts))
    write_text(os.path.join(output_dir, TEST_LABELS), csv_text(hidden))
    write_text(os.path.join(output_dir, TRUE_LABELS), csv_text(truth))
    frames = dataclasses.asdict(counts) if "frame" in layout.levels else None
    summary = {
        "parameters": dataclasses.asdict(config) | {"videos_per_shard": layout.videos_per_shard, "frames": frames},
        "splits": {split: tally.statistics() for split, tally in tallies.items()},
        "best_reachable_gap": {split: tally.gaps() for split, tally in tallies.items() if split != "train"},
        "class_prior_gap": {split: tally.prior_gap() for split, tally in tallies.items() if split != "train"},
        "note": _NOTE,
    }
    return finish_output(output_dir, summary, shard_bytes)


def write_clips(
    output_dir: str, pattern: str, counts: FrameCounts, seed: int, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a frame-level shard `<output_dir>/frame/NAME` for every video-level shard NAME.

    Returns:
      The contents of sample_data.json: parameters, and sizes of the shards.

    Raises:
      InputError: no file matches, two have the same name, or one is in `output_dir`; see `start_output` and
        `records.make_clips`.
    """
    found = list_shards([pattern], source="--from_video_level")
    paths = {os.path.basename(path): path for path in found}
    if len(paths) < len(found):
        problem = "several shards have the same file name"
        raise InputError(f"--from_video_level={pattern}: {problem}; give one directory at a time")
    inside = os.path.join(os.path.realpath(output_dir), "")
    if own := [path for path in found if identity(path).startswith(inside)]:
        raise InputError(f"--output_dir={output_dir}: contains '{own[0]}', which is to be read; name another directory")
    for path in found:  # before --overwrite removes files
        next(read_video_shard(path), None)
    start_output(output_dir, [f"frame/{name}" for name in paths], overwrite)
    shard_bytes = {}
    for name, path in Progress(paths.items(), unit=" shards", desc="frames from video level"):
        shard_bytes[f"frame/{name}"] = write_shard(
            os.path.join(output_dir, "frame", name), make_clips(path, counts, seed)
        )
    parameters = {"from_video_level": pattern, "seed": seed, "frames": dataclasses.asdict(counts)}
    return finish_output(output_dir, {"parameters": parameters}, shard_bytes)


def _best_scores(
    model: SampleModel, labels: np.ndarray, seen: Mapping[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns the posterior given the features of each level, and the class prior, [N, C] each."""
    scores = {level: model.posterior(features) for level, features in seen.items()}
    return scores | {"prior": np.broadcast_to(model.class_prior, labels.shape)}


def _records(split: str, numbers: range, labels: np.ndarray, features: dict[str, np.ndarray]) -> list[VideoRecord]:
    """Returns the records of a shard; those of the test split have no labels."""
    records = []
    for row, number in enumerate(numbers):
        written = None if split == "test" else np.flatnonzero(labels[row]).tolist()
        values = {name: array[row] for name, array in features.items()}
        records.append(VideoRecord(video_id(split, number), written, values))
    return records


def _clips(
    records: Sequence[VideoRecord], counts: FrameCounts, rng: np.random.Generator, means: list[dict[str, np.ndarray]]
) -> Iterator[bytes]:
    """Yields frame-level records; appends the decoded mean over the frames that readers use to `means`."""
    for record, num_frames in zip(records, counts.draw(len(records), rng), strict=True):
        clip = clip_from_means(record.features, int(num_frames), rng)
        common = min(map(len, clip.values()))
        decoded = {key: codes[:common].mean(axis=0) * schema.QUANTISATION_STEP for key, codes in clip.items()}
        means.append({key: mean + schema.QUANTISATION_OFFSET for key, mean in decoded.items()})
        yield clip_example(record, clip)


def video_id(split: str, number: int) -> bytes:
    """Returns 4 letters or digits, a different id for each split and number, in no apparent order."""
    alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    place_of = (SPLITS.index(split) * _NUM_IDS + number) * 7_368_787 % 62**4  # a prime keeps ids distinct
    return bytes(alphabet[place_of // 62**place % 62] for place in range(4))


def label_text(labels: np.ndarray) -> str:
    """Returns the classes of [C] bool in the format of the files of hidden labels."""
    return " ".join(map(str, np.flatnonzero(labels)))
