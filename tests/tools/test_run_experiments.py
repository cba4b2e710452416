"""A few tiny training runs through the tool; a run with a result is skipped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_experiments
import yaml

ROOT = Path(__file__).resolve().parents[2]


def run(config, data_dir, tmp_path, *flags):
    command = [
        *(sys.executable, str(ROOT / "tools" / "run_experiments.py"), f"--config={config}", f"--data_dir={data_dir}"),
        *(f"--workdir={tmp_path / 'runs'}", f"--output={tmp_path / 'results'}", *flags),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_results_are_kept_and_not_made_again(learnable_shards, tmp_path):
    data_dir = learnable_shards()
    experiment = {
        "model": {"name": "logistic"},
        "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10},
        "optimizer": {"learning_rate": 0.01},
        "train": {"batch_size": 32, "steps_per_epoch": 20, "epochs": 2},
    }
    config = tmp_path / "several.yaml"
    config.write_text(yaml.safe_dump({"configurations": {"first": experiment, "other": experiment | {"model": "?"}}}))
    done = run(config, data_dir, tmp_path, "--match=first", "--seeds=2", "--jobs=2")
    assert done.returncode == 0, done.stderr
    second = json.loads((tmp_path / "results" / "first_seed_1.json").read_text())
    assert second["seed"] == 1 and f"{second['gap_at_20']:.4f}" in done.stdout.splitlines()[-1]
    result = json.loads((tmp_path / "results" / "first.json").read_text())
    assert (result["model"], result["step"] in (20, 40), result["num_videos"]) == ("logistic", True, 128)
    assert result["gap_at_20"] == max(entry["gap_at_20"] for entry in result["history"])
    assert [entry["step"] for entry in result["history"]] == [20, 40] and result["peak_memory_gb"] > 0.1
    assert len(list((tmp_path / "runs").rglob("events.out.tfevents.*.columns.session"))) == 1  # of the HParams tab
    # Now with another run, which cannot be trained: the first run is kept, and not trained again.
    failed = run(config, data_dir, tmp_path)
    assert failed.returncode == 1 and "1 of 2 runs are done already" in failed.stdout
    assert "other: training ended with status 1: " in failed.stderr.splitlines()[-1]
    assert "'?' is not a mapping" in failed.stderr.splitlines()[-1]
    assert "finished at step 40" in (tmp_path / "runs" / "first_seed_1.log").read_text()
    assert [path.name for path in (tmp_path / "results").glob("[!f]*")] == []
    wrong = run(config, data_dir, tmp_path, "--match=[")
    assert wrong.returncode == 1 and "--match=[: not a regular expression" in wrong.stderr.splitlines()[-1]


def test_table_is_sorted_by_score():
    result = {
        "model": "moe",
        "hit_at_1": 0.5,
        "map": 0.2,
        "bce": 0.002,
        "perr": 0.4,
        "minutes": 1.25,
        "peak_memory_gb": 2.0,
    }
    result["history"] = [{"bce": 0.004}, {"bce": 0.001}]
    lines = run_experiments.table(
        {
            "low": [result | {"gap_at_20": 0.5}],
            "high": [result | {"gap_at_20": 0.59, "map": 0.1}, result | {"gap_at_20": 0.61}],
        }
    ).splitlines()
    assert lines[2].startswith("| `high` | `moe` | 0.6000 (0.5900 to 0.6100) | 0.5000 | 0.1500 | 0.004000, 0.001000 |")
    assert lines[3].startswith("| `low` |") and len(lines) == 4
