"""A report's description of how a run was made, from the run's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from report_world import write_run

from yt8m_tf import run_dir
from yt8m_tf.report.origin import origin
from yt8m_tf.report.parts import Table
from yt8m_tf.report.sources import read_workdir
from yt8m_tf.report.workdir import HARD, STUDENT


@pytest.mark.parametrize(
    ("labels", "kind", "told"),
    [
        ({}, HARD, "from the records"),
        ({"soft": "stacked/train"}, STUDENT, "scores in stacked/train, weight 0.5; the rest from the records"),
        ({"teacher": "runs/moe"}, STUDENT, "scores of runs/moe, weight 0.5; the rest from the records"),
        (
            {"teacher_folds": "runs/moe/fold_*"},
            STUDENT,
            "scores of runs/moe/fold_*, weight 0.5; the rest from the records",
        ),
    ],
)
def test_a_model_with_soft_labels_or_a_teacher_is_a_student(
    labels: dict[str, str], kind: str, told: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "one", [0.5])
    config = tmp_path / "one" / run_dir.CONFIG
    values = yaml.safe_load(config.read_text()) | {"labels": labels | {"weight": 0.5}}
    config.write_text(yaml.safe_dump(values))
    workdir = read_workdir(tmp_path / "one")
    assert workdir.kind("one") == kind
    facts = origin(workdir, "one").parts[0]
    assert isinstance(facts, Table) and ["labels", told] in facts.rows
