"""Packing end to end: two small models of the same fold, and a SavedModel of some of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from sample_world import NUM_CLASSES, SIZES, Sample

from yt8m_tf import run_dir
from yt8m_tf.data.faults import Faults
from yt8m_tf.ensembling.packing import measure
from yt8m_tf.ensembling.packing.candidates import Candidate, enough_shards, find_candidates, held_out_shards
from yt8m_tf.ensembling.packing.pack import Packed, pack
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.scoring.score import score
from yt8m_tf.training import loop
from yt8m_tf.training.checkpoints import load_trained

_MODELS: dict[str, dict[str, Any]] = {
    "moe": {"name": "moe", "num_mixtures": 4},
    "resnet": {"name": "resnet_like", "inner_size": 40, "av_blocks": 0, "concat_blocks": 0},
}
_PRECISIONS = [parse_precision("float16"), parse_precision("cluster")]


@dataclasses.dataclass(frozen=True)
class World:
    """A directory with `runs/NAME/fold_0` and `scores/NAME/train`, and its data."""

    root: Path
    data_dir: str

    def candidates(self, *names: str) -> list[Candidate]:
        runs = [self.root / "runs" / name / "fold_0" for name in names or _MODELS]
        return find_candidates(runs, sorted(self.root.glob("scores/*/train")))

    def pack(self, output: Path, precisions: Sequence[Any] = _PRECISIONS, **options: Any) -> Packed:
        members = options.pop("members", None) or self.candidates()
        return pack(members, precisions, output, data_dir=self.data_dir, progress=False, **options)


@pytest.fixture(scope="module")
def world(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> World:
    found = World(tmp_path_factory.mktemp("pack"), str(sample.directory / "video"))
    for seed, (name, model) in enumerate(_MODELS.items()):
        data = {"features": SIZES, "num_classes": NUM_CLASSES, "num_folds": 2, "fold": 0}
        training = {"batch_size": 64, "steps_per_epoch": 40, "epochs": 1, "seed": seed}
        values = {"model": model, "data": data, "optimizer": {"learning_rate": 0.01}, "train": training}
        run = found.root / "runs" / name / "fold_0"
        options = loop.RunOptions(found.data_dir, run, xla=False, progress=False)
        loop.train(parse_experiment(values), options, tf.distribute.get_strategy(), Faults())
        folds = run_dir.read_folds(run)
        shards = [str(Path(found.data_dir, shard)) for shard, fold in sorted(folds.items()) if fold == 0]
        predictor = find_predictor(run, xla=False)
        score([predictor], shards, found.root / "scores" / name / "train", xla=False, progress=False)
    return found


def _predictions(world: World, candidates: Sequence[Candidate], inputs: dict[str, Any]) -> list[np.ndarray]:
    models = [load_trained(candidate.workdir).model for candidate in candidates]
    return [tf.sigmoid(model(inputs, training=False)).numpy() for model in models]


@pytest.fixture(scope="module")
def packed(world: World) -> Packed:
    return world.pack(world.root / "model" / "1")


@pytest.mark.end_to_end
def test_one_saved_model_of_some(packed: Packed, world: World, rng: np.random.Generator) -> None:
    model = world.root / "model"
    total = sum(file.stat().st_size for file in (model / "1").rglob("*") if file.is_file())
    assert total == packed.export.size.total_bytes <= packed.choice.point.num_bytes <= 1_000_000_000
    members = packed.choice.members()
    assert sum(weight for _, weight in members) == pytest.approx(1)

    inputs = {name: rng.uniform(-1, 1, (50, size)).astype(np.float32) for name, size in SIZES.items()}
    saved = tf.saved_model.load(str(model / "1")).signatures["features"](**inputs)["predictions"]
    scores = _predictions(world, [option.candidate for option, _ in members], inputs)
    expected = sum(weight * own for (_, weight), own in zip(members, scores, strict=True))
    np.testing.assert_allclose(saved, expected, atol=0.02)

    contents = json.loads((model / "1.pack" / "frontier.json").read_text())
    assert len(contents["options"]) == 4 and contents["videos"] == {"chosen_by": 512, "judged_by": 512}
    line = [point["gap_chosen_by"] for point in contents["frontier"]]
    assert line == sorted(line) and contents["frontier"][-1]["gap"] > 0.7
    singles = [option["gap"] for option in contents["options"]]
    assert contents["frontier"][-1]["gap"] > max(singles) - 0.01
    report = json.loads((model / "1" / "assets.extra" / "export_report.json").read_text())
    assert report["pack"] == contents["frontier"][-1]
    assert {m["name"] for m in report["pack"]["members"]} == {option.candidate.name for option, _ in members}
    assert (model / "1.pack" / "frontier.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in (model).iterdir()) == ["1", "1.pack"]


@pytest.mark.slow
def test_an_interrupted_packing_continues(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option scores all shards itself; the third one fails, and the repeated command only measures the rest."""
    exported: list[str] = []
    failing = {"moe cluster"}

    def export(model: Any, data: Any, directory: Path, **options: Any) -> Any:
        name = f"{directory.parents[1].name} {options['precision']}"
        if name in failing:
            raise InputError("made to fail")
        exported.append(name)
        return export_saved_model(model, data, directory, **options)

    monkeypatch.setattr(measure, "export_saved_model", export)
    monkeypatch.setattr(measure, "_SAME", -1.0)
    members = world.candidates("resnet", "moe")
    with pytest.raises(InputError, match=r"runs/moe/fold_0 as cluster: made to fail"):
        world.pack(tmp_path / "m", members=members)
    assert exported == ["resnet float16", "resnet cluster", "moe float16"] and not (tmp_path / "m").exists()
    failing.clear()
    packed = world.pack(tmp_path / "m", members=members)
    assert exported[3:] == ["moe cluster"]
    assert not list((tmp_path / "m.pack").rglob("model")) and not (tmp_path / "m.pack" / "run").exists()
    # The scores with float16 weights equal the candidate's scores except for rounding.
    for option, gap, full in zip(
        packed.choice.options, packed.choice.option_gaps, packed.choice.full_gaps, strict=True
    ):
        assert option.scores.parent.parent == tmp_path / "m.pack" / option.candidate.name
        assert option.scores.parent.name.startswith(f"{option.precision}_") and option.scores.name == "scores"
        assert 0 <= option.difference < (2e-3 if str(option.precision) == "float16" else 0.1)
        assert gap == pytest.approx(full, abs=1e-3 if str(option.precision) == "float16" else 0.02)


