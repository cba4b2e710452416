"""GAP@20 by number of models: the choice of ensembles, their equality with separate stackings, and resuming."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command
from stacking_world import CONFIG, FOLDS, World, interrupted_after, make_world

from yt8m_tf.errors import InputError
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.stacking import boosting, sizes_report
from yt8m_tf.stacking.finished import read_stacking
from yt8m_tf.stacking.rows import load_rows, rows_of_models
from yt8m_tf.stacking.settings import StackConfig
from yt8m_tf.stacking.sizes import METHODS, SIZES, ensemble_sizes
from yt8m_tf.stacking.subsets import BEST, RANDOM, WITH_WEAK, WORST, ensembles

pytestmark = pytest.mark.end_to_end

_FEW = dataclasses.replace(CONFIG, num_trees=8, learning_rate=0.2, ranks=True)
_OVERRIDES = ("num_trees=5",)
_OPTIONS: dict[str, Any] = {"num_weak": 2, "random_orders": 0, "num_threads": 1, "progress": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three models that are each good at a third of the classes, and two weak ones."""
    root = tmp_path_factory.mktemp("world")
    return make_world(np.random.default_rng(3), root, weak={"weak": 4.0, "weaker": 8.0}, each=40)


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stacking of the world whose ensembles are not measured."""
    output = tmp_path_factory.mktemp("finished") / "out"
    world.stack(output, _FEW)
    return output


@dataclasses.dataclass(frozen=True)
class Measured:
    """A stacking whose ensembles were measured with fewer trees than the stacking itself has."""

    output: Path
    contents: dict[str, Any]
    num_trained: int


@pytest.fixture(scope="module")
def measured(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    output = Path(shutil.copytree(finished, tmp_path_factory.mktemp("measured") / "out"))
    with pytest.MonkeyPatch.context() as patch:
        trained = _count(patch)
        contents = ensemble_sizes(read_stacking(output, "--output"), _OVERRIDES, **_OPTIONS)
    return Measured(output, contents, len(trained))


def _count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every booster trained from now on."""
    real, trained = boosting.train, []

    def train(*arguments: Any) -> boosting.Trained:
        trained.append(1)
        return real(*arguments)

    monkeypatch.setattr(boosting, "train", train)
    return trained


def _point(contents: Mapping[str, Any], order: str, size: int) -> dict[str, Any]:
    (found,) = (point for point in contents["points"] if (point["order"], point["size"]) == (order, size))
    return found


def test_which_ensembles(rng: np.random.Generator) -> None:
    gaps = rng.permutation(11) / 11
    found = ensembles(gaps.tolist(), num_weak=6, random_orders=2, seed=3)
    ranked = np.argsort(-gaps).tolist()
    for order, names in ((BEST, ranked), (WORST, ranked[::-1])):
        assert [e.members for e in found if e.order == order] == [tuple(sorted(names[:n])) for n in (1, 2, 4, 8, 11)]
    weak = [ensemble for ensemble in found if ensemble.order == WITH_WEAK]
    assert [(ensemble.strong, len(ensemble.members)) for ensemble in weak] == [(1, 7), (2, 8), (4, 10), (5, 11)]
    assert set(weak[1].members) == {*ranked[:2], *ranked[5:]}
    drawn = {order: [set(e.members) for e in found if e.order == order] for order in (RANDOM, f"{RANDOM} 2")}
    for own in drawn.values():
        assert [len(members) for members in own] == [1, 2, 4, 8, 11]
        assert all(few < more for few, more in itertools.pairwise(own))
    assert drawn[RANDOM] != drawn[f"{RANDOM} 2"] and found == ensembles(gaps.tolist(), 6, 2, 3)
    assert WITH_WEAK not in {ensemble.order for ensemble in ensembles(gaps.tolist(), 0, 0, 3)}


@pytest.mark.slow
def test_an_ensemble_equals_a_stacking_of_only_its_models(world: World, measured: Measured, tmp_path: Path) -> None:
    _check_ensembles(world, measured.output, measured.contents, _FEW, tmp_path)


