"""Mutated files of every kind that a command opens: each gives a one-line error that names the file, or a right result.

`make test` tries a few of each kind; `make fuzz` tries ten thousand in all, with fresh seeds, and also checks memory.
Bugs found this way have plain tests next to the tests of the code concerned.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conversion_kinds import KINDS as CONVERSION_KINDS
from input_kinds import KINDS as OTHER_KINDS
from input_kinds import Input
from mutated import mutate

from yt8m_tf.errors import InputError

KINDS = {**OTHER_KINDS, **CONVERSION_KINDS}
# The number of inputs of all kinds together; each kind gets its share, but at least `_FEWEST`.
_TOTAL = int(os.environ.get("YT8M_MUTATED_INPUTS", "0"))
_FEWEST = 10
_PATIENCE = 60  # seconds for one input
# For kinds with more than `_WARM_UP` inputs: the memory that all inputs after these may add.
_WARM_UP, _GROWTH = 100, 48 << 20
_SHOWN = 10


def _failure(opened: Input) -> str | None:
    """What is wrong with the outcome of opening a mutated input, or None."""
    try:
        opened.open()
    except InputError as error:
        message = str(error)
        if not all(character.isprintable() for character in message):
            return f"not one plain line: {message!r}"
        if not any(name in message for name in opened.named):
            return f"does not name it: {message!r}"
    except OSError as error:  # the commands also report these in one line
        if not error.filename:
            return f"names no file: {error!r}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "yt8m_tf" in f.filename or "tests" in f.filename]
        return f"{type(error).__name__}: {str(error)[:200]!r} in {' < '.join(reversed(own))}"
    return None


def _watched(name: str, call: Callable[[], str | None]) -> str | None:
    """Calls `call`; if it hangs, names the input and ends the process, as nothing else could stop it."""

    def end() -> None:
        print(f"\n{name}: still busy after {_PATIENCE} s", file=sys.__stderr__, flush=True)
        os._exit(70)

    timer = threading.Timer(_PATIENCE, end)
    timer.daemon = True
    timer.start()
    try:
        return call()
    finally:
        timer.cancel()


def _resident_bytes() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("name", KINDS)
def test_gives_a_one_line_error_or_a_right_result(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    kind = KINDS[name]
    count = max(_FEWEST, round(_TOTAL * kind.share / sum(each.share for each in KINDS.values())))
    (tmp_path / "input").mkdir()
    opened = kind.make(tmp_path / "input")
    assert _failure(opened) is None  # the unmutated input
    sound = opened.path.read_bytes()
    seed, failures, before = int(rng.integers(2**32)), {}, 0
    for number in range(count):
        if number == _WARM_UP:
            before = _resident_bytes()
        mutated = mutate(kind.form, np.random.default_rng([seed, number]), sound)
        opened.path.write_bytes(mutated)
        if failure := _watched(f"{name}, input {number} of seed {seed}", lambda: _failure(opened)):
            kept = tmp_path / f"failed_{number}"
            kept.write_bytes(mutated)
            failures[f"input {number} of seed {seed}, {kept}: {failure}"] = failure.rpartition(" in ")[2]
    shown = "\n".join(list(failures)[:_SHOWN])
    assert not failures, f"{len(failures)} of {count} mutated inputs:\n{shown}"
    if count > 2 * _WARM_UP:
        assert _resident_bytes() - before < _GROWTH