@pytest.mark.slow
def test_an_ensemble_that_is_too_large_is_followed_by_a_smaller_one(
    packed: Packed, world: World, tmp_path: Path
) -> None:
    shutil.copytree(world.root / "model" / "1.pack", tmp_path / "tight.pack")
    for path in (tmp_path / "tight.pack").rglob("option.json"):  # as if members had half of their size
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"num_bytes": record["num_bytes"] // 2}))
    limit = packed.export.size.total_bytes - 2000
    tight = world.pack(tmp_path / "tight", size_limit=limit)
    assert tight.export.size.total_bytes <= limit < packed.export.size.total_bytes
    assert tight.choice.point.num_bytes < packed.choice.point.num_bytes // 2 - 1


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "text",
    [
        *(pytest.param(text, marks=pytest.mark.slow) for text in ("float32", "float16", "cluster", "cluster@7")),
        "logits*:cluster",
    ],
)
def test_bytes_are_counted_as_they_are_stored(text: str, world: World, tmp_path: Path) -> None:
    precision = parse_precision(text)
    for candidate in world.candidates("resnet", "moe"):
        trained = load_trained(candidate.workdir)
        size = export_saved_model(
            trained.model, trained.experiment.data, tmp_path / candidate.name, precision=precision
        )
        assert measure.weight_bytes(candidate, [precision]) == [sum(size.layer_bytes.values())]