@pytest.mark.slow
def test_an_ensemble_with_no_columns_other_than_the_scores(world: World, tmp_path: Path) -> None:
    config = dataclasses.replace(_FEW, ranks=False, aggregates=False)
    world.stack(tmp_path / "out", config)
    contents = ensemble_sizes(read_stacking(tmp_path / "out", "--output"), _OVERRIDES, **_OPTIONS)
    _check_ensembles(world, tmp_path / "out", contents, config, tmp_path)


def _check_ensembles(
    world: World, output: Path, contents: Mapping[str, Any], config: StackConfig, tmp_path: Path
) -> None:
    fewer = dataclasses.replace(config, num_trees=5)  # as in `_OVERRIDES`
    assert contents["weak"] == ["weak", "weaker"] and contents == json.loads((output / SIZES).read_text())
    for order, size in ((WORST, 2), (WITH_WEAK, 4)):
        point = _point(contents, order, size)
        alone = world.stack(tmp_path / order, fewer, point["models"])
        for split in ("train", "validate"):
            assert {name: alone.gaps[split][name] for name in METHODS[1:]} == {
                name: point["gaps"][split][name] for name in METHODS[1:]
            }
        best = max(point["models"], key=lambda name: alone.gaps["train"][name])
        assert point["gaps"]["validate"]["best single model"] == alone.gaps["validate"][best]
        assert (point["weights"], point["num_trees"]) == (alone.weights, alone.num_trees)
        for path in (tmp_path / order / "rows").glob("*/*.npz"):
            whole = load_rows(output / "rows" / path.parent.name / path.name)
            members = [world.models.index(name) for name in point["models"]]
            for one, other in zip(
                dataclasses.astuple(rows_of_models(whole, members, 5, fewer)),
                dataclasses.astuple(load_rows(path)),
                strict=True,
            ):
                np.testing.assert_array_equal(one, other)


def test_gaps_by_loops(world: World, measured: Measured, tmp_path: Path) -> None:
    """Computes GAPs of a mean and of LightGBM on the validation shards, from dictionaries ranked by sorting."""
    contents = measured.contents
    point = _point(contents, BEST, 2)
    world.stack(tmp_path / "alone", dataclasses.replace(_FEW, num_trees=5), point["models"])
    inputs = world.inputs("validate", world.validate, point["models"])
    manifest = read_manifest(tmp_path / "alone" / "validate", "")
    pairs: dict[str, list[tuple[float, bool]]] = {"mean": [], "LightGBM": [], "best single model": []}
    first = max(point["models"], key=lambda name: contents["models"][name])
    total = 0
    for shard in world.validate:
        read, stacked = inputs.read(shard), read_shard(tmp_path / "alone/validate", os.path.basename(shard), manifest)
        total += read.num_labels
        for video, row in enumerate(read.labels):
            labels = {int(label) for label in row if label >= 0}
            lists = [_listed(scores.classes[video], scores.scores[video]) for scores in read.scores]
            named = {c for found in lists for c in list(found)[:8]}
            scores = {
                "mean": {c: float(np.float16(sum(found.get(c, 0.0) for found in lists) / 2)) for c in named},
                "LightGBM": _listed(stacked.classes[video], stacked.scores[video]),
                "best single model": lists[point["models"].index(first)],
            }
            for name, found in scores.items():
                ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:20]
                pairs[name] += [(score, c in labels) for c, score in ranked]
    for name, found in pairs.items():
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        hits = np.cumsum([hit for _, hit in found])
        gap = sum(hits[rank] / (rank + 1) for rank, (_, hit) in enumerate(found) if hit) / total
        assert point["gaps"]["validate"][name] == pytest.approx(gap, abs=2e-4 if name == "mean" else 1e-9)


def _listed(classes: Sequence[int], scores: Sequence[float]) -> dict[int, float]:
    return {int(c): float(score) for c, score in zip(classes, scores, strict=True) if c >= 0}


def test_which_boosters_are_trained(measured: Measured) -> None:
    # Best 1, 2, 4; worst 1, 2, 4; one and two strong ones with all weak ones; and all.
    points = measured.contents["points"]
    count = len({tuple(point["models"]) for point in points})
    assert count == 9 and measured.num_trained == FOLDS * count
    assert {found for point in points for found in point["num_trees"]} <= set(range(1, 6))


