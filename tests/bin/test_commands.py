"""The commands: help and flags, one-line errors, nothing lost on failure, and a run through all of them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from commands import Result, run_command

from yt8m_tf import files, locks
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.trained import export_trained

_OLD = Path(__file__).resolve().parents[1] / "old_runs" / "video"
_COMMANDS = (
    "download",
    "convert",
    "extract",
    "train",
    "evaluate",
    "export",
    "infer",
    "score",
    "stack",
    "ensemble",
    "pipeline",
    "models",
    "kmeans",
    "strip",
    "report",
    "inspect",
    "sample-data",
    "score-submission",
    "timeline",
)
_SMALL = (
    "--set=data.features={rgb: 8, audio: 4}",
    "--set=data.num_classes=10",
    "--set=train={batch_size: 32, steps_per_epoch: 2, epochs: 2}",
)


def _process(command: str, *flags: str, **options: Any) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", f"yt8m_tf.bin.{command.replace('-', '_')}", *flags]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_is_quick_and_has_examples_and_the_flags_with_their_defaults(command: str) -> None:
    """The command runs in a separate process, both as a module and as the console script."""
    as_module = _process(command, "--help")
    assert as_module.returncode == 0 and as_module.stderr == ""
    assert f"\n  yt8m-{command}" in as_module.stdout and f"\nFlags of yt8m-{command}:\n" in as_module.stdout
    name = f"yt8m_tf.bin.{command.replace('-', '_')}"
    code = (
        f"import sys, {name} as command\n"
        f"sys.argv = ['yt8m-{command}', '--help']\n"
        "try:\n  command.run()\n"
        "except SystemExit as end:\n  assert end.code == 0\n"
        "print({'tensorflow', 'keras', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    as_script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert as_script.stdout == as_module.stdout and as_script.stderr == "set()\n"
    own = re.findall(r"^\w+ = flags\.DEFINE_\w+\(\s*\"(\w+)\"", Path(_source(name)).read_text(), re.MULTILINE)
    assert own
    for flag in own:
        described = re.search(rf"^  --(?:\[no\])?{flag}(?:=.*)?\n(?:      .*\n)+", as_module.stdout, re.MULTILINE)
        assert described and re.search(r"\((default:[^)]*|required)\)$", described[0].rstrip()), flag


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec and spec.origin
    return spec.origin


def test_a_reader_that_ends_early_is_no_error() -> None:
    """`yt8m-models --help | head -1` prints no traceback; the exit status is that of a command ended by SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "yt8m_tf.bin.models"]
    for arguments in (["--help"], []):
        ended = subprocess.run([*command, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")
    os.close(writing)


def test_help_knows_kinds_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = run_command("train", "--help").stdout
    assert (
        "  --config=TEXT\n      Configuration: PATH.yaml, or PATH.yaml:NAME for a file of several. (required)\n"
        in shown
    )
    assert "  --[no]xla\n      Compile the step with XLA. (default: true)\n" in shown
    assert "  --steps_per_call=N\n      Updates made by one call of the compiled function. (default: 4)\n" in shown
    assert (
        "  --on_empty=error|skip\n      Action on a clip without frames: stop, or leave it out. (default: error)\n"
        in shown
    )
    assert "--[no]traceback" in shown and "--verbosity" not in shown
    assert "--verbosity=N" in run_command("train", "--helpfull").stdout


_RUN = ("--config=first_level/logistic.yaml", "--workdir=run")


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (
            "train",
            (),
            "--config and --workdir: missing; give --config=first_level/resnet_like_mixup.yaml --workdir=run",
        ),
        ("train", ("--config=x",), "--workdir: missing; give --workdir=runs/resnet_like"),
        ("train", (*_RUN, "--wrkdir=y"), "--wrkdir: unknown flag; did you mean '--workdir'?"),
        ("train", (*_RUN, "--steps_per_call=0"), "--steps_per_call=0: must be a whole number of at least 1"),
        ("train", (*_RUN, "--fold=first"), "--fold=first: must be a whole number of at least 0"),
        ("train", (*_RUN, "--checkpoint_minutes=x"), "--checkpoint_minutes=x: must be a number"),
        ("train", (*_RUN, "--xla=7"), "--xla=7: must be true or false"),
        ("train", ("--workdir",), "--workdir: lacks its value; give --workdir=runs/resnet_like"),
        ("kmeans", ("--input=x", "--output=y", "--seed=-1"), "--seed=-1: must be a whole number of at least 0 and at"),
        ("evaluate", ("--workdir=x", "--checkpoint=newest"), "--checkpoint=newest: must be best or last"),
        ("evaluate", (), "--workdir, --saved_model or --bundle: missing; give one of them, such as --workdir=runs/"),
        ("evaluate", ("--workdir=x", "--bundle=y"), "--workdir and --bundle: exclude each other; give one of them"),
    ],
)
def test_unusable_flags_give_a_one_line_error(command: str, flags: tuple[str, ...], message: str) -> None:
    result = run_command(command, *flags)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(f"yt8m-{command}: error: {message}") and result.stderr.count("\n") == 1
    assert result.stderr.endswith(f"; 'yt8m-{command} --help' shows all flags\n")


