"""GAP@20 of a submission file: by hand, from shards and CSV files, and what cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import run_command
from shards import video_record, write_shard

_ROWS = "VideoId,LabelConfidencePairs\na,1 0.9 2 0.5\nb,3 0.8 1 0.2\n"


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    path = tmp_path / "submission.csv"
    path.write_text(_ROWS)
    return path


def test_by_hand(submission: Path, tmp_path: Path) -> None:
    """Ranked: a1 (right), b3, a2, b1 (right); three labels, one of them not predicted."""
    (tmp_path / "labels.csv").write_text("id,labels\na,1\nb,1 7\n")
    write_shard(tmp_path / "one.tfrecord", [video_record(b"a", [1], rgb=np.zeros(1, np.float32))])
    write_shard(tmp_path / "two.tfrecord", [video_record(b"b", [1, 7], rgb=np.zeros(1, np.float32))])
    for labels in (tmp_path / "labels.csv", tmp_path / "*.tfrecord"):
        result = run_command("score-submission", f"--submission={submission}", f"--labels={labels}")
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"GAP@20 {(1 / 1 + 2 / 4) / 3:.6f} (2 videos, 3 labels)\n"


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (_ROWS, "id,labels\na,1\n", "video 'b' has no labels given"),
        (_ROWS, "id,labels\na,1\nb,1\nc,2\n", "lacks 1 of 3 videos, 'c' for one"),
        (_ROWS + "a,1 0.1\n", "id,labels\na,1\nb,1\n", "video 'a' stands twice"),
        (_ROWS, "id,labels\na,\nb,\n", "no video has labels"),
        (_ROWS, "id,classes\na,1\n", "lacks the columns id,labels"),
        (_ROWS, "id,labels\na,one\n", "line 2 cannot be read"),
        (_ROWS.replace("0.9", "high"), "id,labels\na,1\nb,1\n", "line 2 cannot be read"),
        (_ROWS.replace("0.9 ", ""), "id,labels\na,1\nb,1\n", "line 2 cannot be read"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, rows: str, labels: str, message: str) -> None:
    (tmp_path / "submission.csv").write_text(rows)
    (tmp_path / "labels.csv").write_text(labels)
    result = run_command(
        "score-submission", f"--submission={tmp_path / 'submission.csv'}", f"--labels={tmp_path / 'labels.csv'}"
    )
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1


def test_shards_without_labels_or_damaged_and_missing_files(submission: Path, tmp_path: Path) -> None:
    def fails(labels: str, path: Path = submission) -> str:
        result = run_command("score-submission", f"--submission={path}", f"--labels={labels}")
        assert result.returncode == 1 and result.stderr.count("\n") == 1
        return result.stderr

    shard = tmp_path / "test.tfrecord"
    write_shard(shard, [video_record(b"a", [], rgb=np.zeros(1, np.float32))])
    assert "no video has labels" in fails(str(shard))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "damaged at byte 0" in fails(str(shard))
    assert "cannot be read" in fails(f"{tmp_path}/none.csv")
