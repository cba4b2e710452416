"""Pipelines: their stages, which ones run again, failures, and plans."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_pipeline import TINY

from yt8m_tf import run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model
from yt8m_tf.pipelines import execution, forward_costs, plan, runner, workers
from yt8m_tf.pipelines.choices import choices
from yt8m_tf.pipelines.content import shards_of
from yt8m_tf.pipelines.execution import Where, execute
from yt8m_tf.pipelines.settings import PipelineConfig, load_pipeline
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.stages import kept_seeds, make_stages
from yt8m_tf.pipelines.starts import check_starts
from yt8m_tf.pipelines.state import States


def _settings(**changes: Any) -> PipelineConfig:
    return strict_yaml.parse(PipelineConfig, strict_yaml.merge(TINY, changes), "")


class Here:
    """Runs stages immediately in this process, and records which ones ran."""

    def __init__(self, data_dir: Path, workdir: Path):
        self.where = Where(str(data_dir), workdir, num_threads=1, xla=False, progress=False)
        self.ran: list[str] = []

    def __call__(self, stage: Stage) -> Any:
        self.ran.append(stage.name)
        future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        try:
            future.set_result(execute(stage, self.where))
        except Exception as error:
            future.set_exception(error)
        return future


def _run(
    settings: PipelineConfig, data_dir: Path, workdir: Path, only: str = "", restart: Sequence[str] = ()
) -> tuple[list[str], dict[str, Any]]:
    """The stages with `only` in their names that ran, and all results."""
    stages = [stage for stage in make_stages(settings, kept_seeds(settings, workdir)) if only in stage.name]
    here = Here(data_dir, workdir)
    states = States(workdir, stages, shards_of(stages, str(data_dir)))
    results = runner.run(stages, states, here, 1, restart, write_line=lambda line: None)
    return here.ran, results


@pytest.fixture
def data_dir(learnable_shards: Callable[..., Path]) -> Path:
    return _with_test_shards(learnable_shards(train=4, validate=2, each=64))


def _with_test_shards(directory: Path) -> Path:
    for shard in directory.glob("validate*"):
        (directory / shard.name.replace("validate", "test")).write_bytes(shard.read_bytes())
    return directory


@dataclasses.dataclass(frozen=True)
class Whole:
    """The tiny pipeline, run from start to end."""

    data_dir: Path
    workdir: Path
    ran: list[str]
    results: dict[str, Any]


@pytest.fixture(scope="module")
def whole(make_learnable_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("whole")
    directory = _with_test_shards(make_learnable_shards(root, train=4, validate=2, each=64))
    return Whole(directory, root / "run", *_run(_settings(), directory, root / "run"))


def _lasting(results: dict[str, Any]) -> dict[str, Any]:
    """Results without values that differ between runs: times, and graph sizes, which depend on temporary names."""
    return {
        name: {key: value for key, value in result.items() if key not in ("seconds", "bytes")}
        for name, result in results.items()
    }


@pytest.mark.end_to_end
def test_from_start_to_end(whole: Whole) -> None:
    ran = whole.ran
    assert ran == [stage.name for stage in make_stages(_settings())]
    assert ran[:5] == ["train logistic fold 0", "train logistic fold 1"] + [
        f"score logistic {split}" for split in ("train", "validation", "test")
    ]
    assert ran[-2:] == ["export final", "infer final"]
    assert len((whole.workdir / "submission.csv").read_text().splitlines()) == 1 + 2 * 64
    table = runner.write_results(whole.results, whole.workdir, 0.9)
    assert (whole.workdir / "results.txt").read_text() == table + "\n" and "\nreachable " in table
    assert json.loads((whole.workdir / "results.json").read_text())["stages"] == whole.results
    for name in ("logistic", "weighted mean", "LightGBM", "student", "final", "final, exported"):
        assert f"\n{name} " in table
    assert whole.results["evaluate final"]["gap_at_20"] > 0.5
    runner.write_hparams(whole.workdir)
    (columns,) = (whole.workdir / "runs").rglob("events.out.*.columns.session")
    assert columns.parent.name == "final"  # in the first run's directory, without values for it


@pytest.mark.end_to_end
def test_nothing_runs_again(whole: Whole) -> None:
    again, same = _run(_settings(), whole.data_dir, whole.workdir)
    assert again == [] and same == whole.results


@pytest.mark.slow  # tests/pipelines/test_state.py tests which stages are to do
def test_stages_that_run_again(whole: Whole, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole.workdir, run)
    changed = _settings(students={"small_a": {"changes": {"optimizer": {"learning_rate": 0.02}}}})
    expected = ["train small_a", "train final", "evaluate small_a", "evaluate final", "export final", "infer final"]
    assert _run(changed, whole.data_dir, run, restart=["train small_a"])[0] == expected
    (run / "submission.csv").unlink()
    shard = run / "scores" / "moe" / "test" / "test0001.tfrecord"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert _run(changed, whole.data_dir, run)[0] == ["score moe test", "infer final"]
    assert shard.read_bytes() == content
    (run / "runs" / "small_a" / "config.yaml").unlink()  # a damaged run does not affect other stages
    assert _run(changed, whole.data_dir, run)[0] == ["train small_a"]
    assert _run(changed, whole.data_dir, run)[0] == []


@pytest.mark.end_to_end
def test_only_first_level_and_stacking(whole: Whole, tmp_path: Path) -> None:
    """Without students and a final network, a pipeline ends with the stacking."""
    run = tmp_path / "run"
    shutil.copytree(whole.workdir, run)
    alone = dataclasses.replace(_settings(), students={}, final=None)
    ran, results = _run(alone, whole.data_dir, run)
    assert ran == [] and list(results)[-1] == "stack"
    table = runner.write_results(results, run)
    assert "\nLightGBM " in table and "final" not in table.replace(str(run), "")


def test_the_best_pipeline_on_real_records() -> None:
    settings = load_pipeline("pipelines/real_best.yaml")
    stages = make_stages(settings)
    names = [stage.name for stage in stages]
    assert len(settings.first_level()) == 16 and names.index("stack") == 16 * (5 + 2)
    assert names[-2:] == ["export final", "export ensemble"]
    ensemble = next(stage for stage in stages if stage.name == "ensemble")
    assert ensemble.inputs == tuple(f"train {name}" for name in settings.ensemble)


@pytest.mark.parametrize(
    ("only", "stops"),
    [
        pytest.param("logistic", ("train logistic fold 1", "score logistic validation"), marks=pytest.mark.slow),
        pytest.param("", ("train moe fold 1", "score moe validation", "stack", "train final"), marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_stage_continues(
    only: str, stops: Sequence[str], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results equal those of an uninterrupted pipeline."""
    real = execution._KINDS
    for stop in stops:

        def interrupted(stage: Stage, where: Where, stop: str = stop) -> dict[str, Any]:
            if stage.name == stop:
                raise KeyboardInterrupt
            return real[stage.kind](stage, where)

        with monkeypatch.context() as patch:
            patch.setattr(execution, "_KINDS", dict.fromkeys(real, interrupted))
            with pytest.raises(KeyboardInterrupt):
                _run(_settings(), whole.data_dir, tmp_path / "run", only)
    ran, results = _run(_settings(), whole.data_dir, tmp_path / "run", only)
    assert ran[0] == stops[-1]
    assert _lasting(results) == _lasting({name: whole.results[name] for name in results})
    if not only:
        assert len(results) == len(whole.results)
        assert (tmp_path / "run" / "submission.csv").read_bytes() == (whole.workdir / "submission.csv").read_bytes()