def test_a_wrong_configuration_is_reported_before_tensorflow_is_imported() -> None:
    """Every command that takes --config does so."""
    commands = {
        "train": (("--config=first_level/logistic.yaml", "--workdir=x"), "train.epoch=1", "train.epochs"),
        "kmeans": (
            ("--config=first_level/logistic.yaml", "--input=x", "--output=x.npz"),
            *("train.epoch=1", "train.epochs"),
        ),
        "pipeline": (("--config=pipelines/real_best.yaml", "--workdir=x"), "num_fold=3", "num_folds"),
        "stack": (("--output=x", "--scores=x", "--input=x"), "num_tree=3", "num_trees"),
    }
    taking = {command for command in _COMMANDS if '_string("config"' in "".join(_source_text(command).split())}
    assert taking == set(commands)
    wrong = [(name, *flags, f"--set={key}") for name, (flags, key, _) in commands.items()]
    wrong += [(name, *flags, "--config=none.yaml") for name, (flags, _, _) in commands.items()]
    code = (
        "import json, sys\n"
        "from commands import run_command\n"
        "told = [run_command(*wrong).stderr for wrong in json.loads(sys.argv[1])]\n"
        "print(json.dumps([told, sorted({'tensorflow', 'keras', 'lightgbm'} & set(sys.modules))]))"
    )
    helpers = Path(__file__).resolve().parents[1] / "helpers"
    environment = os.environ | {"PYTHONPATH": str(helpers)}
    arguments = [sys.executable, "-c", code, json.dumps(wrong)]
    told, imported = json.loads(subprocess.run(arguments, capture_output=True, check=True, env=environment).stdout)
    assert imported == []
    for line, (name, (_, key, meant)) in zip(told, commands.items(), strict=False):
        assert line == f"yt8m-{name}: error: unknown key '{key.partition('=')[0]}'; did you mean '{meant}'?\n"
    for line, name in zip(told[len(commands) :], commands, strict=True):
        assert line.startswith(f"yt8m-{name}: error: --config=none.yaml: no such file") and line.count("\n") == 1


def _source_text(command: str) -> str:
    return Path(_source(f"yt8m_tf.bin.{command.replace('-', '_')}")).read_text()


def test_an_argument_that_is_not_a_flag_gives_a_one_line_error() -> None:
    result = run_command("train", *_RUN, "shards")
    assert result.stderr == "yt8m-train: error: unexpected argument 'shards'; flags are written --name=value\n"


@pytest.mark.parametrize("command", sorted({*_COMMANDS} - {"models"}))  # needs no flags, and would list models
def test_the_examples_have_every_flag_that_a_command_needs(command: str) -> None:
    """If a flag is missing, the message shows the command's example."""
    assert "VALUE" not in run_command(command).stderr


