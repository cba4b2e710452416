"""GAP@20 of a submission file: by hand, from shards and CSV files, and unusable files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
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
        (_ROWS, "id,labels\na,1\n", "line 3: video 'b' has no labels given"),
        (_ROWS, "id,labels\na,1\nb,1\nc,2\n", "lacks 1 of 3 videos, for example 'c'"),
        (_ROWS + "a,1 0.1\n", "id,labels\na,1\nb,1\n", "line 4 cannot be read: video 'a' is already in line 2"),
        (_ROWS, "id,labels\na,\nb,\n", "no video has labels"),
        (_ROWS, "id,classes\na,1\n", "lacks the columns id,labels"),
        (_ROWS, "id,labels\na,one\n", "line 2 cannot be read: 'one' is not a class id"),
        (_ROWS, "id,labels\na,-1\nb,1\n", "line 2 cannot be read: '-1' is not a class id"),
        (_ROWS, "id,labels\na,1\na,2\nb,1\n", "line 3 cannot be read: video 'a' is already in line 2"),
        (_ROWS.replace("VideoId", "Video"), "id,labels\na,1\nb,1\n", "lacks the columns VideoId,LabelConfidencePairs"),
        (_ROWS.replace(",", ";"), "id,labels\na,1\nb,1\n", "line 1 contains VideoId;LabelConfidencePairs"),
        ("", "id,labels\na,1\nb,1\n", "line 1 contains nothing"),
        (_ROWS.replace("0.9", "nan"), "id,labels\na,1\nb,1\n", "line 2 cannot be read: 'nan' is not a score"),
        (_ROWS.replace("0.8", "-0.8"), "id,labels\na,1\nb,1\n", "line 3 cannot be read: '-0.8' is not a score"),
        (_ROWS.replace("0.9", "1.5"), "id,labels\na,1\nb,1\n", "line 2 cannot be read: '1.5' is not a score"),
        (_ROWS.replace("2 0.5", "1 0.5"), "id,labels\na,1\nb,1\n", "line 2 cannot be read: class 1 occurs twice"),
        (
            _ROWS.replace("0.5", "0.95"),
            "id,labels\na,1\nb,1\n",
            "line 2 cannot be read: score 0.95 comes after a lower one; write each",
        ),
        (_ROWS.replace("a,1", ",1"), "id,labels\na,1\nb,1\n", "line 2 cannot be read: no id"),
        (_ROWS, "id,labels\na,1\nb,\n", "1 of 2 videos have no labels, for example 'b'; --on_unlabelled=skip"),
        (_ROWS.replace("0.9", "high"), "id,labels\na,1\nb,1\n", "line 2 cannot be read: 'high' is not a score"),
        (_ROWS.replace("3 0.8 1 0.2", ""), "id,labels\na,1\nb,1\n", "line 3 cannot be read: no class and score"),
        (
            _ROWS.replace("3 0.8", "4716 0.8"),
            "id,labels\na,1\nb,1\n",
            "line 3 cannot be read: class 4716 is not below --num_classes=4716",
        ),
        (_ROWS, "id,labels\na,1\nb,1 9999\n", "line 3 cannot be read: class 9999 is not below --num_classes=4716"),
        (
            _ROWS + 'c,"4 0.5\nd,1 0.5\n',
            "id,labels\na,1\nb,1\n",
            "line 4: a quote is opened and not closed; mend the line",
        ),
        (_ROWS, 'id,labels\na,1\n"b,1\n', "line 3: a quote is opened and not closed; mend the line"),
        (_ROWS.replace("0.9 ", ""), "id,labels\na,1\nb,1\n", "line 2 cannot be read: 3 words"),
    ],
)
def test_unusable_input_gives_a_one_line_error(tmp_path: Path, rows: str, labels: str, message: str) -> None:
    (tmp_path / "submission.csv").write_text(rows)
    (tmp_path / "labels.csv").write_text(labels)
    result = run_command(
        "score-submission", f"--submission={tmp_path / 'submission.csv'}", f"--labels={tmp_path / 'labels.csv'}"
    )
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1


def test_a_byte_order_mark_changes_nothing_and_compressed_files_are_named(submission: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("\ufeffid,labels\na,1\nb,1 7\n")
    submission.write_text(f"\ufeff{_ROWS}")
    result = run_command("score-submission", f"--submission={submission}", f"--labels={tmp_path / 'labels.csv'}")
    assert result.returncode == 0 and result.stdout.startswith("GAP@20 0.5"), result.stderr
    submission.write_bytes(gzip.compress(_ROWS.encode()))
    result = run_command("score-submission", f"--submission={submission}", f"--labels={tmp_path / 'labels.csv'}")
    assert result.returncode == 1 and "is it compressed? unpack it" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("policy", "gap"), [("skip", 1 / 2), ("negative", (1 / 2 + 0) / 2)])
def test_videos_without_labels_are_left_out_or_negative(tmp_path: Path, policy: str, gap: float) -> None:
    """Video a has labels 1 and 9. Ranked without b: a1 (right), a2. With b: b3, a1 (right), a2, b1."""
    (tmp_path / "submission.csv").write_text(_ROWS.replace("3 0.8", "3 0.95"))
    (tmp_path / "labels.csv").write_text("id,labels\na,1 9\nb,\n")
    result = run_command(
        "score-submission",
        f"--submission={tmp_path / 'submission.csv'}",
        f"--labels={tmp_path / 'labels.csv'}",
        f"--on_unlabelled={policy}",
    )
    assert result.returncode == 0, result.stderr
    videos, done = (1, "left out") if policy == "skip" else (2, "kept as negatives")
    assert result.stdout == f"GAP@20 {gap:.6f} ({videos} videos, 2 labels)\n{done} 1 videos without labels\n"


def test_records_with_other_keys(submission: Path, tmp_path: Path) -> None:
    contexts = []
    for video, labels in ((b"a", [1]), (b"b", [1, 7])):
        context = {"vid": tf.train.Feature(bytes_list=tf.train.BytesList(value=[video]))}
        context["tags"] = tf.train.Feature(int64_list=tf.train.Int64List(value=labels))
        contexts.append(tf.train.Example(features=tf.train.Features(feature=context)).SerializeToString())
    write_shard(tmp_path / "own.tfrecord", contexts)
    flags = (f"--submission={submission}", f"--labels={tmp_path / 'own.tfrecord'}")
    result = run_command("score-submission", *flags, "--id_key=vid", "--labels_key=tags")
    assert result.stdout == f"GAP@20 {(1 / 1 + 2 / 4) / 3:.6f} (2 videos, 3 labels)\n", result.stderr
    result = run_command("score-submission", *flags)
    assert "record 0: neither 'id' nor 'video_id' (it has: tags, vid); name its key with --id_key" in result.stderr
    (tmp_path / "labels.csv").write_text("id,labels\na,1\nb,1\n")
    result = run_command("score-submission", flags[0], f"--labels={tmp_path / 'labels.csv'}", "--labels_key=tags")
    assert result.returncode == 1 and "--labels_key=tags: is for labels of videos in shards; leave it" in result.stderr


def test_an_id_of_two_records_and_an_empty_one_are_refused(submission: Path, tmp_path: Path) -> None:
    record = video_record(b"a", [1], rgb=np.zeros(1, np.float32))
    write_shard(tmp_path / "twice.tfrecord", [record, record])
    write_shard(tmp_path / "empty.tfrecord", [video_record(b"", [1], rgb=np.zeros(1, np.float32))])
    for name, message in (
        ("twice", "record 1, video 'a': its id is that of an earlier record"),
        ("empty", "record 0: 'id' is empty"),
    ):
        result = run_command("score-submission", f"--submission={submission}", f"--labels={tmp_path / name}.tfrecord")
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
