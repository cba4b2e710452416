"""Stacking end to end on synthetic scores: what it learns, what it must not see, resuming, and refused inputs."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightgbm
import numpy as np
import pytest
from stacking_world import CONFIG, FOLDS, MODELS, World, interrupted_after, lists, make_world

from yt8m_tf.errors import InputError
from yt8m_tf.score_shards import records
from yt8m_tf.score_shards.manifest import finish, read_manifest
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.stacking import boosting, cluster, evaluation, folds, report
from yt8m_tf.stacking import inputs as inputs_module
from yt8m_tf.stacking.beginning import begin
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.stacking.rows import load_rows
from yt8m_tf.stacking.stack import StackResult, stack


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world shared by the tests; read-only."""
    return make_world(np.random.default_rng(3), tmp_path_factory.mktemp("world"))


@pytest.fixture
def own_world(rng: np.random.Generator, tmp_path: Path) -> World:
    """A world that the test may change."""
    return make_world(rng, tmp_path)


@dataclasses.dataclass(frozen=True)
class Stacked:
    """A stacking of the world, and its output directory."""

    result: StackResult
    output: Path


@pytest.fixture(scope="module")
def stacked(world: World, tmp_path_factory: pytest.TempPathFactory) -> Stacked:
    output = tmp_path_factory.mktemp("stacked") / "out"
    return Stacked(world.stack(output), output)


def test_trees_know_which_model_to_trust(stacked: Stacked) -> None:
    result, output = stacked.result, stacked.output
    for split in ("train", "validate"):
        gaps = dict(result.gaps[split])
        assert list(gaps) == [*MODELS, "mean", "mean of logits", "weighted mean", "LightGBM"]
        assert gaps["LightGBM"] > max(gaps[name] for name in gaps if name != "LightGBM") + 0.05
        assert gaps["mean"] > max(gaps[name] for name in MODELS)
    assert sum(result.weights.values()) == pytest.approx(1)
    assert sum(result.importances.values()) == pytest.approx(1) and "class" in result.importances
    assert all(1 <= count <= 60 for count in result.num_trees)
    assert {path.name for path in report.write_report(result, output)} <= set(os.listdir(output))
    assert json.loads((output / "report.json").read_text())["gaps"]["train"] == result.gaps["train"]
    table = " ".join(report.format_table(result).split())
    assert f"| LightGBM | {result.gaps['train']['LightGBM']:.5f} |" in table


