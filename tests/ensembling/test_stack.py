"""A stacking in one graph: from fold models and boosters to the scores that the stacking wrote."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import run_command

from yt8m_tf import models, run_dir
from yt8m_tf.data.faults import Faults
from yt8m_tf.ensembling import out_of_fold, weighted_mean
from yt8m_tf.ensembling.stack import combine_stack
from yt8m_tf.errors import InputError
from yt8m_tf.export.trained import export_trained
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.pipelines.execution import Where, execute
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.score_shards.reading import read_shard
from yt8m_tf.scoring.predictors import find_predictor
from yt8m_tf.scoring.score import score
from yt8m_tf.stacking.inputs import StackInputs
from yt8m_tf.stacking.rows import load_rows
from yt8m_tf.stacking.settings import StackConfig
from yt8m_tf.stacking.stack import stack
from yt8m_tf.training import checkpoints
from yt8m_tf.training.state import TrainState
from yt8m_tf.training.step import TrainStep
from yt8m_tf.training.teacher import load_teacher

CLASSES, TOP_K, FOLDS = 30, 15, 2
SIZES = {"one": {"rgb": 8, "audio": 4}, "two": {"rgb": 8}}


@dataclasses.dataclass(frozen=True)
class World:
    """Fold models with known weights in `runs/NAME/fold_K`, and their scores."""

    root: Path
    train: list[str]
    validate: list[str]

    def runs(self) -> list[Path]:
        return [self.root / "runs" / name for name in SIZES]

    def stack(self, config: StackConfig, name: str) -> Path:
        def inputs(split: str, shards: list[str]) -> StackInputs:
            return StackInputs([self.root / "scores" / model / split for model in SIZES], [*SIZES], shards)

        output = self.root / name
        training, validation = inputs("train", self.train), inputs("validate", self.validate)
        stack(training, {"validate": validation}, output, config, num_threads=1, progress=False)
        return output


@pytest.fixture(scope="module")
def world(make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    data_dir = make_learnable_shards(root, each=80, classes=CLASSES)
    shards = {split: sorted(map(str, data_dir.glob(f"{split}*"))) for split in ("train", "validate")}
    prototypes = np.random.default_rng(1).normal(size=(CLASSES, 12))  # the same as in the shards
    rng = np.random.default_rng(2)
    for name, sizes in SIZES.items():
        runs = [root / "runs" / name / f"fold_{fold}" for fold in range(FOLDS)]
        for fold, run in enumerate(runs):
            data = {"features": sizes, "num_classes": CLASSES, "num_folds": FOLDS, "fold": fold}
            data |= {"train": ["train*.tfrecord"], "validation": ["validate*.tfrecord"]}
            experiment = parse_experiment({"model": {"name": "logistic"}, "data": data})
            model = models.build_model(experiment.model, experiment.data.spec)
            kernel = prototypes.T[: sum(sizes.values())] * 1.5 + rng.normal(0, 0.3, (sum(sizes.values()), CLASSES))
            for variable in model.weights:
                variable.assign(kernel if variable.path.endswith("kernel") else rng.normal(-3, 1, CLASSES))
            run.mkdir(parents=True)
            run_dir.keep_folds(run, {Path(shard).name: i % FOLDS for i, shard in enumerate(shards["train"])})
            checkpoints.save_run(run, experiment, {variable.path: variable for variable in model.weights})
        for split, paths in shards.items():
            predictors = [find_predictor(run, xla=False) for run in runs]
            score(predictors, paths, root / "scores" / name / split, top_k=TOP_K, xla=False, progress=False)
    return World(root, shards["train"], shards["validate"])


CONFIGS = {
    "union": StackConfig(num_trees=12, learning_rate=0.3, num_leaves=7, top=8),
    "best_model": StackConfig(
        candidates="best_model", num_trees=5, learning_rate=0.3, top=12, ranks=True, aggregates=False, negatives=0.5
    ),
}


def _scores(directory: Path, shard: str, classes: int = CLASSES) -> tuple[list[bytes], np.ndarray]:
    """Ids, and scores [N, C] with NaN for unlisted classes."""
    found = read_shard(directory, Path(shard).name, read_manifest(directory, "--scores"))
    table = np.full((len(found.ids), classes + 1), np.nan, np.float16)
    table[np.arange(len(found.ids))[:, None], found.classes] = found.scores
    return found.ids.tolist(), table[:, :classes]


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_graph_gives_the_scores_of_the_stacking(kind: str, world: World) -> None:
    stacked = world.stack(CONFIGS[kind], f"stacked_{kind}")
    run = world.root / f"run_{kind}"
    experiment, members = combine_stack(stacked, world.runs(), run)
    assert [(name, path.name) for name, path in members] == [
        (name, f"fold_{fold}") for name in SIZES for fold in range(FOLDS)
    ]
    assert experiment.data.features == SIZES["one"]
    assert experiment.model["naming"] == ([0] if kind == "best_model" else [0, 1])
    # Whole shards are scored like those of any run; XLA is disabled automatically.
    score([find_predictor(run)], world.validate, run / "scores", top_k=CLASSES, progress=False)
    equal, total = 0, 0
    for shard in world.validate:
        ids, expected = _scores(stacked / "validate", shard)
        own_ids, actual = _scores(run / "scores", shard)
        assert ids == own_ids
        listed = ~np.isnan(expected)
        assert (actual[~listed] == 0).all() and listed.sum(axis=1).min() >= 4
        # A probability near the border of two float16 values may be rounded to either.
        close = np.abs(actual[listed].view(np.int16).astype(int) - expected[listed].view(np.int16))
        assert close.max() <= 1
        equal, total = equal + (close == 0).sum(), total + close.size
        assert len(np.unique(expected[listed])) > 30
    assert equal > 0.99 * total


@pytest.mark.slow
def test_one_saved_model(world: World, tmp_path: Path) -> None:
    """There are no custom operations; leaves and splits are stored unchanged, members in float16."""
    stacked, run = world.stack(CONFIGS["union"], "stacked_union"), tmp_path / "run"
    result = run_command("ensemble", f"--stack={stacked}", f"--members={world.root}/runs/*", f"--workdir={run}")
    assert result.returncode == 0, result.stderr
    assert "one  " in result.stdout and " trees of 2 boosters, " in result.stdout
    assert result.stdout.endswith(f"next: yt8m-evaluate --workdir={run} --data_dir=DATA\n")
    trained = checkpoints.load_trained(run)
    report = export_trained(
        run, tmp_path / "exported", data_dir=str(world.root / "video"), tolerance=0.05, faults=Faults(), progress=False
    )
    assert report.comparison.gap_float32 > 0.3 and report.size.layer_bytes["trees"] > 1000
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(0, 0.5, (9, size)).astype(np.float32) for name, size in SIZES["one"].items()}
    expected = keras.ops.sigmoid(trained.model(inputs, training=False)).numpy()
    for count in (9, 1, 0):
        given = {name: tf.constant(value[:count]) for name, value in inputs.items()}
        actual = loaded.signatures["features"](**given)["predictions"].numpy()
        # The members' weights are rounded: features close to a threshold may take the other branch.
        assert actual.shape == (count, CLASSES)
        assert not count or np.median(np.abs(actual - expected[:count])) < 1e-3
    serialized = tf.data.TFRecordDataset(world.validate[0]).batch(5)
    served = loaded.signatures["serving_default"](examples=next(iter(serialized)))
    assert served["predictions"].shape == (5, 20)
    graph = loaded.signatures["features"].graph.as_graph_def()
    used = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    assert not {op for op in used if "PyFunc" in op or "Custom" in op} and "While" in " ".join(used)


def test_models_that_cannot_be_one_graph_are_refused(world: World, tmp_path: Path) -> None:
    stacked = world.stack(CONFIGS["union"], "stacked_union")
    one, two = world.runs()

    def refused(message: str, where: Path = stacked, members: tuple[Path, ...] = (one, two)) -> None:
        with pytest.raises(InputError, match=message):
            combine_stack(where, members, tmp_path / "run")
        assert not (tmp_path / "run" / run_dir.CONFIG).exists()

    refused("--members: no run of 'two', 1 of the 2 stacked models; name runs of all", members=(one,))
    refused(
        "is called 'runs', which is not one of the stacked models|not a run directory", members=(world.root / "runs",)
    )
    shutil.copytree(one, tmp_path / "three")
    refused("--members: .*three is called 'three', which is not one of the stacked", members=(tmp_path / "three", two))
    refused(r"--stack=.*: no finished stacking there \(stack.json is missing\)", where=tmp_path)
    other = tmp_path / "other"
    shutil.copytree(stacked, other)
    begun = json.loads((other / "stack.json").read_text())
    begun["config"]["aggregates"] = False
    (other / "stack.json").write_text(json.dumps(begun))
    refused(r"--stack=.*: fold_0.txt has 6 columns \(for example 'mean'\), but the models .* make 3", where=other)
    (other / "report.json").unlink()
    refused(r"no finished stacking there \(report.json is missing\)", where=other)


def test_models_of_both_levels_in_one_graph(world: World, rng: np.random.Generator) -> None:
    """In a graph of both levels, video-level models read the means over the frames."""
    stacked, (one, two) = world.stack(CONFIGS["union"], "stacked_union"), world.runs()
    for fold in range(FOLDS):  # a logistic regression on clips is one on their means
        trained = checkpoints.load_trained(two / f"fold_{fold}")
        data = dataclasses.replace(trained.experiment.data, level="frame", max_frames=7, validation=("clips*",))
        experiment = dataclasses.replace(trained.experiment, data=data)
        variables = {variable.path: variable for variable in trained.model.weights}
        checkpoints.save_run(world.root / "clips" / "two" / f"fold_{fold}", experiment, variables)
    combine_stack(stacked, [one, two], world.root / "of_videos")
    mixed, _ = combine_stack(stacked, [one, world.root / "clips" / "two"], world.root / "of_both")
    assert (mixed.data.level, mixed.data.max_frames, mixed.data.validation) == ("frame", 7, ("clips*",))
    assert mixed.data.features == SIZES["one"]
    lengths = np.array([1, 7, 4, 2], np.int32)
    clips = {name: rng.normal(0, 0.5, (4, 7, size)).astype(np.float32) for name, size in SIZES["one"].items()}
    videos = {n: np.stack([x[:k].mean(axis=0) for x, k in zip(c, lengths, strict=True)]) for n, c in clips.items()}
    expected = checkpoints.load_trained(world.root / "of_videos").model(videos, training=False)
    found = checkpoints.load_trained(world.root / "of_both").model(clips | {"num_frames": lengths}, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(found.numpy()) > 5
    # XLA cannot compile the trees, and is disabled if they teach; a student learns from each video's own scores.
    data = {"features": SIZES["one"], "num_classes": CLASSES}
    student = parse_experiment({"model": {"name": "logistic"}, "data": data, "labels": {"teacher": "of_videos"}})
    state = TrainState(models.build_model(student.model, student.data.spec), student)
    teacher = load_teacher(student, str(world.root))
    step = TrainStep(state, student, tf.distribute.get_strategy(), xla=True, teacher=teacher)
    batch = {name: tf.constant(values) for name, values in videos.items()} | {"labels": tf.zeros([4, 1], tf.int32)}
    logits = state.model(videos, training=False).numpy()
    loss = step.train([batch], 0, [1e-3])["loss"]
    target = 1 / (1 + np.exp(-expected.numpy().astype(np.float64)))
    bce = np.logaddexp(0, logits) - target * logits
    assert float(loss) == pytest.approx(bce.mean(), rel=1e-5)


@pytest.mark.end_to_end
def test_weights_are_fitted_on_logits_that_no_fold_has_seen(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fits weights in the directories of a pipeline, and compares the logits with ones computed video by video."""
    stacked = world.stack(CONFIGS["union"], "stacked_union")
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    real = out_of_fold.fit

    def spy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        seen.append((logits, labels))
        return real(logits, labels)

    monkeypatch.setattr(out_of_fold, "fit", spy)
    monkeypatch.setattr(out_of_fold, "MAX_VIDEOS", 160)
    runs = {name: [f"runs/{name}/fold_{fold}" for fold in range(FOLDS)] for name in SIZES}
    options = {"runs": runs, "rows": "stacked_union/rows/train"}
    stage = Stage("fit mean", "fit", (), "fitted/mean.json", options)
    result = execute(stage, Where(str(world.root / "video"), world.root, xla=False, progress=False))
    weights = json.loads((world.root / "fitted" / "mean.json").read_text())
    assert list(weights) == [*SIZES] and min(weights.values()) >= 0 and sum(weights.values()) > 0
    assert result["loss"] < result["loss_equal"] and result["videos"] == 160  # a shard of each fold

    [(logits, labels)] = seen
    expected, truth = [], []
    for fold, shard in enumerate(sorted(world.train)[:FOLDS]):  # shard i is in fold i % FOLDS
        rows = load_rows(stacked / "rows" / "train" / f"{Path(shard).name}.npz")
        truth.append(rows.labels)
        own = [checkpoints.load_trained(world.root / "runs" / name / f"fold_{fold}").model for name in SIZES]
        table = []
        for record in tf.data.TFRecordDataset(shard):
            found = tf.train.Example.FromString(record.numpy()).features.feature
            inputs = {name: np.array([found[f"mean_{name}"].float_list.value], np.float32) for name in ("rgb", "audio")}
            given = [{key: inputs[key] for key in sizes} for sizes in SIZES.values()]
            table.append([model(own_inputs)[0].numpy() for model, own_inputs in zip(own, given, strict=True)])
        expected.append(np.array(table)[rows.videos, :, rows.classes])
    np.testing.assert_array_equal(labels, np.concatenate(truth))
    np.testing.assert_allclose(logits, np.concatenate(expected), atol=1e-4)


