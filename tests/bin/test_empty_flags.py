"""Flags that are given an empty value are refused by one rule, in all commands."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from absl import flags
from commands import fresh_flags, run_command

from yt8m_tf.bin import usage

NO_COMMANDS = {"__init__", "launch", "usage"}
COMMANDS = sorted(
    path.stem.replace("_", "-")
    for path in Path(usage.__file__).parent.glob("*.py")
    if path.stem not in NO_COMMANDS and not path.stem.endswith("_flags")
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_with_an_empty_value_is_refused(command: str) -> None:
    """Every flag that takes text or a list, at once: only those of which an empty value means something are left."""
    with fresh_flags():
        module = importlib.import_module(f"yt8m_tf.bin.{command.replace('-', '_')}")
        own = [flag for flag in flags.FLAGS.get_key_flags_for_module(module.__name__) if _takes_text(flag)]
        meaningful = set()
        for flag in own:
            flag.parse("")
            told = usage.empty_flag(f"yt8m-{command}", module.__doc__ or "", module.__name__)
            if told is None:
                meaningful.add(flag.name)
            else:
                assert told.startswith(f"--{flag.name}=: empty; give --{flag.name}="), told
            flag.unparse()
    expected = {
        "convert": {"split_column"},
        "export": {"vocabulary"},
        "extract": {"split_column"},
        "models": {"match"},
    }
    assert own and meaningful == expected.get(command, set())


def _takes_text(flag: flags.Flag) -> bool:
    return flag.flag_type() == "string" or "list" in flag.flag_type() or flag.flag_type() == "multi string"


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("ensemble", ("--members=", "--workdir=x"), "--members=: empty; give --members=runs/netvlad,"),
        ("score", ("--model=", "--input=x", "--output=y"), "--model=: empty; give --model='runs/moe/fold_*'\n"),
        ("stack", ("--output=x", "--set="), "--set=: empty; give --set=VALUE, or leave it out\n"),
        (
            "train",
            ("--config=x", "--workdir=y", "--devices="),
            "--devices=: empty; give --devices=VALUE, or",
        ),
    ],
)
def test_an_empty_value_is_explained(command: str, given: tuple[str, ...], message: str) -> None:
    result = run_command(command, *given)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and message in result.stderr
