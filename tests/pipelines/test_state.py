"""Which stages a pipeline considers done after its configuration, data, records or release have changed."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run_command
from tiny_pipeline import SCHEDULE, TINY

from yt8m_tf import run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.errors import InputError
from yt8m_tf.pipelines import plan, runner
from yt8m_tf.pipelines.content import Content, digest, shards_of
from yt8m_tf.pipelines.settings import PipelineConfig
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.stages import check_outputs, kept_seeds, make_stages
from yt8m_tf.pipelines.state import States

_RESULTS: Mapping[str, Mapping[str, Any]] = {
    "train": {"gap_at_20": 0.5, "step": 20},
    "stack": {"gaps": {"train": {"mean": 0.5}, "validation": {"mean": 0.5}}},
    "evaluate": {"gap_at_20": 0.5},
    "export": {"gap_at_20": 0.5, "bytes": 3},
}
_MODEL = {"config": "first_level/logistic.yaml", "changes": SCHEDULE}


def _settings(**changes: Any) -> PipelineConfig:
    return strict_yaml.parse(PipelineConfig, strict_yaml.merge(TINY, changes), "")


class Pipeline:
    """A pipeline whose stages only write a file, and record that they ran."""

    def __init__(self, root: Path):
        self.data_dir, self.workdir = root / "data", root / "run"
        self.data_dir.mkdir()
        for name in ("train0", "train1", "validate0", "test0"):
            self.add_shard(name)
        self.told: list[str] = []

    def add_shard(self, name: str, size: int = 10) -> None:
        (self.data_dir / f"{name}.tfrecord").write_bytes(bytes(size))

    def table(self, settings: PipelineConfig) -> list[Stage]:
        return make_stages(settings, kept_seeds(settings, self.workdir))

    def states(self, settings: PipelineConfig) -> States:
        stages = self.table(settings)
        return States(self.workdir, stages, shards_of(stages, str(self.data_dir)))

    def run(self, settings: PipelineConfig, *restart: str, stop: str = "") -> list[str]:
        """Runs stages until `stop` fails; returns those that ran."""
        ran: list[str] = []

        def submit(stage: Stage) -> concurrent.futures.Future[dict[str, Any]]:
            future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
            if stage.name == stop:
                future.set_exception(InputError("no memory left"))
                return future
            ran.append(stage.name)
            self.write(stage)
            future.set_result({**_RESULTS.get(stage.kind, {}), "seconds": 0})
            return future

        runner.run(self.table(settings), self.states(settings), submit, 1, restart, write_line=self.told.append)
        return ran

    def write(self, stage: Stage) -> None:
        """Writes the output of a stage."""
        output = self.workdir / stage.output
        if output.suffix:
            output.write_text(stage.name)
            return
        output.mkdir(parents=True)  # fails if another stage's output exists
        (output / "file").write_text(stage.name)
        if stage.kind == "train":
            values = dict(stage.options["experiment"])
            if values["labels"]["soft"]:
                values = strict_yaml.merge(values, {"labels": {"soft": str(self.workdir / values["labels"]["soft"])}})
            (output / run_dir.CONFIG).write_text(yaml.safe_dump(values))

    def record(self, stage: str) -> Path:
        return self.workdir / "stages" / f"{stage.replace(' ', '_')}.done.json"


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


def _all(settings: PipelineConfig) -> list[str]:
    return [stage.name for stage in make_stages(settings)]


def test_an_added_shard_needs_permission(pipeline: Pipeline) -> None:
    """An added shard needs permission to start over, and then the previous output is kept."""
    assert pipeline.run(_settings()) == _all(_settings())
    pipeline.add_shard("train2")
    with pytest.raises(InputError) as caught:
        pipeline.run(_settings())
    message = str(caught.value)
    assert "'train logistic fold 0' and 9 more (shards: 'train2.tfrecord' is new)" in message and "\n" not in message
    assert "--restart='*'" in message and f"moves to {pipeline.workdir / '.old'}" in message
    assert (pipeline.workdir / "runs" / "moe" / "fold_1" / "file").read_text() == "train moe fold 1"
    with pytest.raises(InputError, match=r"'stack' and 3 more \(shards: 'train2"):
        pipeline.run(_settings(), "train logistic", "train moe", "score *")
    assert pipeline.run(_settings(), "*") == _all(_settings())
    old = pipeline.workdir / ".old" / "1"
    assert (old / "runs" / "moe" / "fold_1" / "file").read_text() == "train moe fold 1"
    assert (old / "submission.csv").is_file() and (old / "stages" / "stack.done.json").is_file()
    assert f"stack: moved its earlier output to {old}" in pipeline.told
    assert pipeline.run(_settings(), "*") == []  # nothing is left to start over


def test_changed_renamed_and_added_shards(pipeline: Pipeline) -> None:
    pipeline.run(_settings())
    (pipeline.data_dir / "train0.tfrecord").rename(pipeline.data_dir / "train5.tfrecord")
    pipeline.add_shard("train1", 11)
    pipeline.add_shard("train6")
    lines = pipeline.states(_settings()).changed()
    expected = (
        "'train5.tfrecord' and 1 more are new, 'train0.tfrecord' is gone, 'train1.tfrecord' is of a different size"
    )
    assert lines[0] == f"'train logistic', 2 folds: shards: {expected}"
    assert lines[-1] == "'infer final': 'export final', which it needs, changed"


def test_permission_for_a_stage_includes_later_stages(pipeline: Pipeline) -> None:
    """Permission covers later stages that changed only through this one; the same command resumes where it stopped."""
    pipeline.run(_settings())
    changed = _settings(models={"moe": {"changes": {"optimizer": {"learning_rate": 0.5}}}})
    why = r"'train moe fold 0' and 1 more \(experiment\.optimizer\.learning_rate: 0\.03 -> 0\.5\); 12 stages after them"
    with pytest.raises(InputError, match=why + r"\. .*--restart='train moe' to run them from the start"):
        pipeline.run(changed)
    with pytest.raises(InputError, match="score moe test"):
        pipeline.run(changed, "train moe", stop="score moe test")
    ran = pipeline.run(changed, "train moe")
    assert ran[:2] == ["score moe test", "stack"] and len(ran) == 10
    assert pipeline.run(changed) == []
    with pytest.raises(InputError, match=r"--restart=train mo: no stage of that name; did you mean 'train moe'\?; --p"):
        pipeline.run(changed, "train mo")


def test_a_model_before_the_others(pipeline: Pipeline) -> None:
    """The other models stay as they are: seeds come from names."""
    pipeline.run(_settings())
    models = {"models": {"first": _MODEL, **TINY["models"]}}
    settings = strict_yaml.parse(PipelineConfig, TINY | models, "")
    with pytest.raises(
        InputError, match=r": 'stack' \(models: .*'score first train' and 2 more are needed now\); 8 st"
    ):
        pipeline.run(settings)
    ran = pipeline.run(settings, "stack")
    assert ran[:6] == [f"train first fold {n}" for n in (0, 1)] + [
        f"score first {split}" for split in ("train", "validation", "test")
    ] + ["stack"]
    assert not [name for name in ran if "logistic" in name or "moe" in name]
    seeds = {
        stage.options["experiment"]["train"]["seed"] for stage in pipeline.table(settings) if "fold 0" in stage.name
    }
    assert len(seeds) == 3


def _as_an_earlier_release(pipeline: Pipeline, settings: PipelineConfig, *, unknown: bool, told: bool) -> None:
    """Runs a pipeline like an earlier release, whose seeds were positions.

    Args:
      pipeline: must not have run yet.
      settings: its configuration.
      unknown: the release lacked two keys, of training and of stacking.
      told: records contain what each stage was run with; those of the first release have only a hash of it.
    """
    seeds = {name: position for position, name in enumerate(settings.first_level())}
    stages = make_stages(settings, seeds)
    shards = shards_of(stages, str(pipeline.data_dir))
    fingerprints: dict[str, str] = {}
    (pipeline.workdir / "stages" / "shards").mkdir(parents=True)
    for stage in stages:
        pipeline.write(stage)
        output, options = pipeline.workdir / stage.output, strict_yaml.to_dict(dict(stage.options))
        if stage.kind == "train" and unknown:
            path = output / run_dir.CONFIG
            values = yaml.safe_load(path.read_text())
            for known in (options["experiment"], values):
                del known["train"]["target_reweighting"]
            path.write_text(yaml.safe_dump(values))
        if stage.kind == "stack":
            if unknown:
                del options["stack"]["cat_l2"]
            (output / "stack.json").write_text(json.dumps({"config": options["stack"]}))
        inputs = {name: fingerprints[name] for name in stage.inputs}
        content = Content(stage.kind, options, inputs, shards[stage.name])
        fingerprints[stage.name] = content.fingerprint
        paths = [output] if output.is_file() else [path for path in output.rglob("*") if path.is_file()]
        record = {
            "fingerprint": content.fingerprint,
            "result": {**_RESULTS.get(stage.kind, {}), "seconds": 0},
            "files": {str(path.relative_to(pipeline.workdir)): path.stat().st_size for path in paths},
        }
        if told:
            own = digest(shards[stage.name])
            record["content"] = {"kind": stage.kind, "options": options, "inputs": inputs, "shards": own}
            (pipeline.workdir / "stages" / "shards" / f"{own}.json").write_text(json.dumps(shards[stage.name]))
        pipeline.record(stage.name).write_text(json.dumps(record))


@pytest.mark.parametrize(("unknown", "told"), [(True, True), (True, False), (False, False)])
def test_records_of_an_earlier_release(pipeline: Pipeline, unknown: bool, told: bool) -> None:
    """Stages of an earlier release count as done: they keep their seeds, and keys added since get their defaults."""
    settings = {"mean": True}
    _as_an_earlier_release(pipeline, _settings(**settings), unknown=unknown, told=told)
    runs = [pipeline.workdir / "runs" / name / "fold_1" for name in ("logistic", "moe")]
    assert [run_dir.read_experiment(run).train.seed for run in runs] == [0, 1]
    slower = {"changes": {"optimizer": {"learning_rate": 0.5}}}
    lines = pipeline.states(_settings(**settings, models={"moe": slower})).changed()
    assert lines[0] == "'train moe', 2 folds: experiment.optimizer.learning_rate: 0.03 -> 0.5"
    assert lines[1] == "'score moe train': 'train moe fold 0' and 1 more, which it needs, changed"
    reweighted = {"changes": {"train": {"target_reweighting": 0.5}}}
    lines = pipeline.states(_settings(**settings, students={"student": reweighted})).changed()
    assert lines[0] == "'train student': experiment.train.target_reweighting: 0.0 -> 0.5"
    lines = pipeline.states(_settings(**settings, stack={"cat_l2": 5})).changed()
    assert lines[0] == "'stack': stack.cat_l2: 10.0 -> 5.0"
    assert pipeline.run(_settings(**settings)) == []
    assert "content" in json.loads(pipeline.record("train moe fold 1").read_text())  # the record is completed
    assert pipeline.run(_settings(**settings)) == []
    pipeline.add_shard("train2")
    assert pipeline.states(_settings(**settings)).changed()[0].endswith("shards: 'train2.tfrecord' is new")


def test_a_new_key_whose_default_differs_from_earlier_behaviour(pipeline: Pipeline) -> None:
    """If the old value is set explicitly, the stage is still done; otherwise it has changed."""

    def settings(**loss: Any) -> PipelineConfig:
        return _settings(students={"student": {"changes": {"loss": {"name": "soft_ranking", **loss}}}})

    pipeline.run(settings())
    record = json.loads(pipeline.record("train student").read_text()) | {"fingerprint": "of another release"}
    del record["content"]["options"]["experiment"]["loss"]["positive_above"]
    pipeline.record("train student").write_text(json.dumps(record))
    lines = pipeline.states(settings()).changed()
    assert lines[0] == "'train student': experiment.loss.positive_above: 0.0 -> 0.5"
    assert pipeline.states(settings(positive_above=0)).of("train student") == "done"


def test_an_added_feature_is_not_a_key_of_a_newer_release(pipeline: Pipeline) -> None:
    """An added feature is a change."""
    pipeline.run(_settings())
    wider = {"changes": {"data": {"features": {"text": 3}}}}
    lines = pipeline.states(_settings(students={"student": wider})).changed()
    assert lines[0] == "'train student': experiment.data.features.text: None -> 3"


def test_a_record_of_the_first_release_does_not_say_which_shard_changed(pipeline: Pipeline) -> None:
    _as_an_earlier_release(pipeline, _settings(), unknown=False, told=False)
    pipeline.add_shard("train2")
    assert "its record, from an earlier release, does not say which" in pipeline.states(_settings()).changed()[0]


def test_fingerprints_are_those_of_the_first_release() -> None:
    """The fingerprints as computed by the first release."""
    options = {"models": ["runs/a/fold_0"], "level": "video"}
    score = Content("score", options, {}, (("a.tfrecord", 3), ("b.tfrecord", 5))).fingerprint
    assert score == "f481dd86ddde43134d29a6b7867bc2bacb41f8af36026178d0358ef62b1b7032"
    export = Content("export", {"run": "runs/a", "precision": "float16"}, {"score a train": score}, ())
    assert export.fingerprint == "1156fa98a47a13f8afd56233ea92a38c1e99cdb800649541fe0589cf715d46d1"


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "null", '{"fingerprint": "x', '{"fingerprint": 3}', '{"fingerprint": "x", "files": [1]}', "\xff"],
)
@pytest.mark.parametrize("what", ["done", "begun"])
def test_a_damaged_record(pipeline: Pipeline, content: str, what: str) -> None:
    """A one-line error names it, and the stage's output is kept."""
    pipeline.run(_settings())
    path = pipeline.record("train moe fold 0").with_suffix("").with_suffix(f".{what}.json")
    pipeline.record("train moe fold 0").rename(path)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(
        InputError, match=r"'train moe fold 0' \(its record .*moe_fold_0\.\w+\.json is damaged: "
    ) as caught:
        pipeline.run(_settings())
    assert "\n" not in str(caught.value)
    assert pipeline.run(_settings(), "train moe fold 0") == ["train moe fold 0"]
    assert (pipeline.workdir / ".old" / "1" / "runs" / "moe" / "fold_0" / "file").is_file()