def test_fitted_weights_are_the_best_ones(rng: np.random.Generator) -> None:
    """The weights nearly equal those that made the labels; no point of a grid has a lower loss. None is negative."""
    logits = rng.normal(-1, 2, (20_000, 3)).astype(np.float32)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(logits @ [0.7, 0.2, -0.3])))
    weights = out_of_fold.fit(logits, labels)
    assert weights[2] == 0
    two = out_of_fold.fit(logits[:, :2], rng.random(20_000) < 1 / (1 + np.exp(-(logits[:, :2] @ [0.7, 0.2]))))
    np.testing.assert_allclose(two, [0.7, 0.2], atol=0.05)

    def loss(given: list[float]) -> float:
        mixed = (logits @ given).astype(np.float64)
        return float(np.where(labels, np.log1p(np.exp(-mixed)), np.log1p(np.exp(mixed))).mean())

    grid = np.linspace(0, 1, 11)
    assert loss(weights.tolist()) <= min(loss([a, b, c]) for a in grid for b in grid for c in (0, 0.1)) + 1e-9


def test_a_stacking_and_a_mean_as_members_of_a_mean(world: World, tmp_path: Path, rng: np.random.Generator) -> None:
    """Layers of models within models keep the names of their weights."""
    stacked, (one, two) = world.stack(CONFIGS["union"], "stacked_member"), world.runs()
    whole, inner, outer = tmp_path / "whole", tmp_path / "inner", tmp_path / "outer"
    combine_stack(stacked, [one, two], whole)
    weighted_mean.combine([one / "fold_0", two / "fold_0"], [0.5, 0.5], inner)
    weighted_mean.combine([whole, inner, one / "fold_1"], [0.5, 0.3, 0.2], outer)
    videos = {name: rng.normal(size=(5, size)).astype("float32") for name, size in SIZES["one"].items()}

    def probabilities(run: Path) -> np.ndarray:
        model = checkpoints.load_trained(run).model
        logits = model({tensor.name: videos[tensor.name] for tensor in model.inputs}, training=False)
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))

    expected = 0.5 * probabilities(whole) + 0.3 * probabilities(inner) + 0.2 * probabilities(one / "fold_1")
    np.testing.assert_allclose(probabilities(outer), expected, atol=1e-6)