def test_traceback_shows_the_details_of_a_one_line_error() -> None:
    flags = (*_RUN, "--set=optimizer.learning_rat=1")
    result = run_command("train", *flags, "--traceback")
    *trace, last = result.stderr.splitlines()
    assert trace[0].startswith("Traceback") and any("strict_yaml.py" in line for line in trace)
    assert last == run_command("train", *flags).stderr.rstrip("\n") and "did you mean" in last


@pytest.mark.end_to_end
def test_the_way_from_shards_to_a_submission_file(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, run, model = learnable_shards(), tmp_path / "run", tmp_path / "exported" / "1"
    bundle = tmp_path / "model.tgz"
    shards = f"--input={data_dir}/validate*.tfrecord"
    written = {
        "train": run / "history.jsonl",
        "evaluate": run / "evaluation" / "classes.csv",
        "export": model / "saved_model.pb",
        "infer": tmp_path / "submission.csv",
        "score": tmp_path / "scores" / "scores.json",
        "ensemble": tmp_path / "twice" / "config.yaml",
        "strip": tmp_path / "stripped" / "config.yaml",
    }
    flags = {
        "train": ["--config=first_level/logistic.yaml", *_SMALL, f"--data_dir={data_dir}", f"--workdir={run}"],
        "evaluate": [f"--workdir={run}", f"--data_dir={data_dir}"],
        "export": [f"--workdir={run}", f"--data_dir={data_dir}", f"--output={model}", f"--bundle={bundle}"],
        "infer": [f"--bundle={bundle}", shards, f"--output={written['infer']}"],
        "score": [f"--model={model}", shards, f"--output={tmp_path / 'scores'}"],
        "ensemble": [f"--members={run}", f"--workdir={tmp_path / 'twice'}"],
        "strip": [f"--input={run}", f"--output={tmp_path / 'stripped'}"],
    }
    for command, file in written.items():
        result = run_command(command, *flags[command])
        assert result.returncode == 0 and file.is_file(), result.stderr
        assert str(file.parent) in result.stdout or str(file) in result.stdout
    interval = json.loads((run / "evaluation" / "metrics.json").read_text())["intervals"]["gap_at_20"]
    assert interval["low"] < interval["high"] and interval["resamples"] == 200
    page = run_command("report", f"--workdir={run}", f"--output={tmp_path / 'report.html'}").stdout
    assert re.match(
        r"model: .+ \(.+, checkpoint of step \d+\)\nwritten: .+\nnext: yt8m-report .+ --data_dir=DATA\n", page
    )
    other = (f"--workdir={run}", f"--data_dir={data_dir}", f"--output={tmp_path / 'against'}")
    result = run_command("evaluate", *other, f"--against={model}")
    assert re.match(rf"model: .+, best checkpoint of {re.escape(str(run))}: step \d+\n", result.stdout)
    assert "which includes 0: the difference is not significant" in result.stdout, result.stderr
    found = json.loads((tmp_path / "against" / "metrics.json").read_text())["against"]
    assert abs(found["difference"]) < 1e-3 and found["interval"]["low"] <= 0 <= found["interval"]["high"]
    assert found["against"] == str(model)
    # Vice versa, with the model's highest scores only, and without a difference, since both are the same.
    other = (f"--saved_model={model}", shards, f"--output={tmp_path / 'against'}")
    assert ": +0.000000, 95% interval" in run_command("evaluate", *other, f"--against={model}").stdout
    result = run_command("evaluate", *other, f"--against={tmp_path}")
    assert result.stderr.startswith(
        f"yt8m-evaluate: error: --against={tmp_path}: neither a run directory of yt8m-train"
    )


def _assert_one_line(result: subprocess.CompletedProcess[str] | Result, *parts: str) -> None:
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.strip() and "\r" not in line][-1:]
    assert "Traceback" not in result.stderr
    assert ": error: " in line and all(part in line for part in parts), line


