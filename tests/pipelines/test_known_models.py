"""The table of the models of the shipped pipelines, and plans that need no framework because of it."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command

from yt8m_tf.config import configurations
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.pipelines import forward_costs, known_models

_AGAIN = f"write the table again: yt8m-models --costs=configs/{known_models.TABLE}"


def _known_models() -> str:
    return configurations.shipped_file(known_models.TABLE).read_text()


def test_the_table_of_known_models_has_those_of_all_pipelines(rng: np.random.Generator) -> None:
    shipped = forward_costs.shipped_models()
    assert len(shipped) > 100
    rows = [(row["key"], row["given"], row["options"]) for row in csv.DictReader(io.StringIO(_known_models()))]
    expected = [(known_models.key_of(own.experiment), own.given, json.dumps(own.experiment.model)) for own in shipped]
    assert rows == expected, _AGAIN
    some = [shipped[i] for i in rng.choice(len(shipped), 2, replace=False)]
    some += rng.choice([own for own in shipped if own.shares_weights], 1).tolist()
    assert set(forward_costs.table_of(some).splitlines()) <= set(_known_models().splitlines()), _AGAIN
    for _, given, options in rows:  # what is looked up is what the registry makes of it
        for model in map(json.loads, (given, options)):
            assert known_models.parse_experiment({"model": model}) == parse_experiment({"model": model})


@pytest.mark.slow
def test_every_row_of_the_table_of_known_models() -> None:
    assert forward_costs.table_of(forward_costs.shipped_models()) == _known_models(), _AGAIN


@pytest.mark.parametrize("odd", [{"num_mixtures": True}, {"num_mixtures": 2.0}, {None: 1}, {"l2": datetime.date.max}])
def test_a_model_that_is_not_in_the_table_is_as_the_registry_says(odd: dict[Any, Any]) -> None:
    def told(parse: Any) -> Any:
        try:
            return parse({"model": {"name": "moe", **odd}}).model
        except InputError as error:
            return str(error)

    assert told(known_models.parse_experiment) == told(parse_experiment)


def test_a_plan_of_a_model_with_an_unknown_option_is_refused(tmp_path: Path) -> None:
    odd = "--set=models.moe.changes.model={num_expert: 3}"
    result = run_command("pipeline", "--config=pipelines/demo.yaml", f"--workdir={tmp_path}", "--plan", odd)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "yt8m-pipeline: error: first_level/moe.yaml, as the pipeline changes it: unknown key 'model.num_expert';"
        " did you mean 'model.num_mixtures'?\n"
    )


def test_plans_of_the_shipped_pipelines_import_no_framework(tmp_path: Path) -> None:
    names = [name for name in configurations.shipped_selectors() if name.startswith("pipelines/")]
    data = tmp_path / "noise_00"  # label_noise reads `../noise_00`
    shards = [f"{level}/{split}0000" for level in ("video", "frame") for split in ("train", "validate", "test")]
    for shard in (*shards, *(f"validate/validate{number}" for number in ("0000", "0100", "0130"))):
        (data / shard).parent.mkdir(parents=True, exist_ok=True)
        (data / f"{shard}.tfrecord").touch()
    code = (
        "import json, sys\n"
        "from commands import run_command\n"
        "data, workdir, *names = sys.argv[1:]\n"
        "flags = ['--plan', f'--data_dir={data}', f'--workdir={workdir}']\n"
        "told = [run_command('pipeline', f'--config={name}', *flags) for name in names]\n"
        "imported = {'tensorflow', 'keras', 'lightgbm'} & set(sys.modules)\n"
        "print(json.dumps([sorted(imported), [[own.stderr, own.stdout[:5]] for own in told]]))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "helpers")}
    arguments = [sys.executable, "-c", code, str(data), str(tmp_path / "run"), *names]
    imported, told = json.loads(subprocess.run(arguments, capture_output=True, check=True, env=environment).stdout)
    assert imported == [] and told == [["", "stage"]] * len(names)
