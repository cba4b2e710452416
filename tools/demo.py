"""The whole way in minutes: sample data, two models trained, evaluated, exported, and a submission file from each.

Runs the same commands that one would type, shows each before it runs, and ends with a table of what came out. Nothing
is needed beforehand. Started again in the same directory it starts afresh.

  python tools/demo.py --output_dir=demo_output
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from score_submission import read_csv_labels, submission_gap

from yt8m_tf.bin.launch import launch
from yt8m_tf.errors import InputError

_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo_output", "Where everything is written; emptied first.")

_TOOLS = Path(__file__).resolve().parent
_LEVELS = ("video", "frame")


def main(_: Sequence[str]) -> None:
    output = Path(_OUTPUT_DIR.value)
    if output.exists() and not (output / "data" / "sample_data.json").exists() and any(output.iterdir()):
        raise InputError(f"--output_dir={output} holds other files; name a directory of an earlier demo or a new one")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    start = time.monotonic()
    data = output / "data"
    _run("sample data", [sys.executable, str(_TOOLS / "make_sample_data.py"), f"--output_dir={data}"])
    for level in _LEVELS:
        run, model, submission = _paths(output, level)
        _run(
            f"train a {level}-level model",
            ["yt8m-train", f"--config=configs/demo.yaml:{level}", f"--data_dir={data}", f"--workdir={run}"],
        )
        _run(
            "evaluate it",
            ["yt8m-evaluate", f"--workdir={run}", f"--data_dir={data}", f"--vocabulary={data}/vocabulary.csv"],
        )
        _run(
            "export it",
            [
                "yt8m-export",
                f"--workdir={run}",
                f"--output={model}",
                f"--data_dir={data}",
                f"--vocabulary={data}/vocabulary.csv",
            ],
        )
        _run(
            "score the test videos",
            [
                "yt8m-infer",
                f"--saved_model={model}",
                f"--input={data}/{level}/test*.tfrecord",
                f"--output={submission}",
            ],
        )
    _summary(output, time.monotonic() - start)


def _paths(output: Path, level: str) -> tuple[Path, Path, Path]:
    return output / "runs" / level, output / "exported" / level / "1", output / f"submission_{level}.csv"


def _run(title: str, command: list[str]) -> None:
    print(f"\n== {title}\n$ {shlex.join(command)}", flush=True)
    script = Path(sys.executable).parent / command[0]
    command = [str(script), *command[1:]] if script.exists() else command
    if status := subprocess.run(command).returncode:
        raise InputError(f"'{title}' ended with status {status}; its message is above")


def _summary(output: Path, seconds: float) -> None:
    labels = read_csv_labels(output / "data" / "test_labels.csv")
    facts = json.loads((output / "data" / "sample_data.json").read_text())
    print(f"\n== done in {seconds / 60:.1f} minutes\n")
    print(f"{'model':<8}{'validation GAP@20':>19}{'test GAP@20':>13}{'reachable':>11}{'exported':>11}  files")
    for level in _LEVELS:
        run, model, submission = _paths(output, level)
        gap = json.loads((run / "evaluation" / "metrics.json").read_text())["metrics"]["gap_at_20"]
        size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
        test = submission_gap(submission, labels)
        limit = facts["best_reachable_gap"]["validate"][level]
        print(f"{level:<8}{gap:>19.4f}{test:>13.4f}{limit:>11.4f}{size / 1e6:>8.1f} MB  {run}, {model}, {submission}")
    print(
        "\n'reachable' is the GAP@20 on the validation split of the generator's own posterior: no model can do better."
    )
    print(f"next:\n  tensorboard --logdir={output / 'runs'}")
    print("  README.md, 'The same on your own download': the same commands on the real records")


if __name__ == "__main__":
    launch(main)