@pytest.mark.end_to_end
def test_which_videos_are_held_out(world: World, tmp_path: Path) -> None:
    (candidate,) = world.candidates("moe")
    shards = held_out_shards(candidate, world.data_dir)
    folds = run_dir.read_folds(candidate.workdir)
    assert [folds[Path(shard).name] for shard in shards] == [0, 0]
    assert enough_shards(shards, candidate, 512) == shards[:1] and enough_shards(shards, candidate, 513) == shards
    without = dataclasses.replace(candidate, predictor=dataclasses.replace(candidate.predictor, folds={}))
    assert [Path(shard).name for shard in held_out_shards(without, world.data_dir)] == ["validate0000.tfrecord"]
    shutil.copy(Path(world.data_dir) / "validate0000.tfrecord", tmp_path / "train9.tfrecord")
    with pytest.raises(InputError, match=r"none of the shards there is of fold 0, which .*moe/fold_0 has not seen"):
        held_out_shards(candidate, str(tmp_path))


@pytest.mark.end_to_end
def test_candidates_and_scores_that_do_not_match(world: World, tmp_path: Path) -> None:
    runs = [world.root / "runs" / name / "fold_0" for name in _MODELS]
    scores = [world.root / "scores" / name / "train" for name in _MODELS]
    with pytest.raises(InputError, match=r"--candidates: no directory matches .*none"):
        find_candidates([tmp_path / "none"], scores)
    with pytest.raises(InputError, match="are both named 'moe'; name a model once"):
        find_candidates([runs[0], runs[0]], scores)
    with pytest.raises(InputError, match=r"'resnet' of --candidates needs one directory, .*no directory matches"):
        find_candidates(runs, scores[:1])
    with pytest.raises(InputError, match=r"'moe' of --candidates .*scores/moe/train and .*scores/moe both match"):
        find_candidates(runs, [*scores, scores[0].parent])
    with pytest.raises(InputError, match=r"--scores=.*moe: no scores there"):
        find_candidates(runs[:1], [scores[0].parent])
    renamed = Path(shutil.copytree(scores[0], tmp_path / "elsewhere"))
    assert find_candidates(runs[:1], [renamed])[0].scores == renamed
    assert [c.scores for c in find_candidates(runs, scores[::-1])] == scores


@pytest.mark.end_to_end
def test_runs_that_do_not_belong_together(world: World, tmp_path: Path) -> None:
    runs = [world.root / "runs" / name / "fold_0" for name in ("moe", "resnet")]
    scores = sorted(world.root.glob("scores/*/train"))
    other = Path(shutil.copytree(runs[1], tmp_path / "resnet" / "fold_1"))
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("fold: 0", "fold: 1"))
    with pytest.raises(InputError, match="hold out other shards; name runs of the same fold"):
        find_candidates([runs[0], other], scores)
    (other / "config.yaml").write_text(config.replace("num_classes: 20", "num_classes: 21"))
    with pytest.raises(InputError, match=r"have different data\.num_classes; name runs on the same records"):
        find_candidates([runs[0], other], scores)
    (other / "config.yaml").write_text(config.replace("verticals: 0", "verticals: 3"))
    with pytest.raises(InputError, match="a model with verticals cannot be a member"):
        find_candidates([runs[0], other], scores)


@pytest.mark.end_to_end
def test_a_budget_that_nothing_fits(world: World, tmp_path: Path) -> None:
    members = world.candidates()
    smallest = min(measure.weight_bytes(candidate, _PRECISIONS)[1] for candidate in members)
    with pytest.raises(
        InputError, match=rf"--size_limit=1000: no candidate fits; .* as cluster, takes {smallest:,} byt"
    ):
        world.pack(tmp_path / "m", size_limit=1000)
    assert not list(tmp_path.iterdir())
    (tmp_path / "m" / "something").mkdir(parents=True)
    with pytest.raises(InputError, match="exists and is not a SavedModel"):
        world.pack(tmp_path / "m")


def test_flags_that_exclude_each_other(tmp_path: Path) -> None:
    result = run_command("export", "--pack", "--workdir=run", f"--output={tmp_path / 'm'}")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "--workdir=run and --pack exclude each other; give --workdir=RUN" in result.stderr
