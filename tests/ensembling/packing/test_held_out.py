"""Scores read into one array, and their GAP@20, against dictionaries and loops."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from shards import video_record, write_shard

from yt8m_tf.ensembling.packing import held_out
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards import records
from yt8m_tf.score_shards.manifest import Manifest, finish, start
from yt8m_tf.stacking.inputs import StackInputs

_CLASSES, _LISTED, _MODELS = 70, 30, ("first", "second", "third")


def _inputs(root: Path, rng: np.random.Generator, with_labels: bool = True) -> StackInputs:
    shards, labels, ids = [], [], []
    for number in range(2):
        labels.append([rng.choice(_CLASSES, 3, replace=False).tolist() if with_labels else [] for _ in range(25)])
        ids.append([f"s{number}v{video}".encode() for video in range(25)])
        means = {"rgb": np.zeros(2, np.float32)}
        serialized = [video_record(i, own, **means) for i, own in zip(ids[-1], labels[-1], strict=True)]
        shards.append(str(write_shard(root / f"s{number}.tfrecord", serialized)))
    for model in _MODELS:
        manifest = Manifest((model,), model, _CLASSES, _LISTED, "video")
        start(root / model, manifest)
        counts = {}
        for number in range(2):
            rows = []
            for video_id, own in zip(ids[number], labels[number], strict=True):
                scores = rng.random(_CLASSES)
                scores[own] += 0.2
                scores = np.minimum(scores, 1).astype(np.float16)
                order = np.lexsort([np.arange(_CLASSES), -scores])[:_LISTED]
                rows.append((video_id, order, scores[order]))
            counts[f"s{number}.tfrecord"] = records.write_shard(root / model / f"s{number}.tfrecord", rows)
        finish(root / model, dataclasses.replace(manifest, shards=counts))
    return StackInputs([root / model for model in _MODELS], _MODELS, shards)


def _slow_gap(inputs: StackInputs, weights: dict[int, float], videos: slice, most: int) -> float:
    """Pools, for every video, the `most` classes of the highest mean among those in the 20 highest of some model."""
    found: list[tuple[list[tuple[float, bool]], int]] = []
    for shard in inputs.shards:
        read = inputs.read(shard)
        for video in range(len(read.ids)):
            lists = [
                dict(zip(own.classes[video].tolist(), own.scores[video].tolist(), strict=True)) for own in read.scores
            ]
            named = {c for own in read.scores for c in own.classes[video, :20].tolist()}
            means = {c: np.float16(np.mean([own.get(c, 0.0) for own in lists], dtype=np.float32)) for c in named}
            kept = sorted(named, key=lambda c: (-means[c], c))[:most]
            labels = {int(c) for c in read.labels[video] if c >= 0}
            scores = [(sum(w * lists[m].get(c, 0.0) for m, w in weights.items()), c in labels) for c in kept]
            found.append((sorted(scores, key=lambda pair: (-pair[0], pair[1]))[:20], len(labels)))
    found = found[videos]
    pooled = sorted((pair for pairs, _ in found for pair in pairs), key=lambda pair: (-pair[0], pair[1]))
    hits, total = 0, 0.0
    for rank, (_, hit) in enumerate(pooled, 1):
        if hit:
            hits += 1
            total += hits / rank
    return total / sum(count for _, count in found)


@pytest.mark.parametrize(("memory", "most"), [(2_000_000_000, 60), (0, 40)])
def test_gaps_by_loops(
    memory: int, most: int, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "_BYTES", memory)
    inputs = _inputs(tmp_path, rng)
    videos = held_out.read_held_out(inputs, progress=False)
    assert videos.scores.shape == (3, 50, most) and videos.num_labels.tolist() == [3] * 50
    second, even, odd = {1: 1.0}, {0: 2.0, 2: 1.0}, {0: 0.3, 1: 0.45, 2: 0.25}
    assert videos.gap(videos.weighted_sum(second)) == pytest.approx(
        _slow_gap(inputs, second, slice(None), most), abs=1e-9
    )
    half = videos.half(0)
    assert half.gap(half.weighted_sum(even)) == pytest.approx(
        _slow_gap(inputs, even, slice(0, None, 2), most), abs=1e-9
    )
    half = videos.half(1)  # weights that float32 cannot represent exactly may break or swap ties
    assert half.gap(half.weighted_sum(odd)) == pytest.approx(_slow_gap(inputs, odd, slice(1, None, 2), most), abs=1e-3)


def test_videos_without_labels(rng: np.random.Generator, tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, rng, with_labels=False)
    with pytest.raises(InputError, match=r"too few labelled videos for the selection in s0\.tfrecord, s1\.tfrecord"):
        held_out.read_held_out(inputs, progress=False)