@pytest.mark.end_to_end
def test_other_stages_are_finished_if_one_fails(data_dir: Path, tmp_path: Path) -> None:
    content = (data_dir / "validate0001.tfrecord").read_bytes()
    (data_dir / "validate0001.tfrecord").write_bytes(content[:-7])
    settings = dataclasses.replace(_settings(), models={"logistic": _settings().models["logistic"]})
    message = r"stage 'score logistic validation': .*validate0001\.tfrecord: damaged .*; run the same command again to "
    message += "continue from"
    with pytest.raises(InputError, match=message):
        _run(settings, data_dir, tmp_path / "run")
    states = States(tmp_path / "run", make_stages(settings), shards_of(make_stages(settings), str(data_dir)))
    assert states.of("train logistic fold 1") == states.of("score logistic train") == "done"
    assert states.of("score logistic validation") == "begun" and states.of("stack") == "to do"


@pytest.mark.slow  # tests/ensembling makes means in the fast set
def test_means_in_one_graph(whole: Whole, tmp_path: Path) -> None:
    """Means of the models, of runs weighted by their recipes, and the stacking, are evaluated and exported."""
    logistic = TINY["students"]["student"]
    ensemble = {"ensemble": {"student": 2, "hard": 1}, "ensemble_recipes": {"hard": "logistic", "student": "logistic"}}
    ensemble["stack_members"] = {"moe": "hard", "logistic": "student"}
    settings = _settings(baselines={"hard": logistic}, mean=True, **ensemble)
    settings = dataclasses.replace(settings, students={"student": settings.students["student"]}, final=None)
    shutil.copytree(whole.workdir, tmp_path / "run")
    ran, results = _run(settings, whole.data_dir, tmp_path / "run", restart=["infer *"])
    assert "train student" not in ran and {"train hard", "mean", "ensemble", "stacking"} <= set(ran)
    judged = [name for name in ran if name.startswith(("evaluate", "export"))]
    graphs = ("mean", "ensemble", "stacking")
    assert judged[-6:] == [f"{what} {name}" for what in ("evaluate", "export") for name in graphs]
    for name in graphs:
        gap = results[f"evaluate {name}"]["gap_at_20"]
        assert results[f"export {name}"]["gap_at_20"] == pytest.approx(gap, abs=1e-4)
    model = run_dir.read_experiment(tmp_path / "run" / "runs" / "ensemble").model
    fitted = json.loads((tmp_path / "run" / "fitted" / "ensemble.json").read_text())["logistic"]
    assert [member["name"] for member in model["members"]] == ["logistic"] * 2
    assert list(model["weights"]) == pytest.approx([fitted * 2 / 3, fitted / 3])
    assert list(run_dir.read_experiment(tmp_path / "run" / "runs" / "stacking").model["first_level"]) == [0, 1]