@pytest.mark.end_to_end
def test_rows_that_each_booster_trains_on_and_scores(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    real = boosting.train

    def spy(training: Sequence[Path], held_out: Sequence[Path], *arguments: Any) -> boosting.Trained:
        seen.append(({path.stem for path in training}, {path.stem for path in held_out}))
        return real(training, held_out, *arguments)

    read: list[str] = []
    real_labels = inputs_module._ids_and_labels
    monkeypatch.setattr(boosting, "train", spy)
    monkeypatch.setattr(
        inputs_module, "_ids_and_labels", lambda shard, *rest: read.append(shard) or real_labels(shard, *rest)
    )
    world.stack(tmp_path / "out")
    assert sorted(read) == sorted([*world.train, *world.validate])  # each once for its labels
    of_fold = [{f"train{i:04d}.tfrecord" for i in range(6) if i % FOLDS == fold} for fold in range(FOLDS)]
    everything = set().union(*of_fold)
    assert seen == [(everything - own, own) for own in of_fold]
    boosters = [lightgbm.Booster(model_file=str(tmp_path / f"out/boosters/fold_{fold}.txt")) for fold in range(FOLDS)]
    for split, name, used in (("train", "train0004.tfrecord", [1]), ("validate", "validate0001.tfrecord", [0, 1, 2])):
        rows = load_rows(tmp_path / "out" / "rows" / split / f"{name}.npz")
        matrix = np.column_stack([rows.classes, rows.features]).astype(np.float64)
        expected = np.mean([boosters[fold].predict(matrix) for fold in used], axis=0).astype(np.float16)
        found = read_shard(tmp_path / "out" / split, name, read_manifest(tmp_path / "out" / split, ""))
        for video in (0, 77, 149):
            own = rows.videos == video
            listed = dict(zip(rows.classes[own].tolist(), expected[own].tolist(), strict=True))
            order = sorted(listed, key=lambda c: (-listed[c], c))
            assert found.classes[video, : len(order)].tolist() == order
            assert found.scores[video, : len(order)].tolist() == [listed[c] for c in order]
            assert (found.classes[video, len(order) :] == -1).all()


def test_the_bar_of_a_fold_that_stopped_early_is_full(
    stacked: Stacked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = boosting.load(stacked.output / "boosters" / "fold_0.txt")

    def train_fold(*arguments: Any) -> boosting.Trained:
        on_tree = arguments[3]
        on_tree(known.num_trees, 0.5)
        on_tree(known.num_trees + 5, 0.6)
        return known

    config = dataclasses.replace(CONFIG, num_trees=known.num_trees + 20)
    bar = folds.Bar(leave=True)
    folds.train_folds(tmp_path / "boosters", [tmp_path / "a.npz"], {"a": 0}, MODELS, config, 1, train_fold, bar)
    told = capsys.readouterr().err
    assert f"fold 0: 100%, {known.num_trees + 5} of {known.num_trees + 5}" in told
    assert f"stopped early at {known.num_trees + 5}, the best was {known.num_trees}" in told


def test_gaps_by_loops(world: World, stacked: Stacked) -> None:
    """GAP of a model and of the mean, computed from dictionaries."""
    result = stacked.result
    inputs = world.inputs("validate", world.validate)
    pairs: dict[str, list[tuple[float, bool]]] = {"first": [], "mean": []}
    total = 0
    for shard in world.validate:
        read = inputs.read(shard)
        total += read.num_labels
        for video in range(150):
            labels = {int(c) for c in read.labels[video] if c >= 0}
            lists = [
                {int(c): float(s) for c, s in zip(m.classes[video], m.scores[video], strict=True) if c >= 0}
                for m in read.scores
            ]
            named = {c for found in lists for c in list(found)[:8]}
            mean = {c: float(np.float16(sum(found.get(c, 0.0) for found in lists) / 3)) for c in named}
            for name, scores in (("first", lists[0]), ("mean", mean)):
                pairs[name] += [(s, c in labels) for c, s in sorted(scores.items(), key=lambda p: (-p[1], p[0]))[:20]]
    for name, found in pairs.items():
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        hits = np.cumsum([hit for _, hit in found])
        gap = sum(hits[i] / (i + 1) for i, (_, hit) in enumerate(found) if hit) / total
        assert result.gaps["validate"][name] == pytest.approx(gap, abs=2e-4)


def test_soft_labels_by_frequency_of_the_class(world: World, stacked: Stacked) -> None:
    """Computed with dictionaries from the score shards, which list all candidates here."""
    bands = stacked.result.soft_labels
    inputs, manifest = world.inputs("train", world.train), read_manifest(stacked.output / "train", "")
    labels: collections.Counter[int] = collections.Counter()
    listed: collections.Counter[int] = collections.Counter()
    sums: collections.Counter[int] = collections.Counter()
    for shard in world.train:
        read, combined = inputs.read(shard), read_shard(stacked.output / "train", os.path.basename(shard), manifest)
        for own, classes, scores in zip(read.labels, combined.classes, combined.scores, strict=True):
            found = dict(zip(classes.tolist(), scores.tolist(), strict=True))
            labels.update(c for c in own.tolist() if c >= 0)
            listed.update(c for c in own.tolist() if c >= 0 and c in found)
            sums.update({c: score for c, score in found.items() if c >= 0})
    assert sum(band["classes"] for band in bands) == manifest.num_classes
    for band in bands:
        low, high = band["from"], band["to"] if band["to"] is not None else 10**9
        inside = [c for c in range(manifest.num_classes) if low <= labels[c] <= high]
        assert band["classes"] == len(inside) and band["labels"] == sum(labels[c] for c in inside)
        assert band["candidates"] == sum(listed[c] for c in inside) <= band["labels"]
        assert band["expected"] == pytest.approx(sum(sums[c] for c in inside), rel=1e-9)


@pytest.mark.end_to_end
def test_an_interrupted_run_continues(
    world: World, stacked: Stacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted_after(1, monkeypatch):
        world.stack(tmp_path / "out")
    rows = sorted((tmp_path / "out" / "rows" / "train").iterdir())
    times = [path.stat().st_mtime_ns for path in rows]
    real, calls = boosting.train, []
    monkeypatch.setattr(boosting, "train", lambda *arguments: calls.append(1) or real(*arguments))
    assert world.stack(tmp_path / "out") == stacked.result
    assert len(calls) == FOLDS - 1 and [path.stat().st_mtime_ns for path in rows] == times
    for split in ("train", "validate"):
        for path in (stacked.output / split).glob("*.tfrecord"):
            assert (tmp_path / "out" / split / path.name).read_bytes() == path.read_bytes()


@pytest.mark.end_to_end
def test_candidates_of_the_best_model(world: World, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, candidates="best_model", top=5)
    result = world.stack(tmp_path / "out", config)
    best = MODELS.index(evaluation.best({name: result.gaps["train"][name] for name in MODELS}))
    rows = load_rows(tmp_path / "out" / "rows" / "train" / "train0003.tfrecord.npz")
    own = world.inputs("train", world.train).read(world.train[3]).scores[best]
    assert rows.classes[rows.videos == 9].tolist() == sorted(own.classes[9, :5].tolist())


@pytest.mark.end_to_end
def test_a_share_of_the_negatives_leaves_probabilities_as_they_are(
    world: World, stacked: Stacked, tmp_path: Path
) -> None:
    whole = stacked.result
    some = world.stack(tmp_path / "some", dataclasses.replace(CONFIG, negatives=0.5))
    assert some.gaps["train"]["LightGBM"] == pytest.approx(whole.gaps["train"]["LightGBM"], abs=0.03)
    sums = []
    for output in (stacked.output, tmp_path / "some"):
        manifest = read_manifest(output / "train", "")
        shards = [read_shard(output / "train", name, manifest) for name in manifest.shards]
        sums.append(sum(shard.scores.astype(np.float64).sum() for shard in shards))
    assert sums[1] == pytest.approx(sums[0], rel=0.05)


@pytest.mark.slow
def test_a_cluster_of_two_workers(world: World, stacked: Stacked, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    local = stacked.result
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as workers,
        cluster.fold_trainer(workers.scheduler_address, CONFIG, 1) as train_fold,
    ):
        result = world.stack(tmp_path / "cluster", train_fold=train_fold)
    assert result.num_trees == [local.num_trees[0]] * FOLDS
    for split in ("train", "validate"):
        assert result.gaps[split]["LightGBM"] == pytest.approx(local.gaps[split]["LightGBM"], abs=0.015)


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "_TIMEOUT_SECONDS", 1)
    message = r"--scheduler=127\.0\.0\.1:9: no Dask scheduler answers there"
    with pytest.raises(InputError, match=message), cluster.fold_trainer("127.0.0.1:9", CONFIG, 1):
        pass


def test_scores_that_do_not_belong_together(own_world: World, tmp_path: Path) -> None:
    world = own_world
    train = world.root / "scores" / "second" / "train"
    with pytest.raises(InputError, match=r"--scores=.*none/train: no scores there"):
        world.inputs("train", world.train, ("first", "none"))
    twice = [world.root / "scores" / "first" / "train"] * 2
    with pytest.raises(InputError, match=r"first/train is named twice; name each model once"):
        StackInputs(twice, ("first", "again"), world.train)
    shutil.copytree(twice[0], tmp_path / "copy")
    with pytest.raises(InputError, match="are scores of the same model; name it once"):
        StackInputs([twice[0], tmp_path / "copy"], ("first", "again"), world.train)
    with pytest.raises(InputError, match="two models are named 'first'"):
        StackInputs([twice[0], train], ("first", "first"), world.train)
    with pytest.raises(InputError, match=r"no scores of 2 of 8 shards, for example '.*validate0000\.tfrecord'"):
        world.inputs("train", [*world.train, *world.validate])
    validation = world.inputs("validate", world.validate)
    with pytest.raises(
        InputError, match=r"no out-of-fold scores of '.*validate0000\.tfrecord': it is in none.* go into --apply=SPLIT"
    ):
        stack(validation, {}, tmp_path / "out", CONFIG)
    fewer = world.inputs("train", [shard for shard in world.train if "0000" in shard or "0003" in shard])
    with pytest.raises(InputError, match="all shards are of one fold; give shards of two"):
        stack(fewer, {}, tmp_path / "out", CONFIG)
    for name in ("mean", "LightGBM", "weighted mean", "maximum"):
        inputs = world.inputs("train", world.train)
        inputs.names[0] = name
        with pytest.raises(
            InputError, match=f"a model is named '{name}', a name that stacking uses for its own combinations"
        ):
            stack(inputs, {}, tmp_path / "out", CONFIG)
    manifest = read_manifest(train, "")
    for changes, message in (
        ({"num_classes": 30}, r"second/train has 30 classes, .*first/train 20"),
        ({"folds": {"train0000.tfrecord": 0}}, "have different folds; train all models with the same --num_folds"),
    ):
        (train / "scores.json").unlink()
        finish(train, dataclasses.replace(manifest, **changes))
        with pytest.raises(InputError, match=message):
            world.inputs("train", world.train)
    (train / "scores.json").unlink()
    finish(train, dataclasses.replace(manifest, fingerprint="new"))
    with pytest.raises(InputError, match="the scores of 'second' in split 'validate' come from another model"):
        stack(world.inputs("train", world.train), {"validate": validation}, tmp_path / "out", CONFIG)


def test_scores_of_other_videos(own_world: World, tmp_path: Path) -> None:
    world = own_world
    train = world.root / "scores" / "second" / "train"
    rows = list(lists([f"train2_{video}".encode() for video in range(149)] + [b"other"], np.full((150, 20), 0.5)))
    records.write_shard(train / "train0002.tfrecord", rows)
    with pytest.raises(
        InputError, match=r"second/train/train0002\.tfrecord: 150 videos, .* has 150, 1 of them without"
    ):
        world.stack(tmp_path / "out")
    records.write_shard(train / "train0002.tfrecord", rows[:-1])
    with pytest.raises(InputError, match=r"train0002\.tfrecord: contains 149 videos, not the 150 of its manifest"):
        world.stack(tmp_path / "out")


@pytest.mark.end_to_end
def test_another_order_is_joined_by_id(own_world: World, tmp_path: Path, rng: np.random.Generator) -> None:
    world = own_world
    expected = world.stack(tmp_path / "whole").gaps
    train = world.root / "scores" / "second" / "train"
    found = read_shard(train, "train0002.tfrecord", read_manifest(train, ""))
    found = found.at(rng.permutation(150))
    records.write_shard(train / "train0002.tfrecord", zip(found.ids, found.classes, found.scores, strict=True))
    assert world.stack(tmp_path / "out").gaps == expected


def test_a_run_that_finished_nothing_does_not_block_its_directory(tmp_path: Path) -> None:
    inputs = cast(StackInputs, SimpleNamespace(names=["a"], top_k=[100]))

    def start(fingerprint: str) -> None:
        begin(tmp_path, CONFIG, fingerprint, inputs)
        (tmp_path / "rows" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "boosters").mkdir(exist_ok=True)

    start("first")
    (tmp_path / "rows" / "train" / "of_the_first").touch()
    start("first")
    assert (tmp_path / "rows" / "train" / "of_the_first").exists()  # the same stacking continues
    start("second")
    assert not (tmp_path / "rows" / "train" / "of_the_first").exists()
    (tmp_path / "boosters" / "fold_0.txt").touch()
    with pytest.raises(InputError, match="contains a stacking of other scores or another configuration"):
        start("first")


@pytest.mark.end_to_end
def test_another_stacking_in_the_same_directory(world: World, tmp_path: Path) -> None:
    world.stack(tmp_path / "out")
    with pytest.raises(InputError, match="contains a stacking of other scores or another configuration"):
        world.stack(tmp_path / "out", dataclasses.replace(CONFIG, num_trees=5))
    for content in ("{}", "{", "[]"):
        sound = (tmp_path / "out" / "stack.json").read_text()
        (tmp_path / "out" / "stack.json").write_text(content)
        with pytest.raises(InputError, match=r"stack\.json: .*; remove .*out, or name another directory"):
            world.stack(tmp_path / "out")
        (tmp_path / "out" / "stack.json").write_text(sound)
    damaged = tmp_path / "out" / "rows" / "train" / "train0000.tfrecord.npz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(InputError, match=r"train0000\.tfrecord\.npz: cannot be read .*remove the file and repeat"):
        world.stack(tmp_path / "out")