def test_a_record_of_another_shape_shows_as_a_difference(pipeline: Pipeline) -> None:
    """A record lacks the options of its stage; lists of shards have invalid sizes, or names with line breaks."""
    pipeline.run(_settings())
    path = pipeline.record("train moe fold 0")
    record = json.loads(path.read_text())
    shards = pipeline.workdir / "stages" / "shards" / f"{record['content']['shards']}.json"
    path.write_text(json.dumps({**record, "fingerprint": "x", "content": {**record["content"], "options": {}}}))
    assert "experiment: None -> " in pipeline.states(_settings()).changed()[0]
    path.write_text(json.dumps(record))
    pipeline.add_shard("train2")  # otherwise the stored list would equal the current one
    for content, told in (
        ('[["a", Infinity]]', "its shards have changed"),
        ('[["a\\nb", 10]]', r"'a\nb' is gone"),
    ):
        shards.write_text(content)
        lines = pipeline.states(_settings()).changed()
        assert any(told in line for line in lines) and not any("\n" in line for line in lines), lines


@pytest.mark.parametrize(
    ("stage", "result"),
    [
        ("stack", {}),
        ("stack", {"gaps": {"train": {"mean": 1}, "test": {}}}),
        ("export final", {"gap_at_20": "high"}),
        ("export final", {"bytes": 10**400}),
    ],
)
def test_a_damaged_result(pipeline: Pipeline, stage: str, result: dict[str, Any]) -> None:
    pipeline.run(_settings())
    record = json.loads(pipeline.record(stage).read_text())
    pipeline.record(stage).write_text(json.dumps(record | {"result": {"seconds": 0, **result}}))
    assert "json is damaged: result." in pipeline.states(_settings()).changed()[0]