def test_the_stacking_in_one_graph_has_a_run_for_each_model() -> None:
    settings = _settings(baselines={"hard": TINY["students"]["student"]})
    members = {"moe": "hard", "logistic": "student"}
    stages = {stage.name: stage for stage in make_stages(dataclasses.replace(settings, stack_members=members))}
    assert stages["stacking"].inputs == ("stack", "train hard", "train student")
    options = stages["stacking"].options
    assert options["models"] == ["moe", "logistic"] and options["members"] == ["runs/hard", "runs/student"]
    assert stages["export stacking"].inputs == ("stacking",) and stages["infer stacking"].output == "submission.csv"
    made = choices(dataclasses.replace(settings, stack_members=members))
    assert {"of": "stacking", "choice": "members", "where": "by hand, in the configuration"} in made


def test_a_mean_of_logits_has_its_weights_fitted_out_of_fold() -> None:
    settings = _settings(mean=True, mean_of="logits")
    stages = {stage.name: stage for stage in make_stages(settings)}
    assert stages["mean"].inputs[0] == "fit mean" and stages["mean"].options["weights"] == stages["fit mean"].output
    assert stages["mean"].options["average"] == "logits"
    names = list(settings.first_level())
    folds = [f"train {name} fold {fold}" for name in names for fold in range(settings.num_folds)]
    assert list(stages["fit mean"].inputs) == ["stack", *folds]
    assert "fit mean" not in [stage.name for stage in make_stages(_settings(mean=True))]
    made = {(entry["of"], entry["choice"]): entry["where"] for entry in choices(settings)}
    assert made["mean", "weights"] == "out of fold: float32 logits, scored again by the fold models"
    assert made["students", "stopping: the checkpoint of the highest GAP@20"].startswith("validation shards")


def test_teachers_in_the_training_step() -> None:
    """Fold models, a run, or a mean of runs can replace stacked scores as the teacher, and are trained first."""
    students = {"student": {"teacher": "hard"}, "small_a": {"teacher": "mean"}}
    baselines = {"hard": TINY["students"]["student"]}
    settings = _settings(baselines=baselines, students=students, mean=True)
    table = make_stages(settings)
    check_starts(table)
    stages = {stage.name: stage for stage in table}
    folds = ("train logistic fold 0", "train logistic fold 1")
    for name, inputs, labels in (
        ("student", ("train hard",), {"teacher": "runs/hard"}),
        ("small_a", ("mean",), {"teacher": "runs/mean"}),
        ("final", (*folds, "train small_a"), {"teacher_folds": "runs/logistic/fold_*"}),
    ):
        stage = stages[f"train {name}"]
        assert (stage.inputs, stage.options["labels"]) == (inputs, labels)
        assert stage.options["experiment"]["labels"]["soft"] is None
    names = list(stages)
    assert all(names.index(own) < number for number, name in enumerate(names) for own in stages[name].inputs)
    assert [stage.name for stage in stages["train final"].teachers(table)] == list(folds)
    assert {"of": "final", "choice": "teacher: logistic", "where": "by hand, in the configuration"} in choices(settings)
    alone = plan.costs(make_stages(_settings(final={"teacher": None})), "/nowhere", {"train": 1, "validation": 0})
    taught = plan.costs(make_stages(_settings()), "/nowhere", {"train": 1, "validation": 0})
    more = taught["train final"].operations - alone["train final"].operations
    assert more == 2 * 240 * 20 * 32  # a forward pass of both models, of 240 operations, in 20 updates of 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"final": {"teacher": "none"}},
            "the teacher of 'final' is 'none', which is not one of its models, students, baselines, mean or ensemble",
        ),
        (
            {"final": {"teacher": "mean"}},
            "the teacher of 'final' is 'mean', which is not one of its models, students, baselines, mean or ensemble",
        ),
        (
            {"final": {"teacher": "ensemble"}, "ensemble": {"student": 1, "final": 1}},
            "the teacher of 'final', 'ensemble', needs 'final' to be trained; name another teacher",
        ),
        (
            {"models": {"clips": {"config": "first_level/frame_logistic.yaml"}}, "final": {"teacher": "clips"}},
            r"final\.teacher: runs/clips/fold_0: was trained with data\.level frame, this run has video; name",
        ),
        (
            {"ensemble": {"student": 1}, "ensemble_recipes": {"student": "none"}},
            "ensemble_recipes names 'none', which is not a first-level model; name one of logistic, moe",
        ),
        (
            {"ensemble": {"student": 1, "final": 1}, "ensemble_recipes": {"student": "moe"}},
            "must have the same names; 'final' is in only one of them",
        ),
    ],
)
def test_unusable_teachers_and_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_starts(make_stages(_settings(**changes)))


