"""Made-up shards and score shards for the memory of stacking."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from yt8m_tf.scores import records
from yt8m_tf.scores.manifest import Manifest, finish, start
from yt8m_tf.stacking.inputs import StackInputs

_CLASSES, _MODELS, _FOLDS = 3862, 7, 2
_DIFFERENT = 5  # shards; the others repeat them, since making scores takes longer than stacking them


def write_world(directory: Path, num_shards: int, num_videos: int) -> StackInputs:
    """Writes shards of labelled videos without features, and scores of seven models that know something of them."""
    from benchmarks.stack import make_scores

    rng = np.random.default_rng(0)
    names = [f"train{number:04d}.tfrecord" for number in range(num_shards)]
    folds = {name: number % _FOLDS for number, name in enumerate(names)}
    manifests = [Manifest((f"m{m}",), f"m{m}", _CLASSES, 100, "video", folds) for m in range(_MODELS)]
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