def test_an_interrupted_run_continues(
    finished: Path, measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    trained = _count(monkeypatch)
    with interrupted_after(4, monkeypatch):
        ensemble_sizes(read_stacking(output, "--output"), _OVERRIDES, **_OPTIONS)
    assert len(trained) == 4
    assert not (output / SIZES).exists()
    assert ensemble_sizes(read_stacking(output, "--output"), _OVERRIDES, **_OPTIONS) == measured.contents
    assert len(trained) == measured.num_trained
    assert ensemble_sizes(read_stacking(output, "--output"), _OVERRIDES, **_OPTIONS) == measured.contents
    assert len(trained) == measured.num_trained
    assert {path.suffix for path in (output / "ensemble_sizes").iterdir()} == {".json"}


def test_more_ensembles_leave_the_others_as_they_are(measured: Measured, tmp_path: Path) -> None:
    output = Path(shutil.copytree(measured.output, tmp_path / "out"))
    more = ensemble_sizes(read_stacking(output, "--output"), _OVERRIDES, **{**_OPTIONS, "random_orders": 1})
    assert [point for point in more["points"] if point["order"] != RANDOM] == measured.contents["points"]


def test_invalid_measurements_of_ensemble_sizes(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no finished stacking there \(stack.json is missing\); name the --output"):
        read_stacking(tmp_path / "out", "--output")
    shutil.copytree(finished, tmp_path / "out")
    stacking = read_stacking(tmp_path / "out", "--output")
    for override in ("top=5", "ranks=false", "candidates=best_model"):
        with pytest.raises(InputError, match=f"stack into another directory with --set={override.split('=')[0]}"):
            ensemble_sizes(stacking, [override])
    with pytest.raises(InputError, match=r"--sizes_weak=5: the stacking has 5 models; give 0 to 4"):
        ensemble_sizes(stacking, num_weak=5)
    with pytest.raises(InputError, match="num_tress"):
        ensemble_sizes(stacking, ["num_tress=5"])
    shutil.copytree(finished, tmp_path / "best")
    begun = json.loads((finished / "stack.json").read_text())
    begun["config"]["candidates"] = "best_model"
    (tmp_path / "best" / "stack.json").write_text(json.dumps(begun))
    with pytest.raises(InputError, match="with --set=candidates=union"):
        ensemble_sizes(read_stacking(tmp_path / "best", "--output"))
    (tmp_path / "out" / "rows" / "validate" / "validate0001.tfrecord.npz").unlink()
    with pytest.raises(InputError, match=r"validate0001\.tfrecord\.npz is missing; stack again"):
        ensemble_sizes(stacking)
    (tmp_path / "best" / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"cannot be read .*; repeat yt8m-stack"):
        read_stacking(tmp_path / "best", "--output")


def test_the_command(finished: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    gaps = read_stacking(output, "--output").gaps
    flags = [f"--output={output}", "--sizes", "--sizes_set=num_trees=3", "--sizes_random=0", "--num_threads=1"]
    done = run_command("stack", *flags, "--sizes_weak=2")
    assert done.returncode == 0, done.stderr
    best = max(("first", "second", "third"), key=lambda name: gaps["train"][name])
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    row = next(line for line in lines if line.startswith("| 1 | best first"))
    assert row.split("|")[7].strip() == f"{gaps['validate'][best]:.4f}"
    assert any(line.startswith("| 2 + 2 | best, and all weak ones |") for line in lines)
    contents = json.loads((output / SIZES).read_text())
    assert contents["config"]["num_trees"] == 3
    assert (output / sizes_report.TABLE).read_text().count("\n| weak") == 2
    assert (output / sizes_report.PICTURE).read_bytes().startswith(b"\x89PNG")
    two = _point(contents, WITH_WEAK, 4)
    assert sizes_report.best_alone(contents, two) == _point(contents, BEST, 2)
    failed = run_command("stack", f"--output={output}")
    assert failed.returncode == 1 and "error: --scores: stacking needs it" in failed.stderr