def test_a_misspelt_key_gives_a_one_line_error(tmp_path: Path) -> None:
    flags = ("--config=first_level/logistic.yaml", f"--workdir={tmp_path / 'run'}", "--set=optimizer.learning_rat=1")
    result = run_command("train", *flags)
    _assert_one_line(result, "optimizer.learning_rat", "did you mean 'optimizer.learning_rate'?")
    assert result.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_full_disk_gives_a_one_line_error_and_loses_nothing(
    learnable_shards: Callable[..., Path], tmp_path: Path
) -> None:
    data_dir, run = learnable_shards(), tmp_path / "run"
    flags = ("--config=first_level/logistic.yaml", *_SMALL, f"--data_dir={data_dir}", f"--workdir={run}", "--noxla")
    flags = (*flags, "--set=train.ema_decay=0.9")  # a larger checkpoint

    def limit() -> None:  # no file of more than 1,800 bytes: the configuration fits, a checkpoint does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (1800, 1800))

    result = _process("train", *flags, preexec_fn=limit)
    _assert_one_line(result, str(run), "cannot be written", "same command")
    assert not list(run.glob("checkpoints/*")) and not list(run.rglob("*.tmp"))
    again = run_command("train", *flags)
    assert again.returncode == 0, again.stderr
    assert "finished at step 4" in again.stdout and "GAP@20" in again.stdout
    assert tf.train.load_checkpoint(str(run / "checkpoints" / "step_00000004" / "variables"))


