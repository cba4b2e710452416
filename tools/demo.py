"""Runs the whole solution in minutes: sample data, models of both levels, folds, LightGBM, students, final network.

Shows each command before it runs, and prints GAP@20 of every stage at the end. It needs no data. In the directory of an
earlier demo, it starts over.

  python tools/demo.py --output_dir=demo_output
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin.launch import launch
from yt8m_tf.errors import InputError

_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo_output", "Directory for all outputs; emptied first.")


def main(_: Sequence[str]) -> None:
    from yt8m_tf.evaluation.submissions import read_csv_labels, submission_gap

    output = Path(_OUTPUT_DIR.value)
    if output.exists() and not (output / "data" / "sample_data.json").exists() and any(output.iterdir()):
        raise InputError(f"--output_dir={output}: contains other files; name a new directory, or an earlier demo's")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    start = time.monotonic()
    data = output / "data"
    _run("sample data", ["yt8m-sample-data", f"--output_dir={data}"])
    run = output / "run"
    _run(
        "the pipeline",
        ["yt8m-pipeline", "--config=configs/pipelines/demo.yaml", f"--data_dir={data}", f"--workdir={run}"],
    )
    labels = read_csv_labels(data / "test_labels.csv")
    test, _ = submission_gap(run / "submission.csv", labels)
    print(f"\n== done in {(time.monotonic() - start) / 60:.1f} minutes")
    print(f"GAP@20 of {run / 'submission.csv'} on the test videos: {test:.5f}")
    print("'reachable' is GAP@20 of the generator's own posterior: no model can do better.")
    report = [f"--workdir={run}", f"--data_dir={data}", f"--output={output / 'report.html'}"]
    print("next:")
    if (activate := Path(sys.executable).with_name("activate")).is_file():
        print(f"  source {shlex.quote(os.path.relpath(activate))}")
    print(f"  {shlex.join(['yt8m-report', *report])}")
    print(f"  tensorboard --logdir={shlex.quote(str(run / 'runs'))}")
    print(f"  {run / 'stacked' / 'report.md'}: models, means, LightGBM")
    print("  README.md, 'One training on real records': the same commands on the dataset")


def _run(title: str, command: list[str]) -> None:
    """Runs a command and shows its output, except its "next:" line, because the demo ends with its own."""
    print(f"\n== {title}\n$ {shlex.join(command)}", flush=True)
    script = Path(sys.executable).parent / command[0]
    command = [str(script), *command[1:]] if script.exists() else command
    erase = "\r\x1b[K" if sys.stderr.isatty() else ""  # erases the command's bar, which it redraws below the line
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            if not line.startswith("next: "):
                print(erase + line, end="", flush=True)
    if process.returncode:
        raise InputError(f"'{title}' ended with status {process.returncode}; its message is above")


if __name__ == "__main__":
    launch(main)
