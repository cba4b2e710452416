"""MAP@K of a submission of segments: by hand, at random, and unusable files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from commands import run_command
from shards import frame_record, video_record, write_shard

from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.segment_submissions import read_ratings, submission_map
from yt8m_tf.serving.segment_submission import read_classes, read_submission, write_submission

_FRAMES = np.zeros((12, 2), np.uint8)
_ROWS = "Class,Segments\n7,a:5 b:0 a:0 b:5\n3,b:0\n"


def rated_record(video_id: bytes, starts: Sequence[int], classes: Sequence[int], scores: Sequence[float]) -> bytes:
    record = tf.train.SequenceExample.FromString(frame_record(video_id, None, rgb=_FRAMES))
    context = record.context.feature
    context["segment_start_times"].int64_list.value.extend(starts)
    context["segment_end_times"].int64_list.value.extend(start + 5 for start in starts)
    context["segment_labels"].int64_list.value.extend(classes)
    context["segment_scores"].float_list.value.extend(scores)
    return record.SerializeToString()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Class 7 is present in a:5 and b:5, absent from a:0; class 3 is absent from b:0; class 4 is present in a:0."""
    (tmp_path / "segments.csv").write_text(_ROWS)
    (tmp_path / "classes.csv").write_text("Index\n3\n4\n7\n")
    write_shard(tmp_path / "one.tfrecord", [rated_record(b"a", [5, 0, 0], [7, 7, 4], [1, 0, 1])])
    records = [rated_record(b"b", [5, 0], [7, 3], [1, 0]), frame_record(b"c", None, rgb=_FRAMES)]
    write_shard(tmp_path / "two.tfrecord", records)
    return tmp_path


def _command(world: Path, *flags: str, labels: str = "*.tfrecord") -> tuple[int, str, str]:
    result = run_command(
        "score-submission", f"--submission={world / 'segments.csv'}", f"--labels={world / labels}", *flags
    )
    return result.returncode, result.stdout, result.stderr


def test_by_hand(world: Path) -> None:
    """For class 7, a:5 is right, b:0 unknown, a:0 wrong, b:5 right: (1/1 + 2/3) / 2; class 4 has no line."""
    own = (1 + 2 / 3) / 2
    for flags in ((), (f"--classes={world / 'classes.csv'}", "--num_classes=8")):
        code, stdout, stderr = _command(world, *flags)
        assert code == 0, stderr
        assert stdout.splitlines() == [
            f"MAP@100000 {own / 2:.6f} over all 2 classes with a positive rating",
            f"MAP@100000 {own:.6f} over the 1 of them in the submission",
            "3 of 5 ratings are of segments in its lists",
        ]
    # Line endings and a byte order mark of other systems make no difference.
    (world / "segments.csv").write_bytes(b"\xef\xbb\xbf" + _ROWS.replace("\n", "\r\n").encode())
    assert _command(world)[1] == stdout


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_ROWS.replace("3,b:0", "8,b:0"), "line 3 cannot be read: class 8 is not one of the 3 that may be submitted"),
        (_ROWS.replace("3,b:0", "7,b:0"), "line 3 cannot be read: class 7 is already in line 2"),
        (_ROWS.replace("3,b:0", "3 b:0"), "line 3 cannot be read: '3 b:0' is not a class id and a comma"),
        (_ROWS.replace("3,b:0", "x,b:0"), "line 3 cannot be read: 'x' is not a class id"),
        (_ROWS.replace("3,b:0", "3,b"), "line 3 cannot be read: 'b' is not a segment, such as 6l0e:100"),
        (_ROWS.replace("3,b:0", "3,b:-5"), "line 3 cannot be read: 'b:-5' is not a segment"),
        (_ROWS.replace("a:0", "a:5"), "line 2 cannot be read: segment a:5 occurs twice"),
        (_ROWS.replace("a:", "d:").replace("b:", "e:"), "none of its segments was rated"),
        ("Class,Segments\n", "has no class"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(world: Path, rows: str, message: str) -> None:
    (world / "segments.csv").write_text(rows)
    code, _, stderr = _command(world, f"--classes={world / 'classes.csv'}")
    assert code == 1 and message in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            rated_record(b"x", [0, 5], [1], [1]),
            "lists of ratings of different lengths: 2 in 'segment_start_times', 1 in",
        ),
        (rated_record(b"x", [0], [1], [1.5]), "the rating of class 1 at second 0 is 1.5, not in [0, 1]"),
        (rated_record(b"x", [0], [1], [np.nan]), "the rating of class 1 at second 0 is nan, not"),
        (
            rated_record(b"x", [0], [4716], [1]),
            "class 4716, rated at second 0, is not below --num_classes=4716; raise that",
        ),
        (rated_record(b"x", [-5], [1], [1]), "'segment_start_times' contains -5"),
        (video_record(b"x", [1], rgb=np.zeros(2, np.float32)), "(x): a record of the video level"),
        (rated_record(b"a", [0], [1], [1]), "(a): its id is that of an earlier record"),
        (rated_record(b"", [0], [1], [1]), "record 0 (no id): has no id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "record",  # maps' bytes differ between processes
)
def test_invalid_ratings_are_named(world: Path, record: bytes, message: str) -> None:
    write_shard(world / "wrong.tfrecord", [record])
    with pytest.raises(InputError) as error:
        read_ratings(str(world / "*.tfrecord"), 4716)
    assert message in str(error.value) and "wrong.tfrecord: record 0" in str(error.value)


