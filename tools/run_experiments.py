"""Trains the configurations of one file, one after the other, and keeps what came out of each as a small JSON file.

A run whose JSON file is there is skipped, one that was interrupted goes on where it was, so that the whole can be done
in pieces. Ends with a table of all results that are there.

  python tools/run_experiments.py --config=experiments/first_level_real.yaml --data_dir=DATA/yt8m_2018 \\
      --workdir=runs/first_level_real --output=docs/results/first_level_real
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from yt8m_tf import config, run_dir
from yt8m_tf.bin.launch import launch
from yt8m_tf.errors import InputError

_CONFIG = flags.DEFINE_string("config", None, "YAML file of several configurations.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "What the patterns of shards are relative to.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run directories go, one for each name.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory of the JSON files, NAME.json.", required=True)
_MATCH = flags.DEFINE_string("match", "", "Only configurations whose name this regular expression finds.")

_METRICS = ("gap_at_20", "hit_at_1", "perr", "map", "bce")


def main(_: Sequence[str]) -> None:
    names = [name for name in config.configuration_names(_CONFIG.value) if re.search(_MATCH.value, name)]
    if not names:
        raise InputError(f"--match={_MATCH.value}: finds no configuration of {_CONFIG.value}")
    output, workdir = Path(_OUTPUT.value).expanduser(), Path(_WORKDIR.value).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        path = output / f"{name}.json"
        if path.exists():
            print(f"== {number} of {len(names)}: {name} is done ({path})", flush=True)
            continue
        print(f"== {number} of {len(names)}: {name}", flush=True)
        result = _train(f"{_CONFIG.value}:{name}", workdir / name)
        with run_dir.whole_file(path) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("\n" + table({name: json.loads((output / f"{name}.json").read_text()) for name in names}))


def _train(selector: str, workdir: Path) -> dict[str, Any]:
    """Runs yt8m-train in a process of its own, and says how it ended."""
    flags_ = [f"--config={selector}", f"--data_dir={_DATA_DIR.value}", f"--workdir={workdir}"]
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "yt8m_tf.bin.train", *flags_])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise InputError(f"{selector}: training ended with status {os.waitstatus_to_exitcode(status)}; see above")
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


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as a Markdown table, best first."""
    lines = [
        "| configuration | model | GAP@20 | Hit@1 | mAP | BCE, first and last evaluation | minutes | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in sorted(results.items(), key=lambda item: -item[1]["gap_at_20"]):
        lines.append(
            f"| `{name}` | `{result['model']}` | {result['gap_at_20']:.4f} | {result['hit_at_1']:.4f} |"
            f" {result['map']:.4f} | {result['history'][0]['bce']:.6f}, {result['history'][-1]['bce']:.6f} |"
            f" {result['minutes']:.1f} | {result['peak_memory_gb']:.1f} GB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    launch(main)