def test_an_output_without_a_record(pipeline: Pipeline) -> None:
    """An output without a record is not touched: it might be days of someone's work."""
    (pipeline.workdir / "runs" / "student").mkdir(parents=True)
    assert pipeline.states(_settings()).of("train student") == "to do"
    (pipeline.workdir / "runs" / "student" / "checkpoint").touch()
    with pytest.raises(InputError, match="runs/student exists, but no record says how it was made"):
        pipeline.run(_settings())


def test_damage_does_not_remove_good_records(pipeline: Pipeline) -> None:
    pipeline.run(_settings())
    (pipeline.workdir / "runs" / "student" / "file").write_text("shorter")
    assert pipeline.run(_settings()) == ["train student"]
    assert (pipeline.workdir / ".old" / "1" / "runs" / "student" / "file").read_text() == "shorter"
    (pipeline.workdir / "runs" / "student" / "file").unlink()
    assert pipeline.run(_settings()) == ["train student"]
    assert (pipeline.workdir / ".old" / "2" / "runs" / "student" / run_dir.CONFIG).is_file()


def test_a_plan_says_what_changed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.run(_settings())
    settings = _settings(students={"small_a": {"changes": {"train": {"epochs": 5}}}})
    stages = pipeline.table(settings)
    monkeypatch.setattr(plan, "costs", lambda stages, *_: {stage.name: plan.Cost() for stage in stages})
    monkeypatch.setattr(plan, "_num_videos", lambda *_: 1)
    text = plan.describe(stages, settings, str(pipeline.data_dir), pipeline.workdir, 1.0)
    assert "\nchanged: 'train small_a': experiment.train.epochs: 2 -> 5\n" in text
    assert next(line for line in text.splitlines() if line.startswith("train small_a")).split()[2] == "changed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": {"moe": _MODEL}}, r"'train moe' and 'train moe fold 0' would both write to .*runs/moe; give one"),
        ({"students": {"final": _MODEL}}, "two stages 'train final' would both write to .*runs/final;"),
        ({"students": {"mean": _MODEL}, "mean": True}, "'train mean' and 'mean' would both write to .*runs/mean;"),
        ({"baselines": {"student": _MODEL}}, "two stages 'train student'"),
        ({"models": {"final": _MODEL}}, "'train final' and 'train final fold 0' would both"),
        (
            {"students": {"ensemble": _MODEL}, "ensemble": {"student": 1}},
            "'train ensemble' and 'ensemble' would both write to .*runs/ensemble;",
        ),
        ({"students": {"moe_fold_0": _MODEL}}, "'train moe fold 0' and 'train moe_fold_0' would both .*stages/"),
        ({"models": {"../scores": _MODEL}}, r"has a model '\.\./scores'; names become names of directories"),
        ({"baselines": {"..": _MODEL}}, r"has a model '\.\.'"),
    ],
)
def test_names_that_collide(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        check_outputs(make_stages(_settings(**changes)), tmp_path)


def test_outputs_that_are_one_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "student").symlink_to("small_a")
    with pytest.raises(InputError, match=r"'train student' and 'train small_a' would both write to .*runs/small_a"):
        check_outputs(make_stages(_settings()), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "student").unlink()
    (tmp_path / "runs" / "student").symlink_to("../elsewhere")
    check_outputs(make_stages(_settings(mean=True)), tmp_path)