def test_without_ratings_or_positive_ones_there_is_nothing_to_score(world: Path) -> None:
    write_shard(world / "none.tfrecord", [frame_record(b"c", None, rgb=_FRAMES)])
    with pytest.raises(InputError, match="no record has ratings of segments"):
        read_ratings(str(world / "none.tfrecord"), 8)
    write_shard(world / "absent.tfrecord", [rated_record(b"c", [0], [3], [0])])
    with pytest.raises(InputError, match="no class that may be submitted was rated present"):
        submission_map(world / "segments.csv", read_ratings(str(world / "absent.tfrecord"), 8), range(8))
    shard = world / "two.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged at byte"):
        read_ratings(str(shard), 8)


def test_a_written_submission_can_be_read_and_long_lists_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "segments.csv"
    lists = [(3, [b"3,6l0e:100", b"a:b:0"]), (0, [])]
    write_submission(path, lists)
    assert path.read_bytes() == b"Class,Segments\n3,3,6l0e:100 a:b:0\n0,\n"
    assert list(read_submission(path, range(4))) == lists
    with pytest.raises(InputError, match="line 2 cannot be read: 2 segments; write at most the 1 best"):
        list(read_submission(path, range(4), k=1))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="not Class,Segments; is it compressed"):
        list(read_submission(path, range(4)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Class\n1\n", "has no column 'Index'"),
        ("Index\n", "names no class"),
        ("Index\n1\nx\n", "line 3: 'x' is not a class id"),
        ("Index\n1\n1\n", "line 3: class 1 is already in line 2"),
        ("Index\n9\n", "line 2: class 9 is not one of the 9 classes"),
    ],
)
def test_an_invalid_list_of_classes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_classes(tmp_path / "classes.csv", 9)


def test_the_flag_for_classes_is_only_for_segments(world: Path) -> None:
    (world / "segments.csv").write_text("VideoId,LabelConfidencePairs\na,1 0.5\n")
    code, _, stderr = _command(world, "--classes=classes.csv")
    assert code == 1 and "--classes=classes.csv: is for a submission with the header Class,Segments" in stderr
    (world / "segments.csv").unlink()
    code, _, stderr = _command(world, "--classes=classes.csv")
    assert code == 1 and "segments.csv: cannot be read: No such file" in stderr and stderr.count("\n") == 1
