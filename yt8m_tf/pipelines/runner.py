"""Runs the stages of a pipeline in parallel, one per worker; finished stages are skipped."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from yt8m_tf import files, locks
from yt8m_tf.console import tables
from yt8m_tf.errors import InputError
from yt8m_tf.pipelines.screen import Screen, WriteLine
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.state import States
from yt8m_tf.pipelines.workers import Submit
from yt8m_tf.sample_data.output import SUMMARY
from yt8m_tf.stacking.settings import OUT_OF_FOLD

# Interval between checks of the running stages.
_SECONDS = 1.0


@contextlib.contextmanager
def only_run(workdir: Path) -> Iterator[None]:
    """Makes sure that no other process runs a pipeline in the same directory.

    Raises:
      InputError: one does, or the directory cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            (workdir / "stages").mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.exclusive(workdir, "--workdir", "runs a pipeline"))
        except OSError as error:  # only of these two calls: errors of the pipeline itself have other causes
            raise InputError(
                f"--workdir={workdir}: cannot be written ({error.strerror}); name another directory"
            ) from error
        yield


def run(
    stages: Sequence[Stage],
    states: States,
    submit: Submit,
    jobs: int,
    restart: Sequence[str] = (),
    write_line: WriteLine | None = None,
) -> dict[str, Any]:
    """Runs all stages that are not done.

    Args:
      stages: each after those that it needs.
      states: states of the stages; a stage begins when all of its inputs are done.
      submit: gives a stage to a worker.
      jobs: the most stages that run at a time.
      restart: names of stages that may start over if their inputs or configuration have changed (`States.check`).
      write_line: receives a line for each stage that ends; None: lines go to standard output.

    Returns:
      The result of each stage by name.

    Raises:
      InputError: a stage failed; stages that were running are completed first, and recorded. Or a changed stage is not
        in `restart`; then nothing has run.
    """
    states.check(restart)
    results = {stage.name: states.result(stage.name) for stage in stages if states.of(stage.name) == "done"}
    waiting = [stage for stage in stages if stage.name not in results]
    running: dict[Any, tuple[Stage, float]] = {}
    failure: tuple[Stage, Exception] | None = None
    with Screen(states.workdir, len(stages), len(results), write_line) as screen:
        if results:
            screen.line(f"{len(results)} of {len(stages)} stages are done already")
        while running or (waiting and failure is None):
            for stage in [stage for stage in waiting if all(name in results for name in stage.inputs)]:
                if len(running) == jobs or failure is not None:
                    break
                waiting.remove(stage)
                if moved := states.begin(stage.name):
                    screen.line(f"{stage.name}: moved its earlier output to {moved}")
                running[submit(stage)] = stage, time.monotonic()
            for future in _first(running, screen):
                stage, _ = running.pop(future)
                try:
                    results[stage.name] = future.result()
                except Exception as error:
                    failure = failure or (stage, error)
                    continue
                states.finish(stage.name, results[stage.name])
                screen.ended(stage, results[stage.name])
    if failure is not None:
        raise _failed(*failure, states.workdir) from failure[1]
    return {stage.name: results[stage.name] for stage in stages}


def _failed(stage: Stage, cause: Exception, workdir: Path) -> InputError:
    what = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(cause, BrokenProcessPool):
        what = "its process was killed, perhaps because memory ran out (if so, lower --jobs)"
    log = workdir / stage.log
    details = f"; its log is {log}" if log.is_file() else ""
    return InputError(f"stage '{stage.name}': {what}{details}; run the same command again to continue from there")


def _first(running: Mapping[Any, tuple[Stage, float]], screen: Screen) -> list[Any]:
    """Waits until a stage ends, and returns all futures that have ended, of a pool or of Dask."""
    while True:
        done = [future for future in running if future.done()]
        if done:
            return done
        screen.under_way(running.values())
        futures = [future for future in running if isinstance(future, concurrent.futures.Future)]
        if futures:
            concurrent.futures.wait(futures, timeout=_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED)
        else:
            time.sleep(0.1)


def write_hparams(workdir: Path) -> None:
    """Writes the columns of TensorBoard's HParams tab for the existing runs."""
    from yt8m_tf.training import hparams

    with contextlib.suppress(InputError):  # no run yet; or the disk is full, which the stages report
        hparams.write_columns(workdir / "runs")


def reachable_gap(data_dir: str) -> float | None:
    """Returns the GAP@20 that no model can exceed on the validation shards; None unless it is generated sample data."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # other data, such as extracted clips, lacks it
        facts = json.loads(Path(data_dir, SUMMARY).read_text(encoding="utf-8"))
        return float(facts["best_reachable_gap"]["validate"]["video"])
    return None


def write_results(
    results: dict[str, Any], workdir: Path, limit: float | None = None, made: Sequence[Mapping[str, str]] = ()
) -> str:
    """Writes the results of all stages.

    `results.json` has the result of every stage, and where each choice was made (`choices.choices`). `results.txt` has
    the table of `summary`, which is returned.
    """
    table = summary(results, workdir, limit)
    files.write_json(workdir / "results.json", {"stages": results, "reachable_gap_at_20": limit, "choices": list(made)})
    with files.whole_file(workdir / "results.txt") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    return table


def summary(results: dict[str, Any], workdir: Path, limit: float | None = None) -> str:
    """Returns a table of GAP@20 of all models in the order of the stages, MAP of rated segments, and the directory.

    `limit` is the GAP@20 of the best possible model on the validation shards, if known.
    """
    gaps = results["stack"]["gaps"] if "stack" in results else {"validation": {}}
    splits = list(gaps)
    rows = [["GAP@20", *("out of fold" if split == OUT_OF_FOLD else split for split in splits)]]
    rows += [[name, *(f"{gaps[split][name]:.5f}" for split in splits)] for name in gaps[splits[0]]]
    maps = [["MAP of rated segments", ""]]
    for name, result in results.items():  # in the order of the stages
        kind, _, what = name.partition(" ")
        if kind in ("evaluate", "export") and "gap_at_20" in result:
            cells = [f"{result['gap_at_20']:.5f}" if split == "validation" else "" for split in splits]
            rows.append([what if kind == "evaluate" else f"{what}, exported ({result['bytes'] / 1e6:,.1f} MB)", *cells])
        elif kind in ("evaluate", "infer_segments") and "map" in result:
            maps.append([what if kind == "evaluate" else f"mean, {what}", f"{result['map']:.5f}"])
    if limit is not None:
        rows.append(["reachable", *(f"{limit:.5f}" if split == "validation" else "" for split in splits)])
    shown = [tables.aligned(table, num_left=1) for table in (rows, maps) if len(table) > 1]
    return "\n\n".join(shown) + f"\nwritten: {workdir}"
