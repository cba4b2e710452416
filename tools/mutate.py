"""Mutation testing: breaks the code on purpose, in one place at a time, and shows whether the tests notice.

tools/mutation/mutants.yaml lists the faults: a snippet that occurs exactly once in the package, and its replacement.
Each fault is made in a copy of the checkout, in which the test files that cover its module run until a test fails.
Then the whole fast set runs on all surviving mutants at once and, if it fails, on halves of them. Ends with a table.

A mutant with a result in --output is not run again, unless its fault has changed.

  python tools/mutate.py --output=mutants.json
  python tools/mutate.py --output=mutants.json --match='fold|seed' --restart --survivors=none
  python tools/mutate.py --output=before.json --root=../older --python=../older/.venv/bin/python
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from mutation import lists
from mutation.lists import Mutant, Outcome

from yt8m_tf import files
from yt8m_tf.bin.launch import launch
from yt8m_tf.config import checks
from yt8m_tf.errors import InputError

_OUTPUT = flags.DEFINE_string("output", "mutants.json", "JSON file of the results, which a repeated run continues.")
_MATCH = flags.DEFINE_string("match", "", "A regular expression: only mutants whose name matches.")
_RESTART = flags.DEFINE_bool("restart", False, "Run mutants again that have results.")
_SURVIVORS = flags.DEFINE_enum(
    "survivors", "whole", ["whole", "none"], "More tests for survivors: the whole fast set, or none."
)
_CHECK = flags.DEFINE_bool("check", False, "Run the whole fast set without mutants first: it must pass.")
_JOBS = flags.DEFINE_integer("jobs", 2, "Mutants at a time, each in a copy of the checkout.", lower_bound=1)
_ROOT = flags.DEFINE_string("root", str(Path(__file__).resolve().parents[1]), "The checkout to break.")
_PYTHON = flags.DEFINE_string("python", sys.executable, "The interpreter that runs the tests, with pytest-xdist.")
_MINUTES = flags.DEFINE_float("minutes", 6.0, "Time limit of covering tests; a mutant not caught by then survives.")
_HANG_MINUTES = flags.DEFINE_float("hang_minutes", 5.0, "A mutant counts as caught if no test ends for this long.")


def main(_: Sequence[str]) -> None:
    wanted = checks.regular_expression("match", _MATCH.value)
    mutants = [mutant for mutant in lists.load() if wanted.search(mutant.name)]
    if not mutants:
        raise InputError(f"--match={_MATCH.value}: matches no mutant of {lists.LIST.name}")
    root = Path(_ROOT.value).expanduser().resolve()
    if not (root / lists.PACKAGE).is_dir():
        raise InputError(f"--root={root}: contains no {lists.PACKAGE}/; name a checkout")
    results = _Results(files.local_path(_OUTPUT.value, "--output"), mutants, _RESTART.value)
    with tempfile.TemporaryDirectory(prefix="yt8m_mutate_") as folder:
        copies = [_Copy(root, Path(folder, str(number))) for number in range(_JOBS.value)]
        if _CHECK.value and (outcome := copies[0].run([])).result != "survived":
            raise InputError(f"--check: tests fail without any mutant: {', '.join(outcome.by)}; fix them first")
        _run_covering(copies, [mutant for mutant in mutants if not results.known(mutant)], results)
        survivors = [mutant for mutant in mutants if results.is_undecided(mutant)]
        if survivors and _SURVIVORS.value == "whole":
            print(f"the whole fast set, with {len(survivors)} survivors at once", flush=True)
            caught = _attribute(copies[0], survivors)
            for mutant in survivors:
                results.add(mutant, caught.get(mutant.name, Outcome("survived")), whole=True)
    print("\n" + lists.table(mutants, results.found))
    if wrong := [mutant.name for mutant in mutants if results.found[mutant.name]["result"] == "error"]:
        raise InputError(f"{len(wrong)} mutants could not be tried: {', '.join(wrong)}; the table says why")


class _Copy:
    """A copy of a checkout in which tests run; the checkout itself is not changed.

    Args:
      root: the checkout; all files that git does not ignore are copied in their present state.
      folder: the directory of the copy; it must not exist.
    """

    def __init__(self, root: Path, folder: Path):
        self.root, self._log = folder / "checkout", folder / "log"
        self._python = os.path.abspath(os.path.expanduser(_PYTHON.value))  # keeps links, which virtual environments use
        (folder / "tmp").mkdir(parents=True)
        shared = root.parent / "shared"
        if shared.is_dir():  # tests look next to the checkout for real records
            (folder / "shared").symlink_to(shared)
        listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(listed, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"--root={root}: {' '.join(done.stderr.split())}")
        for name in done.stdout.split("\0"):
            if name and (root / name).is_file() and Path(name).name != lists.OWN_TEST:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.root / name)
        defaults = {"TF_NUM_INTRAOP_THREADS": str(max(1, (os.cpu_count() or 1) // _JOBS.value))}
        if (shared / "data").is_dir():
            defaults["YT8M_DATA_DIR"] = str(shared / "data")
        self._environment = {
            **defaults,
            **os.environ,
            "PYTHONPATH": str(self.root),  # precedes the installed package, even in processes that tests start
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",  # a log that does not grow means a hang
            "TMPDIR": str(folder / "tmp"),
        }
        command = [self._python, "-c", f"import {lists.PACKAGE}; print({lists.PACKAGE}.__file__)"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=self._environment)
        if not done.stdout.startswith(str(self.root)):
            found = done.stdout.strip() or done.stderr.strip()[-200:]
            raise InputError(f"--python={_PYTHON.value}: does not import {lists.PACKAGE} of the copy ({found})")

    def run(self, files: Sequence[str], mutants: Sequence[Mutant] = (), minutes: float | None = None) -> Outcome:
        """Runs test files in one process; without files, the whole fast set.

        With a time limit, it stops at the first test that fails.
        """
        alone = files or _JOBS.value == 1
        command = [self._python, "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
        command += ["-n", "0"] if alone else ["-n", str(_JOBS.value), "--dist", "loadfile"]
        command += [*(["-x"] if minutes else []), "-m", "not slow", *files]
        start = time.monotonic()
        with self._mutated(mutants), self._log.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.root, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                while process.poll() is None:
                    time.sleep(0.5)
                    if time.time() - self._log.stat().st_mtime > 60 * _HANG_MINUTES.value:
                        return Outcome("caught", ("timeout",))
                    if minutes and time.monotonic() - start > 60 * minutes:
                        return Outcome("survived", ("not all tests in time",))
            finally:
                with contextlib.suppress(ProcessLookupError):  # kills processes of the tests, too
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return lists.read_outcome(process.returncode, self._log.read_text(errors="replace"))

    @contextlib.contextmanager
    def _mutated(self, mutants: Sequence[Mutant]) -> Iterator[None]:
        originals: dict[Path, str] = {}
        try:
            for mutant in mutants:
                path = self.root / lists.find(self.root, mutant.snippet)
                text = path.read_text(encoding="utf-8")
                originals.setdefault(path, text)
                path.write_text(text.replace(mutant.snippet, mutant.replacement), encoding="utf-8")
            yield
        finally:
            for path, text in originals.items():
                path.write_text(text, encoding="utf-8")


def _run_covering(copies: Sequence[_Copy], mutants: Sequence[Mutant], results: _Results) -> None:
    """Runs each mutant with the tests that cover it, in parallel in the copies."""
    free: queue.SimpleQueue[_Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)
    begin = time.monotonic()

    def try_one(mutant: Mutant) -> None:
        copy, start, file = free.get(), time.monotonic(), ""
        try:
            file = str(lists.find(copy.root, mutant.snippet))
            tests = lists.covering_tests(copy.root, Path(file))
            outcome = copy.run(tests, [mutant], _MINUTES.value)
            if outcome.result == "caught" and not outcome.files():  # a hang or a crash, which a real fault repeats
                outcome = copy.run(tests, [mutant], _MINUTES.value)
        except InputError as error:
            outcome = Outcome("error", (str(error),))
        finally:
            free.put(copy)
        ended, now = results.add(mutant, outcome, file=file, whole=False), time.monotonic()
        left = (now - begin) / ended * (len(mutants) - ended) / 60
        by = f" ({', '.join(outcome.files() or outcome.by)})" if outcome.by else ""
        line = f"[{ended}/{len(mutants)}] {mutant.name}: {outcome.result}{by}, {now - start:.0f} s; {left:.0f} min left"
        print(line, flush=True)

    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        futures = [pool.submit(try_one, mutant) for mutant in mutants]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # running mutants are completed, and their results kept
            raise


def _attribute(copy: _Copy, survivors: Sequence[Mutant]) -> dict[str, Outcome]:
    """Runs the whole fast set on the survivors, and returns the outcomes of those that are caught, by name."""
    found: dict[str, Outcome] = {}
    while rest := [mutant for mutant in survivors if mutant.name not in found]:
        outcome = copy.run([], rest)
        if outcome.result == "error":
            raise InputError(f"the whole fast set cannot run: {outcome.by[0]}")
        # Only tests that failed can catch one of them. The other mutants run again, as a fault may hide others.
        caught = _by_halves(copy, rest, outcome.files()) if outcome.result == "caught" else {}
        if outcome.result == "caught" and not caught:
            print(f"failed with all survivors, but with no single one of them: {', '.join(outcome.by)}", flush=True)
        if not caught:
            break
        found |= caught
    return found


def _by_halves(copy: _Copy, mutants: Sequence[Mutant], files: Sequence[str]) -> dict[str, Outcome]:
    outcome = copy.run(files, mutants)
    if outcome.result != "caught":
        return {}
    if len(mutants) == 1:
        print(f"{mutants[0].name}: caught ({', '.join(outcome.files() or outcome.by)})", flush=True)
        return {mutants[0].name: outcome}
    middle = len(mutants) // 2
    return _by_halves(copy, mutants[:middle], files) | _by_halves(copy, mutants[middle:], files)


class _Results:
    """The results by name of the mutant, in a JSON file that is rewritten with each new result."""

    def __init__(self, path: Path, mutants: Sequence[Mutant], restart: bool):
        self._path, self._lock, self._num_added = path, threading.Lock(), 0
        self.found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        for mutant in mutants:
            before = self.found.get(mutant.name, {})
            if restart or any(before.get(key) != getattr(mutant, key) for key in ("snippet", "replacement")):
                self.found.pop(mutant.name, None)

    def known(self, mutant: Mutant) -> bool:
        return self.found.get(mutant.name, {}).get("result") in ("caught", "survived")

    def is_undecided(self, mutant: Mutant) -> bool:
        """Returns whether a mutant survived, but the whole set has not run on it yet."""
        return self.found[mutant.name]["result"] == "survived" and not self.found[mutant.name]["whole"]

    def add(self, mutant: Mutant, outcome: Outcome, **more: Any) -> int:
        """Stores a result with additional values `more`, and returns the number of results stored so far."""
        with self._lock:
            before = self.found.get(mutant.name, {})
            self.found[mutant.name] = {**before, **dataclasses.asdict(mutant), **dataclasses.asdict(outcome), **more}
            files.write_json(self._path, self.found)
            self._num_added += 1
            return self._num_added


if __name__ == "__main__":
    launch(main)
