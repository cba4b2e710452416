"""Printed commands can be pasted, and lists of paths can contain any path."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from commands import fresh_flags, run_command
from shards import video_record, write_shard

from yt8m_tf.bin import usage
from yt8m_tf.bin.usage import FAULT_FLAGS, next_command, parse_comma_list
from yt8m_tf.config.data import DataConfig
from yt8m_tf.console.command_line import LISTS, comma_list, list_flag
from yt8m_tf.pretrained import packaged


@pytest.mark.parametrize("path", ["plain", "with space", "a,b", "it's [1] $HOME `ls`", 'say "x", y', "ünï*?", "~/x"])
def test_the_values_of_a_printed_command_can_be_parsed(path: str) -> None:
    text = next_command("infer", input=[f"{path}/a*", "b*"], output=f"{path}.csv")
    prefix, command, *flags = shlex.split(text)
    assert (prefix, command) == ("next:", "yt8m-infer")
    values = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    assert parse_comma_list(values["input"]) == [f"{path}/a*", "b*"] and values["output"] == f"{path}.csv"
    assert parse_comma_list(comma_list([path])) == [path]


COMMANDS = sorted({*LISTS, *FAULT_FLAGS, "inspect", "models", "report", "strip"})


@pytest.mark.parametrize("command", COMMANDS)
def test_printed_commands_know_the_flags_of_others(command: str) -> None:
    with fresh_flags():
        module = importlib.import_module(f"yt8m_tf.bin.{command.replace('-', '_')}")
        own = flags.FLAGS.get_key_flags_for_module(module.__name__)
    lists = {flag.name for flag in own if "list" in flag.flag_type()}
    assert lists == set(LISTS.get(command, ()))
    faults = {"on_damaged", "on_empty", "on_unlabelled"}
    assert {flag.name for flag in own} & faults == set(FAULT_FLAGS.get(command, ()))


def test_every_command_is_checked() -> None:
    modules = {path.stem.replace("_", "-") for path in Path(usage.__file__).parent.glob("*.py")}
    others = {"--init--", "launch", "usage"}
    assert {name for name in modules if not name.endswith("-flags")} - others == set(COMMANDS)


def test_a_single_path_of_a_list_is_quoted_too() -> None:
    line = next_command("stack", scores=Path("a, b/*"), data_dir="c,d")
    assert line == "next: yt8m-stack --scores='\"a, b/*\"' --data_dir=c,d"
    assert list_flag("init_from", "a,b") == "--init_from='\"a,b\"'"


def test_tolerated_faults_are_tolerated_by_the_next_command(tmp_path: Path) -> None:
    with fresh_flags():
        from yt8m_tf.bin import train

        tolerant = ("--on_unlabelled=skip", "--on_damaged=skip", "--on_empty=error")
        flags.FLAGS(["yt8m-train", "--config=c.yaml", f"--workdir={tmp_path}", *tolerant])
        assert train._next(DataConfig(), tmp_path).endswith(" --on_damaged=skip --on_unlabelled=skip")
        assert train.next_command("score", model="m") == "next: yt8m-score --model=m --on_damaged=skip"
        assert train.next_command("report") == "next: yt8m-report"


def test_scores_are_stacked_only_out_of_fold() -> None:
    with fresh_flags():
        from yt8m_tf.bin import score

        flags.FLAGS(["yt8m-score", "--model=m", "--input=a*", "--output=s/m/train"])
        folds = {"a0": 0, "a1": 1}
        line = score._next(Path("s/m/train"), ["d/a0", "d/a1"], folds)
        assert line == f"next: yt8m-stack --scores={shlex.quote(str(Path('s').absolute() / '*'))} --data_dir=. " + (
            "--input='a*' --output=stacked"
        )
        for directory, shards, known in (
            ("s/m/train", ["d/a0", "d/a1"], {}),
            ("s/m/train", ["d/a0", "d/v"], folds),
            ("s/m/train", ["d/a0"], folds),
            ("s/m/test", ["d/a0", "d/a1"], folds),
        ):
            assert score._next(Path(directory), shards, known) is None


def test_after_a_fold_comes_the_next_one_and_then_the_scores(tmp_path: Path) -> None:
    with fresh_flags():
        from yt8m_tf.bin import train

        flags.FLAGS(["yt8m-train", "--config=c.yaml", f"--workdir={tmp_path}"])
        _after_a_fold(train._next, tmp_path)


def _after_a_fold(next_of: Callable[[DataConfig, Path], str], tmp_path: Path) -> None:
    runs = [tmp_path / "moe" / f"fold_{number}" for number in range(2)]
    runs[0].mkdir(parents=True)
    line = next_of(DataConfig(num_folds=2), runs[0])
    assert line.startswith("next: yt8m-train") and f"--workdir={runs[1]} --num_folds=2 --fold=1" in line
    runs[1].mkdir()
    line = next_of(DataConfig(num_folds=2, fold=1), runs[1])
    assert line.startswith("next: yt8m-score") and "fold_*" in line and "--output=scores/moe/train" in line
    for workdir in (tmp_path / "moe", runs[1]):
        assert next_of(DataConfig(), workdir).startswith("next: yt8m-evaluate")


@pytest.mark.parametrize(
    ("source", "given", "last"),
    [
        ("examples", (), "score-submission --submission=out --labels=examples"),
        ("examples", ("--format=names",), None),
        ("examples", ("--top_k=5",), None),  # GAP@20 needs 20 of them
        ("examples:frame", ("--signature=frames",), "score-submission --submission=out --labels=examples:frame"),
        (
            "examples:frame",
            ("--signature=frames", "--format=names"),
            "timeline --saved_model=pretrained --input=examples:frame --signature=frames --output=timeline.html",
        ),
        ("unlabelled", (), None),
    ],
)
def test_the_next_command_after_scores_fits_the_records(
    source: str, given: tuple[str, ...], last: str | None, tmp_path: Path
) -> None:
    write_shard(tmp_path / "unlabelled", [video_record(b"test", [], rgb=np.ones(2, np.float32))])
    with fresh_flags():
        from yt8m_tf.bin import infer
        from yt8m_tf.data.shards import list_shards

        flags.FLAGS(["yt8m-infer", "--saved_model=pretrained", f"--input={source}", "--output=out", *given])
        shards = list_shards([source], str(tmp_path))
        found = infer._after_videos(packaged.saved_model("pretrained", "--saved_model"), shards)
    assert found == (last and f"next: yt8m-{last}")


@pytest.mark.slow
def test_a_path_with_a_comma_can_be_read_as_the_message_says(tmp_path: Path) -> None:
    """The command printed by training evaluates the run despite its directories' odd names."""
    data, run = tmp_path / "my, data [1]", tmp_path / "my run"
    records = [video_record(b"l%d" % i, [i % 6], rgb=np.ones(2, np.float32)) for i in range(8)]
    for split in ("train", "validate"):
        write_shard(data / f"{split}0.tfrecord", records)
    settings = ("data.features={rgb: 2}", "data.num_classes=6", "train.batch_size=4", "train.epochs=1")
    overrides = [f"--set={setting}" for setting in (*settings, "train.steps_per_epoch=1")]
    where = (f"--data_dir={data}", f"--workdir={run}", "--xla=false", "--steps_per_call=1")
    result = run_command("train", "--config=first_level/logistic.yaml", *where, *overrides)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("next: yt8m-evaluate ")]
    evaluated = run_command("evaluate", *shlex.split(line)[2:], "--xla=false")
    assert evaluated.returncode == 0, evaluated.stderr
    assert shlex.split(evaluated.stdout[evaluated.stdout.index("next: ") :].splitlines()[0])[1] == "yt8m-export"
    pattern = f"{data}/validate*.tfrecord"
    quoted = run_command("evaluate", f"--workdir={run}", f'--input="{pattern}"', "--xla=false")
    assert quoted.returncode == 0, quoted.stderr
    bare = run_command("evaluate", f"--workdir={run}", f"--input={pattern}", "--xla=false")
    assert bare.returncode == 1 and "write a path with a comma in double quotes: --input=" in bare.stderr