def test_an_unwritable_path_gives_a_one_line_error(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    flags = (f"--data_dir={learnable_shards()}", f"--workdir={tmp_path / 'file' / 'run'}")
    _assert_one_line(
        run_command("train", "--config=first_level/logistic.yaml", *flags), "--workdir=", "cannot be written"
    )


_PLACES = [
    ("train", "workdir", ("--config=first_level/logistic.yaml",)),
    ("train", "init_from", ("--config=first_level/logistic.yaml", "--workdir=run")),
    ("evaluate", "workdir", ()),
    ("evaluate", "output", ("--workdir=run",)),
    ("evaluate", "output", ("--saved_model=model", "--input=x")),
    ("export", "workdir", ("--output=model",)),
    ("export", "output", ("--workdir=run",)),
    ("export", "bundle", ("--workdir=run", "--output=model")),
    ("export", "candidates", ("--pack", "--scores=x", "--output=model")),
    ("export", "scores", ("--pack", "--candidates=x", "--output=model")),
    ("infer", "output", ("--saved_model=model", "--input=x")),
    ("score", "output", ("--model=run", "--input=x")),
    ("score", "model", ("--output=scores", "--input=x")),
    ("stack", "output", ("--scores=scores", "--input=x")),
    ("stack", "scores", ("--output=stacked", "--input=x")),
    ("ensemble", "workdir", ("--members=a,b",)),
    ("ensemble", "members", ("--workdir=run",)),
    ("pipeline", "workdir", ("--config=pipelines/real_subset.yaml",)),
    ("report", "workdir", ()),
    ("report", "output", ("--workdir=run",)),
    ("models", "markdown", ()),
    ("models", "sizes", ()),
    ("kmeans", "output", ("--input=x",)),
    ("strip", "input", ("--output=stripped",)),
    ("strip", "output", ("--input=run",)),
    ("inspect", "json", ("x",)),
    ("inspect", "salvage_to", ("x",)),
    ("extract", "output_dir", ("--input=x", "--features=audio=log_mel")),
    ("sample-data", "output_dir", ()),
]


@pytest.mark.parametrize(("command", "flag", "others"), _PLACES)
def test_outputs_and_runs_must_be_local_paths(
    command: str, flag: str, others: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is read or written: otherwise `gs:/bucket` would be created here."""
    monkeypatch.chdir(tmp_path)
    for value, told in (
        ("gs://bucket/run", "not a local path; mount the bucket, and name the mounted directory"),
        ("s3:/bucket/run", "not a local path; mount the bucket, and name the mounted directory"),
    ):
        result = run_command(command, *others, f"--{flag}={value}")
        assert result.stderr == f"yt8m-{command}: error: --{flag}={value}: {told}\n" and result.returncode > 0
    assert not os.listdir(tmp_path)


def test_signals_end_a_command_with_a_one_line_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is that of a shell; temporary files are gone, and the previous file is kept."""
    page = tmp_path / "page.md"
    page.write_text("before")

    def send(number: int) -> None:
        assert len(os.listdir(tmp_path)) == 2
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", lambda *_, number=number: send(number))
            result = run_command("models", f"--markdown={page}")
        assert result.returncode == 128 + number and result.stderr.count("\n") == 1
        assert result.stderr.startswith("yt8m-models: error: interrupted; run the same command again to continue")
        assert os.listdir(tmp_path) == ["page.md"] and page.read_text() == "before"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.end_to_end
def test_two_commands_do_not_write_into_one_directory(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    """The second command is refused before it can replace the configuration of the first."""
    data_dir, run = learnable_shards(), tmp_path / "run"
    train = ("--config=first_level/logistic.yaml", *_SMALL, f"--data_dir={data_dir}", f"--workdir={run}", "--noxla")
    assert run_command("train", *train).returncode == 0
    for directory, command, flags in (
        (run, "train", (*train, "--set=train.seed=1")),
        (run / "evaluation", "evaluate", (f"--workdir={run}", f"--data_dir={data_dir}")),
        (tmp_path / "mean", "ensemble", (f"--members={run}", f"--workdir={tmp_path / 'mean'}")),
        (tmp_path / "sample", "sample-data", (f"--output_dir={tmp_path / 'sample'}",)),
    ):
        with locks.exclusive(directory, "--workdir", "trains"):
            before = sorted(tmp_path.rglob("*"))
            result = run_command(command, *flags)
            assert result.returncode == 1 and "there (process " in result.stderr, result.stderr
            assert result.stderr.endswith("; wait for it to end\n") and sorted(tmp_path.rglob("*")) == before


def test_a_diverged_run_says_how_to_continue(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, run = learnable_shards(), tmp_path / "run"
    wild = "--set=optimizer={name: adam, learning_rate: 1e38, clip_norm: null}"
    flags = ("--config=first_level/logistic.yaml", *_SMALL, wild, "--set=schedule.warmup_steps=0", "--noxla")
    where = (f"--data_dir={data_dir}", f"--workdir={run}", "--steps_per_call=1", "--checkpoint_minutes=-1")
    result = run_command("train", *flags, *where)
    assert f"or optimizer.clip_norm, in a new --workdir; --init_from={run} starts there" in result.stderr


@pytest.mark.parametrize("command", ["infer", "evaluate", "strip", "score"])
def test_a_damaged_saved_model_gives_a_one_line_error(command: str, exported: Path, tmp_path: Path) -> None:
    model, data = tmp_path / "model", _OLD / "data"
    shutil.copytree(exported, model)
    place = {"strip": f"--input={model}", "score": f"--model={model}"}.get(command, f"--saved_model={model}")
    flags = [place]
    if command != "strip":
        flags.append(f"--input={data}/validate*")
    variables = model / "variables" / "variables.data-00000-of-00001"
    whole = variables.read_bytes()
    for number, content in enumerate((b"", whole[: len(whole) // 2], None)):
        variables.unlink()
        if content is not None:
            variables.write_bytes(content)
        result = run_command(command, *flags, f"--output={tmp_path / f'out_{number}'}")
        _assert_one_line(result, str(model), "again")
        variables.write_bytes(whole)
    file = str(model / "saved_model.pb")
    result = run_command(command, *[flag.replace(str(model), file) for flag in flags], f"--output={tmp_path / 'out'}")
    _assert_one_line(result, file)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel; read-only."""
    output = tmp_path_factory.mktemp("exported") / "model"
    export_trained(_OLD / "run", output, data_dir=str(_OLD / "data"), precision=FLOAT32, progress=False)
    return output
