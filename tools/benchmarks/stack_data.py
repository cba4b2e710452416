"""Random shards and score shards for the benchmarks of stacking."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf.score_shards import records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.score_shards.reading import ShardScores
from yt8m_tf.stacking.inputs import StackInputs

CLASSES, _TOP_K, _MODELS, _FOLDS = 3862, 100, 7, 2
_DIFFERENT = 5  # distinct shards, which the others repeat, because making scores takes longer than stacking them


def make_scores(num_videos: int, num_models: int, rng: np.random.Generator) -> list[ShardScores]:
    """Makes scores of models that agree in part: common logits of a video, and noise of each model."""
    ids = np.array([f"{number:04x}".encode() for number in range(num_videos)], object)
    common = rng.normal(-7.0, 2.0, (num_videos, CLASSES)).astype(np.float32)
    scores = []
    for _ in range(num_models):
        logits = common + rng.normal(0.0, 0.5, common.shape).astype(np.float32)
        classes = np.argsort(-logits, axis=1)[:, :_TOP_K].astype(np.int32)
        values = 1 / (1 + np.exp(-np.take_along_axis(logits, classes, axis=1)))
        scores.append(ShardScores(ids, classes, values.astype(np.float16)))
    return scores


def write_world(directory: Path, num_shards: int, num_videos: int) -> StackInputs:
    """Writes shards of labelled videos without features, and scores of seven models that correlate with the labels."""
    rng = np.random.default_rng(0)
    names = [f"train{number:04d}.tfrecord" for number in range(num_shards)]
    folds = {name: number % _FOLDS for number, name in enumerate(names)}
    manifests = [Manifest((f"m{m}",), f"m{m}", CLASSES, 100, "video", folds) for m in range(_MODELS)]
    directories = [directory / "scores" / f"m{m}" for m in range(_MODELS)]
    for place, manifest in zip(directories, manifests, strict=True):
        start(place, manifest)
    (directory / "data").mkdir()
    pool = [make_scores(num_videos, _MODELS, rng) for _ in range(_DIFFERENT)]
    for number, name in enumerate(names):
        scores = pool[number % _DIFFERENT]
        with tf.io.TFRecordWriter(str(directory / "data" / name)) as writer:
            for video, classes in zip(scores[0].ids, scores[0].classes, strict=True):
                labels = tf.train.Feature(int64_list=tf.train.Int64List(value=classes[: rng.integers(1, 6)]))
                own = {"id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[video])), "labels": labels}
                writer.write(tf.train.Example(features=tf.train.Features(feature=own)).SerializeToString())
        for place, given in zip(directories, scores, strict=True):
            records.write_shard(place / name, zip(given.ids, given.classes, given.scores, strict=True))
    for place, manifest in zip(directories, manifests, strict=True):
        finish(place, dataclasses.replace(manifest, shards=dict.fromkeys(names, num_videos)))
    shards = [str(directory / "data" / name) for name in names]
    return StackInputs(directories, [place.name for place in directories], shards)