def test_an_ensemble_has_its_weights_fitted_on_models_of_the_same_recipes() -> None:
    ensemble = {"student": 3, "small_a": 2, "final": 1}
    recipes = {"final": "moe", "student": "moe", "small_a": "logistic"}
    settings = _settings(ensemble=ensemble, ensemble_recipes=recipes)
    stages = {stage.name: stage for stage in make_stages(settings)}
    options = stages["ensemble"].options
    assert (options["weights"], options["names"]) == ("fitted/ensemble.json", ["moe", "logistic", "moe"])
    assert options["shares"] == [0.75, 1.0, 0.25]
    assert list(stages["fit ensemble"].options["runs"]) == ["moe", "logistic"]
    made = {(entry["of"], entry["choice"]): entry["where"] for entry in choices(settings)}
    stands = "moe for final, moe for student, logistic for small_a"
    expected = f"out of fold: float32 logits of fold models of the same recipes: {stands}"
    assert made["ensemble", "weights"] == expected


def test_an_ensemble_of_unknown_runs() -> None:
    with pytest.raises(
        InputError, match="ensemble names 'moe', which is not a student, a baseline or the final network"
    ):
        _settings(ensemble={"student": 1, "final": 1, "moe": 1})
    with pytest.raises(InputError, match="ensemble needs weights above 0, got 1"):
        _settings(ensemble={"student": 1, "final": 0})


@pytest.mark.slow  # tests/stacking has a cluster in the fast set
def test_a_cluster_of_two_workers_with_a_gpu_each(whole: Whole, tmp_path: Path) -> None:
    """Training and scoring stages require Dask's GPU resource; the result equals that of one process."""
    distributed = pytest.importorskip("distributed")
    stages = [stage for stage in make_stages(_settings()) if "logistic" in stage.name]
    states = States(tmp_path / "run", stages, shards_of(stages, str(whole.data_dir)))
    where = Where(str(whole.data_dir), tmp_path / "run", num_threads=1, xla=False, progress=False)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "resources": {"GPU": 1}}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
        workers.cluster_workers(client, where) as submit,
    ):
        results = runner.run(stages, states, submit, 2, write_line=lambda line: None)
    assert len(results) == 5
    assert _lasting(results) == _lasting({name: whole.results[name] for name in results})


