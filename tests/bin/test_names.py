"""From a run to the class names of each video, with the commands."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from commands import run_command

_OLD = Path(__file__).resolve().parents[1] / "old_runs" / "video"


@pytest.mark.slow
def test_from_a_run_to_names(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(_OLD / "data", data)
    names = ["Game", "Food", "Car", "Guitar", "Dance", "Animal"]
    (data / "vocabulary.csv").write_text("Index,Name\n" + "".join(f"{c},{name}\n" for c, name in enumerate(names)))
    model, shards = f"--saved_model={tmp_path / 'm'}", f"--input={data / 'validate0000.tfrecord'}"

    done = run_command(
        *("export", f"--workdir={_OLD / 'run'}", f"--data_dir={data}", f"--output={tmp_path / 'm'}"),
        *("--checkpoint=last", "--measure_examples=50", "--tolerance=1"),
    )
    assert done.returncode == 0 and "without names" not in done.stdout, done.stderr
    assert f"--input='{data}/validate*.tfrecord'" in done.stdout.splitlines()[-1]  # there are no test shards
    assert (tmp_path / "m" / "assets" / "vocabulary.csv").is_file()

    # The run's own vocabulary is below --data_dir; an unwritable output is reported before videos are scored.
    (tmp_path / "file").touch()
    evaluate = (
        "evaluate",
        f"--workdir={_OLD / 'run'}",
        f"--data_dir={data}",
        f"--output={tmp_path / 'run'}",
        "--noxla",
    )
    refused = run_command(*evaluate, f"--thresholds={tmp_path / 'file' / 'x.csv'}")
    assert refused.returncode == 1 and "x.csv: cannot be written (" in refused.stderr
    assert not (tmp_path / "run").exists()
    assert run_command(*evaluate).returncode == 0
    with open(tmp_path / "run" / "classes.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names

    thresholds = tmp_path / "thresholds.csv"
    done = run_command(
        *("evaluate", model, shards, f"--output={tmp_path / 'evaluation'}"),
        *(f"--thresholds={thresholds}", "--min_positives=3"),
    )
    assert done.returncode == 0 and f"thresholds: {thresholds} (" in done.stdout, done.stderr
    with open(thresholds, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    predicted = {row["name"]: int(row["predicted"]) for row in rows}
    assert sum(predicted.values()) > 0

    done = run_command(
        *("infer", model, shards, f"--output={tmp_path / 'labels.txt'}"),
        *("--format=names", f"--threshold={thresholds}"),
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ") for line in (tmp_path / "labels.txt").read_text().splitlines()]
    found = [pair.rsplit(" ", 1)[0] for _, *pairs in lines for pair in ", ".join(pairs).split(", ") if pair]
    assert {name: found.count(name) for name in names} == predicted

    done = run_command("infer", model, shards, f"--output={tmp_path / 'x'}", f"--threshold={tmp_path / 'none.csv'}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "none.csv: cannot be read" in done.stderr


def test_what_a_command_reads_is_not_written(tmp_path: Path) -> None:
    """These are refused before anything is read, so the inputs need no contents."""
    model, shard, archive, table = (tmp_path / name for name in ("m", "a.tfrecord", "b.tgz", "t.csv"))
    (model / "assets").mkdir(parents=True)
    graph, metadata = model / "saved_model.pb", model / "assets" / "metadata.json"
    for path in (graph, metadata, shard, archive, table):
        path.touch()
    of_model, source = f"--saved_model={model}", f"--input={shard}"
    infer, evaluate = ("infer", source), ("evaluate", source, of_model, f"--output={tmp_path / 'e'}")
    for command, output in (
        ((*infer, f"--bundle={archive}"), f"--output={archive}"),
        ((*infer, of_model), f"--output={graph}"),
        ((*infer, of_model), f"--output={metadata}"),
        ((*infer, of_model, f"--vocabulary={table}"), f"--output={table}"),
        ((*infer, of_model, f"--threshold={table}"), f"--output={table}"),
        ((*infer, of_model, "--segments=5", f"--classes={table}"), f"--output={table}"),
        ((*evaluate, f"--vocabulary={table}"), f"--thresholds={table}"),
    ):
        refused = run_command(*command, output)
        assert refused.returncode == 1, output
        assert refused.stderr.endswith(f"error: {output}: would write over '{output.split('=')[1]}', which is to be"
                                       " read; choose another place\n")  # fmt: skip
    for path in (shard, tmp_path / "run" / "config.yaml"):
        refused = run_command(*evaluate, f"--thresholds={path}")
        assert refused.stderr.endswith("not the name of a table; give one that ends in .csv\n")
    assert not (tmp_path / "e").exists()
