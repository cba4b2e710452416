"""Trains the configurations of one file, and writes the results of each as a small JSON file.

Runs with a JSON file are skipped, and interrupted ones are continued, so the work can be done in parts. Ends with a
table of all existing results; with several seeds, of the means over seeds. The output of yt8m-train is in
WORKDIR/NAME.log.

  python tools/run_experiments.py --config=experiments/sweep_real.yaml --seeds=3 --jobs=2 --data_dir=DATA/yt8m_2018 \\
      --workdir=runs/sweep_real --output=docs/results/sweep_real
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from yt8m_tf import files, run_dir
from yt8m_tf.bin.launch import launch
from yt8m_tf.config import checks, configurations
from yt8m_tf.console.progress import Progress
from yt8m_tf.errors import InputError

_CONFIG = flags.DEFINE_string("config", None, "YAML file of several configurations.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "Directory to which patterns of shards are relative.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for run directories, and a log of each.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory of the JSON files, NAME.json.", required=True)
_MATCH = flags.DEFINE_string("match", "", "A regular expression: only configurations whose name matches.")

_SET = flags.DEFINE_multi_string("set", [], "Override of a key for all runs, such as train.epochs=2; repeatable.")
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "Number of seeds for each configuration: its own, then 1, 2, ... (NAME_seed_1).", lower_bound=1
)

_JOBS = flags.DEFINE_integer("jobs", 1, "Trainings at once, which share the processor's cores.", lower_bound=1)

_METRICS = ("gap_at_20", "hit_at_1", "perr", "map", "bce")


def main(_: Sequence[str]) -> None:
    wanted = checks.regular_expression("match", _MATCH.value)
    names = [name for name in configurations.configuration_names(_CONFIG.value) if wanted.search(name)]
    if not names:
        raise InputError(f"--match={_MATCH.value}: matches no configuration of {_CONFIG.value}")
    from yt8m_tf.training.hparams import write_columns

    output, workdir = (files.local_path(flag.value, f"--{flag.name}") for flag in (_OUTPUT, _WORKDIR))
    output.mkdir(parents=True, exist_ok=True)
    workdir.mkdir(parents=True, exist_ok=True)
    # The first seed of all configurations comes first, for early results of each.
    runs = [(name, seed) for seed in range(_SEEDS.value) for name in names]
    missing = [run for run in runs if not (output / f"{_name(*run)}.json").exists()]
    if len(missing) < len(runs):
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are done already ({output})", flush=True)
    with (
        concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool,
        Progress(total=len(missing), desc="runs", unit="run", dynamic_ncols=True) as bar,
    ):
        futures = [pool.submit(_run, configuration, seed, workdir, output) for configuration, seed in missing]
        try:
            for future in concurrent.futures.as_completed(futures):
                name, result = future.result()
                bar.write(f"{name}: GAP@20 {result['gap_at_20']:.4f}, {result['minutes']:.1f} minutes")
                bar.update()
                write_columns(workdir)  # of TensorBoard's HParams tab
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # current runs are completed, and their results kept
            raise
    print("\n" + table({name: [_read(output, name, seed) for seed in range(_SEEDS.value)] for name in names}))


def _run(configuration: str, seed: int, workdir: Path, output: Path) -> tuple[str, dict[str, Any]]:
    name = _name(configuration, seed)
    result = _train(f"{_CONFIG.value}:{configuration}", workdir / name, seed)
    files.write_json(output / f"{name}.json", result)
    return name, result


def _name(configuration: str, seed: int) -> str:
    return f"{configuration}_seed_{seed}" if seed else configuration


def _read(output: Path, configuration: str, seed: int) -> dict[str, Any]:
    return json.loads((output / f"{_name(configuration, seed)}.json").read_text(encoding="utf-8"))


def _train(selector: str, workdir: Path, seed: int) -> dict[str, Any]:
    """Runs yt8m-train in a separate process, and returns the results of the run."""
    flags_ = [f"--config={selector}", f"--data_dir={_DATA_DIR.value}", f"--workdir={workdir}"]
    flags_ += [f"--set={override}" for override in _SET.value]
    flags_ += [f"--set=train.seed={seed}"] if seed else []
    start = time.monotonic()
    log = workdir.with_name(f"{workdir.name}.log")
    threads = str(max(1, (os.cpu_count() or 1) // _JOBS.value))
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "yt8m_tf.bin.train", *flags_],
            env={"TF_NUM_INTRAOP_THREADS": threads} | os.environ,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        lines = log.read_text(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was printed")
        raise InputError(f"{selector}: training ended with status {os.waitstatus_to_exitcode(status)}: {last} ({log})")
    history = run_dir.read_history(workdir)
    best = max(history, key=lambda entry: entry["gap_at_20"])
    experiment = run_dir.read_experiment(workdir)
    return {
        "configuration": selector,
        "model": experiment.model["name"],
        "num_videos": best["num_videos"],
        "step": best["step"],
        **{name: best[name] for name in _METRICS},
        "batch_size": experiment.train.batch_size,
        "seed": experiment.train.seed,
        "minutes": round((time.monotonic() - start) / 60, 2),
        "peak_memory_gb": round(usage.ru_maxrss / 1e6, 2),
        "history": [{name: entry[name] for name in ("step", "gap_at_20", "bce")} for entry in history],
    }


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Formats the results as a Markdown table, best first: means over seeds, and the lowest and highest GAP."""
    lines = [
        "| configuration | model | GAP@20 | Hit@1 | mAP | BCE, first and last evaluation | minutes | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = {name: {metric: _mean(runs, metric) for metric in _METRICS} for name, runs in results.items()}
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["gap_at_20"]):
        runs = results[name]
        gaps = [run["gap_at_20"] for run in runs]
        spread = f" ({min(gaps):.4f} to {max(gaps):.4f})" if len(gaps) > 1 else ""
        first, last = (statistics.fmean(run["history"][which]["bce"] for run in runs) for which in (0, -1))
        lines.append(
            f"| `{name}` | `{runs[0]['model']}` | {row['gap_at_20']:.4f}{spread} | {row['hit_at_1']:.4f} |"
            f" {row['map']:.4f} | {first:.6f}, {last:.6f} | {_mean(runs, 'minutes'):.1f} |"
            f" {max(run['peak_memory_gb'] for run in runs):.1f} GB |"
        )
    return "\n".join(lines)


def _mean(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.fmean(run[name] for run in runs)


if __name__ == "__main__":
    launch(main)