def test_only_one_pipeline_at_a_time(tmp_path: Path) -> None:
    message = "another process runs a pipeline there"
    with runner.only_run(tmp_path), pytest.raises(InputError, match=message), runner.only_run(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), runner.only_run(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": None}, "models"),
        (
            {"models": {"LightGBM": {"config": "first_level/moe.yaml"}}},
            "models has 'LightGBM', a name that stacking uses",
        ),
        ({"num_folds": 1}, "num_folds must be 2 or more"),
        ({"final": {"trunks": ["none"]}}, "final.trunks names 'none'"),
        (
            {"stack_members": {"moe": "none", "logistic": "student"}},
            "names 'none', which is not a student or a baseline",
        ),
        (
            {"stack_members": {"moe": "student"}},
            r"lacks 'logistic'; it must name every first-level model \(logistic, moe",
        ),
        ({"stack_members": dict.fromkeys(("moe", "logistic", "x"), "student")}, "stack_members has 'x'; it must name"),
        ({"stack": {"learning_rate": 2.0}}, r"learning_rate must lie in \(0, 1\]"),
        ({"modles": {}}, "modles"),
    ],
)
def test_invalid_pipelines(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _settings(**changes)


def test_a_model_that_cannot_be_trained_is_named() -> None:
    wrong = _settings(models={"moe": {"changes": {"model": {"num_mixtures": 0}}}})
    with pytest.raises(InputError, match=r"first_level/moe\.yaml, as the pipeline changes it: .*num_mixtures"):
        make_stages(wrong)
    for data in ([1], "x"):
        with pytest.raises(InputError, match=r"first_level/moe\.yaml, as the pipeline changes it: .*'data'"):
            make_stages(_settings(models={"moe": {"changes": {"data": data}}}))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({}, ""),
        (
            {"width": 0.04},
            r"'final' starts from the weights of 'small_a', and needs 'a_.*\], which is there with the shape \[.*final",
        ),
        ({"trunks": ["c"]}, r"and needs 'c_.*\], which is not there; give final\.changes\.model the sizes of these"),
        (
            {"unit_inputs": False},
            r"model\.unit_inputs of 'final' is False, and of 'small_a', .* True; give both the same",
        ),
    ],
)
def test_the_start_of_the_final_network_is_checked_first(model: dict[str, Any], message: str) -> None:
    settings = _settings(final={"changes": {"model": model}})
    if not message:
        return check_starts(make_stages(settings))
    with pytest.raises(InputError, match=message):
        check_starts(make_stages(settings))


def test_operations_of_a_forward_pass_by_hand() -> None:
    spec = InputSpec("video", {"rgb": 8, "audio": 4}, 10)
    parameters, operations = forward_costs.forward_operations({"name": "logistic"}, spec)
    assert (parameters, operations) == (12 * 10 + 10, 2 * 12 * 10)
    parameters, operations = forward_costs.forward_operations({"name": "fcn", "hidden_sizes": [32, 16]}, spec)
    assert operations == 2 * (12 * 32 + 32 * 16 + 16 * 10)
    spec = InputSpec("frame", {"rgb": 8, "audio": 4}, 10, 20)
    values = {"name": "rnn", "hidden_sizes": [16], "head": {"name": "logistic"}}
    assert forward_costs.forward_operations(values, spec)[0] == sum(
        int(np.prod(variable.shape)) for variable in build_model(values, spec).trainable_variables
    )


def test_a_plan(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = make_stages(_settings())
    costs = plan.costs(stages, str(data_dir), {})
    steps, videos = 2 * 10 * 32, 4 * 64
    train = costs["train logistic fold 0"]
    assert train.parameters == 130 and train.examples == steps + 2 * videos // 2
    assert train.operations == 240 * (3 * steps + 2 * videos // 2)
    assert costs["score logistic train"].examples == videos
    assert costs["score logistic test"].operations == 2 * 240 * 2 * 64  # by the models of both folds
    text = plan.describe(stages, _settings(), str(data_dir), tmp_path / "run", 0.3)
    assert "train logistic, 2 folds" in text and f"{len(stages)} stages" in text and "2 to do" in text
    with pytest.raises(InputError, match="no file matches"):
        plan.describe(stages, _settings(), str(tmp_path / "none"), tmp_path / "run", 0.3)
    elsewhere = plan.describe(stages, _settings(videos={"train": 1000}), str(tmp_path / "none"), tmp_path / "run", 0.3)
    train = next(line for line in elsewhere.splitlines() if line.startswith("train logistic"))
    assert (
        "2 no data" in train and "runs/logistic/fold_*" in train and f" {2 * (2 * 10 * 32 + 2 * 1000 // 2):,} " in train
    )
    stack = next(line for line in text.splitlines() if line.startswith("stack"))
    assert "score logistic train and 5 more  stacked" in stack
    assert f"stack: about {4 * 64 * 40:,} rows of 3 columns, 0.0 GB of memory; up to 40 trees, 0.0 hours" in text
    written = sum(cost.bytes_written for cost in costs.values()) / 1e6
    total = f"{len(stages)} stages, 0.00 hours at 0.3 TFLOP/s, 0.00 hours of one CPU core, {written:,.1f} MB written"
    assert text.splitlines()[-2:] == [f"in all: {total}", f"remaining: {total}"]
    state = dict.fromkeys((stage.name for stage in stages), "done") | {"stack": "to do"}
    monkeypatch.setattr(States, "of", lambda _, name: state[name])
    some = plan.describe(stages, _settings(), str(data_dir), tmp_path / "run", 0.3)
    assert some.splitlines()[-1].startswith("remaining: 1 stages, 0.00 hours at")
