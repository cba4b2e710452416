"""The input of a stacking: shards on disk, and synthetic out-of-fold scores of models."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards import video_record, write_shard

from yt8m_tf.score_shards import records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.stacking import boosting
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.stacking.settings import StackConfig
from yt8m_tf.stacking.stack import StackResult, stack

CLASSES, FOLDS = 20, 3
CONFIG = StackConfig(num_trees=60, learning_rate=0.1, early_stopping=10, num_leaves=7, top=8)
# Model m is good at every third class, from m on, and guesses the others: trees can learn this, a mean cannot.
MODELS = ("first", "second", "third")


@dataclasses.dataclass
class World:
    """Shards on disk, and the scores of some models."""

    root: Path
    train: list[str]
    validate: list[str]
    models: tuple[str, ...] = MODELS

    def inputs(
        self, split: str, shards: Sequence[str], models: Sequence[str] = (), on_unlabelled: str = "error"
    ) -> StackInputs:
        names = models or self.models
        return StackInputs([self.root / "scores" / model / split for model in names], names, shards, on_unlabelled)

    def stack(
        self,
        output: Path,
        config: StackConfig = CONFIG,
        models: Sequence[str] = (),
        on_unlabelled: str = "negative",
        **options: Any,
    ) -> StackResult:
        training = self.inputs("train", self.train, models, on_unlabelled)
        validation = self.inputs("validate", self.validate, models, on_unlabelled)
        return stack(training, {"validate": validation}, output, config, num_threads=1, progress=False, **options)


def make_world(rng: np.random.Generator, root: Path, weak: Mapping[str, float] | None = None, each: int = 150) -> World:
    """Writes six training shards and two validation shards of `each` videos, and scores of models.

    `weak` maps the names of models in addition to `MODELS` to the noise in all of their logits.
    """
    shards: dict[str, dict[str, Any]] = {"train": {}, "validate": {}}
    for split, count in (("train", 6), ("validate", 2)):
        for number in range(count):
            name = f"{split}{number:04d}.tfrecord"
            truth = rng.random((each, CLASSES)) < rng.uniform(0.02, 0.3, CLASSES)
            ids = [f"{split}{number}_{video}".encode() for video in range(each)]
            means = {"rgb": np.zeros(2, np.float32), "audio": np.zeros(2, np.float32)}
            serialized = [video_record(i, np.flatnonzero(t).tolist(), **means) for i, t in zip(ids, truth, strict=True)]
            shards[split][name] = (str(write_shard(root / "data" / name, serialized)), ids, truth)
    noises = {model: np.where(np.arange(CLASSES) % 3 == m, 0.7, 3.0) for m, model in enumerate(MODELS)}
    noises |= {model: np.full(CLASSES, noise) for model, noise in (weak or {}).items()}
    for model, noise in noises.items():
        for split, found in shards.items():
            directory = root / "scores" / model / split
            folds = {f"train{i:04d}.tfrecord": i % FOLDS for i in range(6)}
            manifest = Manifest((model,), model, CLASSES, 12, "video", folds)
            start(directory, manifest)
            counts = {}
            for name, (_, ids, truth) in found.items():
                logits = np.where(truth, 1.0, -1.0) + rng.normal(size=truth.shape) * noise
                counts[name] = records.write_shard(directory / name, lists(ids, 1 / (1 + np.exp(-logits))))
            finish(directory, dataclasses.replace(manifest, shards=counts))
    paths = {split: [path for path, _, _ in found.values()] for split, found in shards.items()}
    return World(root, paths["train"], paths["validate"], tuple(noises))


def lists(ids: Sequence[bytes], scores: np.ndarray) -> Iterator[tuple[bytes, np.ndarray, np.ndarray]]:
    """Yields score records with the twelve highest of the scores [N, C]."""
    for video, row in zip(ids, scores.astype(np.float16), strict=True):
        order = sorted(range(CLASSES), key=lambda c: (-row[c], c))[:12]
        yield video, np.array(order), row[order]


@contextlib.contextmanager
def interrupted_after(boosters: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A context in which Ctrl-C comes after `boosters` boosters; the block must not reach its end before."""
    real, trained = boosting.train, 0

    def train(*arguments: Any) -> boosting.Trained:
        nonlocal trained
        if trained == boosters:
            raise KeyboardInterrupt
        trained += 1
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(boosting, "train", train)
        yield