def test_the_command_refuses_names_that_collide(tmp_path: Path) -> None:
    """The command refuses before it looks for data or writes anything."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(strict_yaml.merge(TINY, {"students": {"moe": _MODEL}})))
    for flags in ((), ("--plan",)):
        result = run_command("pipeline", f"--config={config}", f"--workdir={tmp_path / 'run'}", *flags)
        assert result.returncode == 1 and "'train moe' and 'train moe fold 0' would both write" in result.stderr
        assert result.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_the_command_asks_before_it_starts_over(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.run(_settings())
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    flags = [f"--config={config}", f"--workdir={pipeline.workdir}", f"--data_dir={pipeline.data_dir}"]
    done = run_command("pipeline", *flags)
    assert done.returncode == 0 and "19 of 19 stages are done already" in done.stdout, done
    assert done.stdout.splitlines()[-1].startswith(f"next: yt8m-report --workdir={pipeline.workdir} --data_dir=")
    (pipeline.data_dir / "sample_data.json").write_text("{}")  # like that of --from_video_level: no best GAP
    assert run_command("pipeline", *flags).returncode == 0
    pipeline.add_shard("test1")
    result = run_command("pipeline", *flags, "--jobs=2")
    assert result.returncode == 1 and "shards: 'test1.tfrecord' is new" in result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    for more in ((), ("--plan",)):
        result = run_command("pipeline", *flags, "--restart=nothing", *more)
        assert result.returncode == 1 and "--restart=nothing: no stage of that name" in result.stderr
    assert (pipeline.workdir / "submission.csv").read_text() == "infer final"


def test_errors_of_the_pipeline_are_not_those_of_its_directory(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="the scheduler"), runner.only_run(tmp_path):
        raise TimeoutError("the scheduler")
